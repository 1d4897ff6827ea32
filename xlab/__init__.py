"""xlab: a reproducible testbed for cross-host container networking on one Linux machine."""

from __future__ import annotations

__version__ = "0.1.0"
