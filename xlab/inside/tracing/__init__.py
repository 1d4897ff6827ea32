"""Following one packet through a lab: where it was seen, what decided, why it went no further.

watch   frames on all interfaces of some nodes, with the kernel's own timestamps
tables  what routes, bridges, Open vSwitch and iptables say of a packet, and what they counted
trace   both put together
"""
