"""Standard output and error: any text, whatever their encoding; errors told without a traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from xlab.cli._app import COMMAND


class DisplayError(Exception):
    """Progress can no longer be shown; not an OSError, which the runner would take for its own."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def prepare_streams() -> None:
    """Make stdout and stderr take any text, whatever their encoding, and be there at all."""
    import codecs

    codecs.register_error("xlab", _encodable)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # the caller closed it; the next file opened would take its number
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, "r" if number == 0 else "w", encoding="utf-8"))
        elif number and type(stream) is io.TextIOWrapper and stream.isatty():
            setattr(sys, name, _Terminal(stream))
        elif number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="xlab")


class _Terminal(io.TextIOWrapper):
    """Standard output or error to a terminal, whose end is one event however it becomes known.

    A terminal that is closed refuses what is written to it (EIO) before it sends SIGHUP
    (__tty_hangup), and not every shell passes that on.  Whichever comes first ends xlab as SIGHUP.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        encoding, unbuffered = stream.encoding, stream.write_through
        super().__init__(
            stream.detach(), encoding, "xlab", line_buffering=True, write_through=unbuffered
        )

    def write(self, text: str, /) -> int:
        with self._watched():
            return super().write(text)

    def flush(self) -> None:
        with self._watched():
            super().flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EIO:
                # To the process: this may be the thread that redraws, and the main one sleep.
                os.kill(os.getpid(), signal.SIGHUP)
            raise


_LOOKALIKES = str.maketrans("✓✗×≈–µ…“”", '+!x~-u.""')


def _encodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written in place of characters that the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unencodable = error.object[error.start : error.end]
    similar = unencodable.translate(_LOOKALIKES)
    return similar.encode("ascii", "backslashreplace").decode("ascii"), error.end


def print_error(message: str) -> None:
    """To stderr, without control characters: messages quote tools and other people's files.

    What they offer to be pasted begins with `xlab; it becomes what was typed.  On a terminal they
    wrap between words; elsewhere they stay one line, for whoever searches them.
    """
    from xlab.report.text import plain

    message = message.replace("`xlab ", f"`{COMMAND} ")

    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()
    try:
        message = plain(message)
        if message.startswith("xlab: ") and sys.stderr.isatty():
            message = _wrapped(message, width_of(sys.stderr))
        print(message, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is left to tell


def width_of(stream: TextIO) -> int:
    """Of lines on it: COLUMNS, else as wide as its terminal is, 100 at most."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return min(int(asked), _WIDEST)
    # shutil's asks the first sys.stdout, whose descriptor `_Terminal` took over.
    with suppress(OSError, ValueError):
        return min(os.get_terminal_size(stream.fileno()).columns or _WIDEST, _WIDEST)
    return _WIDEST


_WIDEST = 100


def _wrapped(message: str, width: int) -> str:
    """Between words; what is between backticks, to be typed, stays on a line if one holds it."""
    import re
    import textwrap

    glue = "\0"
    lines = []
    for line in message.split("\n"):
        glued = re.sub(
            "`[^`]*`", lambda m: m[0] if len(m[0]) > width else m[0].replace(" ", glue), line
        )
        lines += textwrap.wrap(
            glued, width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
        ) or [""]
    return "\n".join(lines).replace(glue, " ")


def print_how_to_go_on(command: str, folder: Path, done: int, unit: str) -> None:
    """To stderr, of what was broken off and keeps what is done: so many of `unit`."""
    kept = f"1 {unit} is" if done == 1 else f"{done} {unit}s are"
    again = f"{COMMAND} {command} --resume {shlex.quote(str(folder))}"
    print_error(f"{kept} kept; to go on: {again}")


def print_how_to_set_up() -> None:
    """To stderr, where programs are missing: bin/xlab installs them by itself, a wheel does not."""
    from xlab.kernel import programs

    if missing := programs.missing():
        print_error(f"missing: {', '.join(missing)}; to install: {COMMAND} setup")


def discard_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain while it ends."""
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # a stream without a descriptor has nothing to lose


def print_json(data: object) -> None:
    sys.stdout.write(json_text(data))


def json_text(data: object, output: Path | None = None) -> str:
    """Data as JSON for a file, or for stdout: a terminal gets what it would obey as \\uXXXX."""
    readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    told = json.dumps(data, indent=2, ensure_ascii=not readable, allow_nan=False) + "\n"
    return _harmless(told) if output is None and sys.stdout.isatty() else told


def _harmless(told: str) -> str:
    """JSON without characters that act: json escapes those of C0, and leaves CSI as U+009B.

    Line feeds stand between values alone: in a string they are escaped.
    """
    import re
    import unicodedata

    def escaped(found: re.Match[str]) -> str:
        acts = unicodedata.category(found[0]).startswith("C")
        return json.dumps(found[0])[1:-1] if acts else found[0]

    return re.sub(r"[^\n -~]", escaped, told)


def write(content: str | bytes, output: Path | None) -> None:
    """To stdout, or whole or not at all to a file.  Bytes are for files alone."""
    if output is None:
        assert isinstance(content, str)
        sys.stdout.write(content)
        return
    from glob import escape

    from xlab.kernel import disk

    disk.sweep(output.parent, escape(output.name))
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    disk.write_whole(output, content)


def write_text(show: Callable[[TextIO], None], output: Path | None) -> None:
    """What `show` prints, as `write` does it."""
    if output is None:
        show(sys.stdout)
        return
    text = io.StringIO()
    show(text)
    write(text.getvalue(), output)
