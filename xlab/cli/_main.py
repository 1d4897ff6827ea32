"""What the `xlab` command runs: the only place that meets errors, prints them and exits."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import typer

from xlab.cli._app import Job, Settings, commands, program
from xlab.cli._streams import (
    DisplayError,
    discard_stdout,
    prepare_streams,
    print_error,
    print_how_to_set_up,
)
from xlab.cli._wrong_usage import ClickError, refusal
from xlab.errors import CapabilityError, XlabError, shortened
from xlab.kernel import signals

#: A shell reports a process that a signal ended as 128 + its number; so does xlab.
_SIGNALLED = 128


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP in the main thread: everything is taken down as on Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments (by default the process's own) ask; returns the exit status.

    No exception leaves this function.
    """
    settings = Settings()
    prepare_streams()
    with _first_signal_raises() as raised:
        try:
            status = perform(arguments, settings)
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            status = _end_on_interrupt(interrupt, settings)
        except XlabError as error:
            _say(f"xlab: {error}", error, settings)
            status = error.exit_status
            if isinstance(error, CapabilityError):
                print_how_to_set_up()
        except (OSError, DisplayError) as error:
            # What was interrupted may find the terminal gone while it is taken down.
            if raised:
                discard_stdout()
                status = _end_on_interrupt(raised[0], settings)
            else:
                status = _end_on_os_error(error, settings)
        except Exception as error:  # noqa: BLE001 - a bug of ours; still no traceback unless asked
            hint = "" if settings.debug else " (a bug in xlab; --debug shows where)"
            _say(f"xlab: {type(error).__name__}: {error}{hint}", error, settings)
            status = 1
    return status


def _end_on_interrupt(interrupt: KeyboardInterrupt, settings: Settings) -> int:
    number = interrupt.number if isinstance(interrupt, _Terminated) else signal.SIGINT
    suffix = f" by {interrupt}" if isinstance(interrupt, _Terminated) else ""
    _say(f"interrupted{suffix}", interrupt, settings)
    return _SIGNALLED + number


def _end_on_os_error(error: OSError | DisplayError, settings: Settings) -> int:
    reason = error.reason if isinstance(error, DisplayError) else error
    # What has been said is shown, unless it is stdout itself that fails.
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    discard_stdout()
    if isinstance(reason, BrokenPipeError):
        # Whoever read has gone: end as quietly as a program without a handler for SIGPIPE.
        return _SIGNALLED + signal.SIGPIPE
    names = [shortened(name) for name in (reason.filename, reason.filename2) if name is not None]
    _say(f"xlab: {': '.join([*names, reason.strerror or str(reason)])}", error, settings)
    return 1


def perform(arguments: Sequence[str] | None, settings: Settings) -> int:
    """Parse, and do what is asked; what can't be raises."""
    asked = understood(sys.argv[1:] if arguments is None else arguments, settings)
    if isinstance(asked, int):
        return asked
    from xlab.kernel.patience import announcing

    with announcing(lambda said: print_error(f"xlab: {said}")):
        return asked()


def understood(arguments: Sequence[str], settings: Settings) -> Job | int:
    """A job, or the status with which --help, --version and completion end; or UsageError."""
    first = next((each for each in arguments if each != "--debug"), "")
    if first in commands():
        # What is wrong is said in view of all.
        with suppress(ClickError):
            return _parsed(program(first), arguments, settings)
    try:
        return _parsed(program(), arguments, settings)
    except ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a way to ask for help
            error.show()
            return 2
        raise refusal(error, program(), arguments) from error


def _parsed(by: Any, arguments: Sequence[str], settings: Settings) -> Job | int:
    try:
        asked = by.main(list(arguments), prog_name="xlab", standalone_mode=False, obj=settings)
    except typer.Abort:
        return _SIGNALLED + signal.SIGINT
    return asked if callable(asked) else int(asked or 0)


@contextmanager
def _first_signal_raises() -> Iterator[Sequence[KeyboardInterrupt]]:
    """The first SIGINT, SIGTERM or SIGHUP raises in the main thread, and no other does.

    Gives what it has raised, once it has.

    Whoever presses Ctrl-C twice does not break off the taking down, which takes a second at most.
    A signal that is ignored from the start (nohup) stays ignored.
    """
    ending = False
    raised: list[KeyboardInterrupt] = []

    def end(number: int, _frame: object) -> None:
        if not (ending or raised):
            raised.append(KeyboardInterrupt() if number == signal.SIGINT else _Terminated(number))
            raise raised[0]

    before: dict[int, signals.Handler] = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    signals.handle(dict.fromkeys(before, end))
    try:
        yield raised
    finally:
        ending = True
        signals.handle(before)


def _say(message: str, error: BaseException, settings: Settings) -> None:
    if settings.debug:
        import traceback

        print_error("".join(traceback.format_exception(error)).rstrip())
    print_error(message)
