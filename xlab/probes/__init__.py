"""Probes: what is measured between two nodes of a lab, or of it as a whole, and the path's proof.

A module here may declare probes (`kinds`), and `catalog` finds them; `rounds` measures.
Nothing here builds the lab that is measured, or judges what was found.
"""
