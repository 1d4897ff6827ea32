"""`python -m xlab.mininet`: run a Mininet script, a module, or Mininet's own `mn`, in a sandbox."""

from __future__ import annotations

import builtins
import linecache
import runpy
import shutil
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path

from xlab.errors import CapabilityError, UsageError, XlabError, shortened
from xlab.mininet import inside

_USAGE = """\
usage: python -m xlab.mininet SCRIPT [ARGUMENT...]
       python -m xlab.mininet -m MODULE [ARGUMENT...]
       python -m xlab.mininet mn [OPTION...]

Runs a program written for Mininet in a sandbox: it needs no root, starts no controller, and leaves
nothing behind.  What it imports from mininet is Mininet's own code on xlab's engine.  `mn` is the
program of that name that comes with Mininet; `mn --help` lists its options.
"""


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else UsageError.exit_status
    try:
        start = _prepared(arguments)
        inside.enter()
        from xlab.mininet.replaced import install

        install()
        sys.meta_path.insert(0, _NoDisplay())
        start()
    except XlabError as error:
        print(f"xlab: {error}{_where(error)}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the script's own, told as Python would
        _tell(error)
        return 1
    return 0


class NoDisplayError(CapabilityError, ImportError):
    """What a program imports is for a display; one that can do without may catch it."""


class _NoDisplay:
    """A finder of modules, sys.meta_path: Tk would end with an error of its own, or wait."""

    def find_spec(self, name: str, *_: object) -> None:
        if name in ("tkinter", "Tkinter"):
            raise NoDisplayError(f"{name}: no display can be reached from inside a sandbox")


def _prepared(arguments: list[str]) -> Callable[[], None]:
    """What to do once inside; whatever can be refused is refused here."""
    if arguments[0] == "-m":
        if len(arguments) < 2:
            raise UsageError("-m: which module?")
        return lambda: _run_module(arguments[1:])
    if arguments[0].startswith("-"):
        raise UsageError(f"no option {arguments[0]}: a script, -m MODULE or mn is wanted")
    path = Path(arguments[0])
    if arguments[0] == "mn" and not path.exists():
        path = _find_mn()
    try:
        # Read before entering: a script in /tmp itself is not visible inside.
        source = path.read_bytes()
        code = compile(source, str(path), "exec")
    except OSError as error:
        raise UsageError(f"{shortened(path)}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    linecache.getlines(str(path))
    return lambda: _run_script(path, code, arguments[1:])


def _find_mn() -> Path:
    beside = Path(sys.executable).parent / "mn"
    found = str(beside) if beside.exists() else shutil.which("mn")
    if found is None:
        raise CapabilityError("`mn` is not installed", "it comes with the Python package mininet")
    return Path(found)


def _run_script(path: Path, code: types.CodeType, arguments: list[str]) -> None:
    sys.argv = [str(path), *arguments]
    sys.path[0] = str(path.resolve().parent)
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=str(path), __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


def _run_module(words: list[str]) -> None:
    sys.argv = [words[0], *words[1:]]
    sys.path[0] = str(Path.cwd())
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except ImportError as error:
        if "runpy" in traceback.extract_tb(error.__traceback__)[-1].filename:
            raise UsageError(f"-m {words[0]}: {error}") from error
        raise


def _where(error: BaseException) -> str:
    """The script's line that led to an error of ours."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == sys.argv[0] != __file__:
            return f" ({frame.filename}:{frame.lineno})"
    return ""


def _tell(error: BaseException) -> None:
    """A traceback without the frames that are not the script's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


if __name__ == "__main__":
    sys.exit(main())
