"""Mininet's own modules, as they came: what this package builds on and puts its classes beside.

They import distutils, which setuptools provides from Python 3.12 on and warns of before.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mininet import clean, cli, link, log, net, node, nodelib, term, topolib, util
__all__ = ["clean", "cli", "link", "log", "net", "node", "nodelib", "term", "topolib", "util"]
