"""The kernel's own things: system calls, netlink, namespaces, processes, packets, files, the clock.

Any room may import from here.  Nothing here knows of a lab: what is said of hosts, links or methods
belongs in a room above.
"""
