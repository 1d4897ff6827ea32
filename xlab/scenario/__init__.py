"""What is asked for, and what must then hold: requests, scenario files, their claims.

Scenario files import `scenario`, `claims`, `judge` and the rooms below.  What builds, breaks or
measures a lab belongs above.
"""
