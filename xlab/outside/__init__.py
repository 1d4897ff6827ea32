"""A lab from outside, for programs and people: the Python API, pytest, labs that stay, scripts.

Import `running_lab` to start, find and end one, `api` for `xlab.lab`.  What pid 1 does belongs in
inside/, what is typed in cli/.
"""
