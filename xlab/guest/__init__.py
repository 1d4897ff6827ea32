"""Throw-away machines with a stock Debian kernel, emulated by QEMU.

`python -m xlab.guest -- COMMAND` runs a command on a view of this machine (`view`).  `frozen` runs
work of ours in a machine of its own whose clock counts instructions: made of pinned `packages`,
booted once, and thawed for each piece of work.
Nothing here knows of a lab; what a guest is to do is handed to it.
"""
