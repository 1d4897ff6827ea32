"""What pid 1 of a lab does: build it, judge and measure it, answer while it stands.

Import `verbs.handlers` to serve a lab.  What runs outside its sandbox (files, screens, records)
belongs in experiments/ and above.
"""
