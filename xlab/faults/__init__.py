"""What goes wrong in a lab on purpose: how it is done and mended, and who must reach whom then.

A fault is a class in `kinds`.  Import `faults` to do them, `recovery` to time how long a flow is
gone.  Probes and verbs that use faults belong above.
"""
