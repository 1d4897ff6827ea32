"""The command line: `main` runs it.

Each module here is the command of its name, but for those that begin with an underscore: to add a
command is to add its file.  `lab/` has those of `xlab lab`.  Start-up is a promise (`xlab --help`
under 0.15 s), so a command is imported when it is asked for (`_app.program`), and imports what does
the work when it is to do it.
"""

from xlab.cli._main import main

__all__ = ["main"]
