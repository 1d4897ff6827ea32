"""What a wheel has that no file of the checkout is: made by xlab itself, of what its --help says.

share/man/man1/xlab.1, and the scripts by which bash, zsh and fish complete.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MANUAL = "share/man/man1/xlab.1"
_COMPLETIONS = {
    "bash": "share/bash-completion/completions/xlab",
    "zsh": "share/zsh/site-functions/_xlab",
    "fish": "share/fish/vendor_completions.d/xlab.fish",
}


class Hook(BuildHookInterface[Any]):
    """hatchling finds it by its base."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        # Gone with this object, which lives as long as the build.
        self._made = TemporaryDirectory()
        texts = {_MANUAL: self._said("help", "--man")}
        for shell, place in _COMPLETIONS.items():
            texts[place] = self._said(_XLAB_COMPLETE=f"source_{shell}").lstrip()
        # zsh reads the file when it completes for the first time, and then wants that done.
        texts[_COMPLETIONS["zsh"]] += '_xlab_completion "$@"\n'
        for number, (place, text) in enumerate(texts.items()):
            file = Path(self._made.name, str(number))
            file.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(file)] = place

    def _said(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "xlab", *arguments],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([self.root, *sys.path]),
                "PYTHONUTF8": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        )
        return done.stdout
