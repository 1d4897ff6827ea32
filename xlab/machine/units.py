"""Unit files of a host as systemd reads them: the file, its drop-ins, and the command line in them.

    /etc/systemd/system/NAME           in place of     /usr/lib/systemd/system/NAME
    /etc/systemd/system/NAME.d/*.conf  on top of it, in the order of their names

Of the format (systemd.unit(5), systemd.service(5)) what a service of one command needs: continued
lines, comments, an empty ExecStart= that takes back what was said before, Environment=,
EnvironmentFile=, $NAME and ${NAME}.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xlab.errors import UsageError

#: The first that has the file wins.
PLACES = (
    Path("/etc/systemd/system"), Path("/run/systemd/system"), Path("/usr/lib/systemd/system")
)  # fmt: skip

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+)$)")


@dataclass(frozen=True, slots=True)
class Unit:
    name: str
    #: The file and its drop-ins, as they were read.
    files: dict[Path, str]
    #: Of section [Unit].
    description: str
    exec_start: str
    environment: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """ExecStart as words; UsageError if it says none, or what can't be read."""
        if not self.exec_start:
            raise UsageError(f"{self.name} has no ExecStart= setting. Refusing.")
        try:
            words = shlex.split(self.exec_start)
        except ValueError as error:
            raise UsageError(f"{self.name}: ExecStart= cannot be read: {error}") from error
        found = [one for word in words for one in _expanded(word, self.environment)]
        if not found:
            raise UsageError(f"{self.name}: nothing is left of ExecStart={self.exec_start[:60]}")
        return found


def load(name: str) -> Unit | None:
    """A unit by its whole name as the calling thread's /etc and /usr have it; None without one."""
    file = next((place / name for place in PLACES if (place / name).is_file()), None)
    if file is None:
        return None
    drop_ins = {path.name: path for place in reversed(PLACES)
                for path in (place / f"{name}.d").glob("*.conf") if path.is_file()}  # fmt: skip
    paths = [file, *(drop_ins[key] for key in sorted(drop_ins))]
    return parse(name, {path: _text_of(path) for path in paths})


def _text_of(file: Path) -> str:
    with file.open(errors="replace") as opened:
        return opened.read(_LONGEST_FILE)


#: In characters; systemd itself reads lines of up to 1 MB.
_LONGEST_FILE = 1 << 20


def parse(name: str, files: Mapping[Path, str]) -> Unit:
    """A unit from the text of its files, in their order."""
    description, command, environment = name, "", dict[str, str]()
    for text in files.values():
        for section, key, value in _settings(text):
            match section, key:
                case "Unit", "Description":
                    description = value
                case "Service", "ExecStart":
                    command = value.lstrip("@-:+!")
                case "Service", "Environment":
                    environment |= _assignments(value)
                case "Service", "EnvironmentFile":
                    environment |= _of_file(value)
    return Unit(name, dict(files), description, command, environment)


def _settings(text: str) -> list[tuple[str, str, str]]:
    """(section, key, value) line by line; comments may stand between continued lines."""
    section, found, pending = "", [], ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        line, pending = pending + line, ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            key, _, value = line.partition("=")
            found.append((section, key.strip(), value.strip()))
    return found


def _assignments(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return {}
    pairs = (word.partition("=") for word in words)
    return {name: value for name, equals, value in pairs if equals}


def _of_file(value: str) -> dict[str, str]:
    """Of a file whose name begins with "-" nothing is said where it is missing; here never."""
    file = Path(value.lstrip("-"))
    if not file.is_file():  # nor a device, of which there is no end
        return {}
    try:
        lines = _text_of(file).splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        if not line.lstrip().startswith(("#", ";")):
            found |= _assignments(line)
    return found


def _expanded(word: str, environment: Mapping[str, str]) -> list[str]:
    """$NAME alone becomes as many words as its value has, ${NAME} is put in where it stands."""
    if re.fullmatch(r"\$\w+", word):
        try:
            return shlex.split(environment.get(word[1:], ""))
        except ValueError:
            return [environment[word[1:]]]
    return [re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], ""), word)]
