"""What puts conditions on links: a module each, which `chooser` finds, at the joint of `joint`.

What conditions are, and how they are written, is in `xlab/lab/conditions.py`.
"""
