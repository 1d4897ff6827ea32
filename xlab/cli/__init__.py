"""The command line, one module a command; `app` is the application, `main` runs it.

Start-up is a promise (`xlab --help` under 0.15 s), so the modules that do the work are imported by
the jobs, not here.  Commands appear in the help in the order of these imports.
"""

# isort: off
import xlab.cli.run
import xlab.cli.standing
import xlab.cli.inside
import xlab.cli.seeing
import xlab.cli.compare
import xlab.cli.check
import xlab.cli.scale
import xlab.cli.sweep
import xlab.cli.report
import xlab.cli.script
import xlab.cli.facts  # noqa: F401 - they join `app`

# isort: on
from xlab.cli._app import app
from xlab.cli._main import main

__all__ = ["app", "main"]
