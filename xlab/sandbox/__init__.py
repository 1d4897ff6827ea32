"""A lab's private namespaces: made, entered, found by name, and the socket to their pid 1.

Import `sandbox` to make one, `controller` to talk to its pid 1, `registry` to find those that stay.
What a sandbox holds (hosts, links, methods) belongs in lab/ and above.
"""
