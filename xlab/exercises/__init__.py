"""Exercises: what is handed to a student, what stands when it begins, whether it has been done.

Folders in labs/ are data (docs/teaching.md has their form); all that reads, draws, begins, judges
and proves them is here.  What is typed belongs in cli/lab/, what a check asks of the network in
inside/checks/.
"""
