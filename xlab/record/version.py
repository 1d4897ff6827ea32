"""Which xlab this is: in its output, and in all that it writes."""

__version__ = "0.1.0"
