"""A headless Chromium, spoken to over a pipe with the DevTools protocol.

with Chromium(tmp_path) as browser:
    with browser.page(width_px=360, dark=True) as page:
        page.open(file)
        page.evaluate("document.title")
        page.requests, page.complaints

The pipe (`--remote-debugging-pipe`) needs no port and no library: messages are JSON, each ended by
a zero byte.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find() -> str | None:
    """The browser's program, if one is installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A running browser with a profile of its own in `folder`; ends with the context."""

    def __init__(self, folder: Path) -> None:
        program = find()
        assert program is not None
        commands_in, commands_out = _high(os.pipe())
        answers_in, answers_out = _high(os.pipe())

        def as_3_and_4() -> None:
            """It reads commands from descriptor 3 and writes answers to 4."""
            os.dup2(commands_in, 3)
            os.dup2(answers_out, 4)

        self._process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            preexec_fn=as_3_and_4,  # noqa: PLW1509 - pass_fds keeps numbers, it gives none
            close_fds=False,
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands_in)
        os.close(answers_out)
        self._commands, self._answers = commands_out, answers_in
        self._number = 0
        self._received = b""
        #: Events that nobody has asked for yet, in order.
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)
        os.close(self._answers)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(PATIENCE_S)

    @contextmanager
    def page(self, *, width_px: int, dark: bool) -> Iterator[Page]:
        """A page of that width, with the colour scheme that the reader's system asks for."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        size = {"width": width_px, "height": 800, "deviceScaleFactor": 1, "mobile": width_px < 600}
        page.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield page
        self.call("Target.closeTarget", {"targetId": target})

    def call(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """One command; its result."""
        self._number += 1
        command: dict[str, Any] = {
            "id": self._number, "method": method, "params": parameters or {},
        }  # fmt: skip
        if session:
            command["sessionId"] = session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self.receive()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def receive(self) -> dict[str, Any]:
        """The next message; AssertionError if none comes in time."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._received:
            left = max(deadline - time.monotonic(), 0)
            readable, _, _ = select.select([self._answers], [], [], left)
            assert readable, "Chromium does not answer"
            chunk = os.read(self._answers, 1 << 16)
            assert chunk, "Chromium has ended"
            self._received += chunk
        message, _, self._received = self._received.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded


def _high(pipe: tuple[int, int]) -> tuple[int, int]:
    """A pipe whose descriptors are none of the first ten."""
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipe]
    for end in pipe:
        os.close(end)
    return moved[0], moved[1]


class Page:
    """One page, and what it did."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._browser.call(method, parameters, self._session)

    def open(self, file: Path) -> None:
        """Load a file, with all that belongs to it."""
        self.call("Page.navigate", {"url": file.absolute().as_uri()})
        while not self._events("Page.loadEventFired"):
            self._browser.events.append(self._browser.receive())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which the page's own policy does not bind."""
        asked = {"expression": expression, "returnByValue": True}
        answer = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def requests(self) -> list[str]:
        """What was fetched, the page itself first."""
        return [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings, and whatever else stands in the console."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event) for name in names for event in self._events(name)]

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [
            event["params"]
            for event in self._browser.events
            if event.get("method") == method and event.get("sessionId") == self._session
        ]
