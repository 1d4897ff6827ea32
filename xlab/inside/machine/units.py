"""Unit files of a host as systemd reads them: the file, its drop-ins, and the command line in them.

    /etc/systemd/system/NAME           in place of     /usr/lib/systemd/system/NAME
    /etc/systemd/system/NAME.d/*.conf  on top of it, in the order of their names

Of the format (systemd.unit(5), systemd.service(5)) what a service of one command needs: continued
lines, comments, an empty ExecStart= that takes back what was said before (without it a second one
is refused), Environment=, EnvironmentFile=, $NAME and ${NAME}.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from xlab.errors import UsageError, XlabError
from xlab.kernel import foreign

#: The first that has the file wins.
PLACES = (
    Path("/etc/systemd/system"), Path("/run/systemd/system"), Path("/usr/lib/systemd/system")
)  # fmt: skip

_SEVERAL = (
    "Service has more than one ExecStart= setting, which is only allowed for Type=oneshot "
    "services. Refusing."
)

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
    #: Why systemd would not load it, if it would not.
    trouble: str = ""

    def command(self) -> list[str]:
        """ExecStart as words; UsageError if it says none, or what can't be read."""
        if self.trouble:
            raise UsageError(f"{self.name}: {self.trouble}")
        if not self.exec_start:
            raise UsageError(f"{self.name} has no ExecStart= setting. Refusing.")
        try:
            words = shlex.split(self.exec_start)
        except ValueError as error:
            raise UsageError(f"{self.name}: ExecStart= cannot be read: {error}") from error
        left, found = _LONGEST_COMMAND, list[str]()
        for word in words:
            left -= _expanded_length(word, self.environment)
            if left < 0:
                raise UsageError(f"{self.name}: ExecStart= has too much in it: its variables")
            found += _expanded(word, self.environment)
        if not found:
            raise UsageError(f"{self.name}: nothing is left of ExecStart={self.exec_start[:60]}")
        return found


def load(name: str) -> Unit | None:
    """A unit by its whole name as the calling thread's /etc and /usr have it; None without one."""
    file = next((place / name for place in PLACES if (place / name).is_file()), None)
    if file is None:
        return None
    drop_ins = {path.name: path for place in reversed(PLACES)
                for path in _drop_ins(place / f"{name}.d")}  # fmt: skip
    paths = [file, *(drop_ins[key] for key in sorted(drop_ins))]
    files: dict[Path, str] = {}
    left = foreign.LONGEST_BYTES
    for path in paths:
        try:
            content = foreign.read(path, longest_bytes=left)
        except FileNotFoundError:
            continue
        except XlabError as error:
            return Unit(name, files, name, "", trouble=str(error))
        files[path] = content.decode(errors="replace")
        left -= len(content)
    return parse(name, files)


def _drop_ins(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in islice(entries, _MOST_FILES)
                if entry.name.endswith(".conf") and entry.is_file()
            ]
    except OSError:
        return []


#: In a folder of drop-ins, and of EnvironmentFile=; nobody has as many.
_MOST_FILES = 100
#: Characters of a command once its variables are put in, and of all files with variables: each
#: may be named thousands of times.
_LONGEST_COMMAND = _LONGEST_VARIABLES = 1 << 17


def parse(name: str, files: Mapping[Path, str]) -> Unit:
    """A unit from the text of its files, in their order."""
    description, kind, environment = name, "", dict[str, str]()
    commands: list[str] = []
    variables, left = 0, _LONGEST_VARIABLES
    for text in files.values():
        for section, key, value in _settings(text):
            match section, key:
                case "Unit", "Description":
                    description = value
                case "Service", "Type":
                    kind = value
                case "Service", "ExecStart":
                    commands = [*commands, value.lstrip("@-:+!")] if value else []
                case "Service", "Environment":
                    environment |= _assignments(value)
                case "Service", "EnvironmentFile" if variables < _MOST_FILES:
                    variables += 1
                    content = _of_file(value)
                    left -= len(content)
                    if left >= 0:
                        environment |= _variables(content)
    trouble = _SEVERAL if len(commands) > 1 and kind != "oneshot" else ""
    command = commands[-1] if commands else ""
    return Unit(name, dict(files), description, command, environment, trouble)


def _settings(text: str) -> Iterator[tuple[str, str, str]]:
    """(section, key, value) line by line; comments may stand between continued lines."""
    section, pending = "", ""
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
            yield section, key.strip(), value.strip()


def _assignments(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return {}
    pairs = (word.partition("=") for word in words)
    return {name: value for name, equals, value in pairs if equals}


def _of_file(value: str) -> str:
    """Of a file whose name begins with "-" nothing is said where it is missing; here never."""
    try:
        return foreign.text(Path(value.lstrip("-")))
    except (FileNotFoundError, XlabError):
        return ""


def _variables(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.lstrip().startswith(("#", ";")):
            found |= _assignments(line)
    return found


def _expanded_length(word: str, environment: Mapping[str, str]) -> int:
    """At the most, in characters."""
    named = (match[1] or match[2] for match in _VARIABLE.finditer(word))
    return len(word) + 1 + sum(len(environment.get(name, "")) for name in named)


def _expanded(word: str, environment: Mapping[str, str]) -> list[str]:
    """$NAME alone becomes as many words as its value has, ${NAME} is put in where it stands."""
    if re.fullmatch(r"\$\w+", word):
        try:
            return shlex.split(environment.get(word[1:], ""))
        except ValueError:
            return [environment[word[1:]]]
    return [re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], ""), word)]
