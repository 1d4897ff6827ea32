"""`python -m xlab.guest`: run a command in a throw-away guest."""

import sys

from xlab.guest.view import main

sys.exit(main())
