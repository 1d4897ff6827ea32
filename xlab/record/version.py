"""Which xlab this is: in its output, and in all that it writes."""

__version__ = "1.0.0"
#: When it became that, as CHANGELOG.md says.
RELEASED = "2026-11-29"
