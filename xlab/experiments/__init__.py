"""What builds, repeats and judges labs: a run, a comparison, a sweep, how costs grow, the gate.

Each runs outside the sandboxes that it makes, and writes records.  How they look, on a screen or on
paper, belongs in cli/screens/ and report/.
"""
