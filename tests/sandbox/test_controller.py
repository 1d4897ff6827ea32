"""The controller's lines: any that come in are answered or end the talk, at either end."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab import errors
from xlab.errors import (
    CapabilityError,
    CommandError,
    NoAnswerError,
    SandboxError,
    UsageError,
    XlabError,
)
from xlab.sandbox import controller
from xlab.sandbox.pulse import Pulse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
LINES = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")) | JSON.map(
    lambda value: json.dumps(value).encode()
)


def answer_to(call: str, lines: list[bytes]) -> Any:
    """What a client makes of these lines."""
    ours, theirs = socket.socketpair()
    client = controller.Client(ours)
    theirs.sendall(b"".join(line + b"\n" for line in lines))
    theirs.shutdown(socket.SHUT_WR)
    try:
        return client.call(call, {})
    finally:
        client.close()
        theirs.close()


@given(st.lists(LINES, max_size=3))
@example([b"[]"])
@example([b"[" * 100_000])
@example([b'{"error": 5}'])
@example([b'{"error": {"type": "CapabilityError", "exit_status": "x"}}'])
def test_a_client_takes_any_lines_for_an_answer_or_says_what_is_wrong(lines: list[bytes]) -> None:
    attempt(lambda: answer_to("x", lines), XlabError)


ERRORS = st.sampled_from(
    [
        UsageError("no"),
        CapabilityError("no TUN", "modprobe tun"),
        CommandError(["ip", "x"], node="h1", returncode=2, stderr="what?"),
        SandboxError("it ended"),
    ]
)


@given(ERRORS)
def test_an_error_of_ours_arrives_as_it_left(error: XlabError) -> None:
    line = json.dumps({"error": controller.described(error)}).encode()
    with pytest.raises(type(error)) as met:
        answer_to("x", [line])
    assert str(met.value) == str(error)
    assert met.value.exit_status == error.exit_status
    if isinstance(error, CapabilityError):
        assert isinstance(met.value, CapabilityError)
        assert (met.value.missing, met.value.remedy) == (error.missing, error.remedy)
    if isinstance(error, CommandError):
        assert isinstance(met.value, CommandError)
        assert (met.value.argv, met.value.node) == (("ip", "x"), "h1")
        assert (met.value.returncode, met.value.stderr) == (2, "what?")


def test_errors_of_others_are_named() -> None:
    line = json.dumps({"error": controller.described(ValueError("odd"))}).encode()
    with pytest.raises(SandboxError, match=r"^ValueError: odd"):
        answer_to("x", [line])
    assert getattr(errors, "shlex", None), "a name there that is no error"
    with pytest.raises(SandboxError, match=r"^shlex: odd"):
        answer_to("x", [b'{"error": {"type": "shlex", "message": "odd"}}'])


def served(lines: list[bytes]) -> list[dict[str, Any]]:
    """What the controller answers to these lines before it hangs up."""

    def echo(arguments: Mapping[str, Any], emit: controller.Emit) -> Any:
        emit({"heard": len(arguments)})
        return dict(arguments)

    ours, theirs = socket.socketpair()
    talk = threading.Thread(target=controller._converse, args=({"echo": echo}, theirs, False))
    talk.start()
    with ours, ours.makefile("rb") as answers:
        ours.sendall(b"".join(line + b"\n" for line in lines))
        ours.shutdown(socket.SHUT_WR)
        found = [json.loads(line) for line in answers]
    talk.join()
    return found


def test_an_answer_that_was_given_up_is_not_the_next_ones() -> None:
    go_on = threading.Event()

    def slow(_: Mapping[str, Any], emit: controller.Emit) -> controller.WithDescriptors:
        emit({"slow": 1})
        go_on.wait()
        return controller.WithDescriptors("late", os.pipe2(os.O_CLOEXEC))

    handlers: dict[str, controller.Handler] = {"slow": slow, "echo": lambda said, _: said["text"]}
    ours, theirs = socket.socketpair()
    talk = threading.Thread(target=controller._converse, args=(handlers, theirs, False))
    talk.start()
    with closing(controller.Client(ours, Pulse(0))) as client:
        heard: list[Mapping[str, Any]] = []
        with pytest.raises(NoAnswerError):
            client.call("slow", {}, heard.append, limit_s=0.3)
        with pytest.raises(NoAnswerError):
            client.call("echo", {"text": "never asked"}, limit_s=0.1)
        go_on.set()
        assert client.call("echo", {"text": "x" * (1 << 20)}) == "x" * (1 << 20)
        result, descriptors = client.call_for_descriptors("echo", {"text": "mine"}, heard.append)
        assert (result, descriptors) == ("mine", [])
        assert heard in ([], [{"slow": 1}])
    talk.join()


def test_a_question_sent_in_part_is_sent_whole_before_the_next() -> None:
    ours, theirs = socket.socketpair()
    with closing(controller.Client(ours, Pulse(0))) as client:
        long = "x" * (1 << 22)
        with pytest.raises(NoAnswerError):
            client.call("echo", {"text": long}, limit_s=0.1)
        handlers: dict[str, controller.Handler] = {"echo": lambda said, _: len(said["text"])}
        talk = threading.Thread(target=controller._converse, args=(handlers, theirs, False))
        talk.start()
        assert client.call("echo", {"text": "mine"}) == 4
    talk.join()


REQUESTS = st.fixed_dictionaries(
    {}, optional={"verb": st.sampled_from(["echo", "echo", "x"]) | JSON, "arguments": JSON}
).map(lambda request: json.dumps(request).encode())


@given(st.lists(LINES | REQUESTS, max_size=4))
@example([b"[1]", b'{"verb": "echo", "arguments": {}}'])
@example([b"[" * 100_000])
@example([b'{"verb": []}', b'{"verb": "echo", "arguments": {"a": 1}}'])
def test_a_controller_survives_any_lines(lines: list[bytes]) -> None:
    """`_converse` ends by itself, in a thread of which an exception would fail this test."""
    wrong = {b'{"verb": "down"}'}
    for answer in served([line for line in lines if line not in wrong]):
        assert answer.keys() & {"event", "result", "error"}


def test_a_good_request_behind_a_senseless_one_is_answered() -> None:
    lines = [b'{"verb": []}', b'{"verb": "echo", "arguments": {"a": 1}}']
    refused, event, result = served(lines)
    assert refused["error"]["message"] == "a request has a verb and arguments"
    assert (event, result) == ({"event": {"heard": 1}}, {"result": {"a": 1}})


def test_the_words_of_a_refusal_are_few_whatever_was_said() -> None:
    found = attempt(lambda: answer_to("x", [b"z" * 100_000]), XlabError)
    assert isinstance(found, Refusal)
    assert len(found) < 200


def test_too_few_open_files_is_what_a_machine_cannot_and_no_fault() -> None:
    met = controller.described(OSError(errno.EMFILE, "Too many open files", "/sys/class/net"))
    with pytest.raises(CapabilityError, match=r"open files, and this lab needs more; sudo prlimit"):
        answer_to("x", [json.dumps({"error": met}).encode()])


def test_events_told_aside_hold_up_nobody() -> None:
    """Whoever reads them may be stopped; what is done meanwhile goes on, and all are told."""
    reads, told = threading.Event(), list[Any]()

    def emit(event: Mapping[str, Any]) -> None:
        reads.wait()
        told.append(event["number"])

    with controller.aside(emit) as tell:
        for number in range(1000):
            tell({"number": number})
        assert told == []
        reads.set()
    assert told == list(range(1000))


def test_what_goes_wrong_with_an_event_told_aside_is_raised() -> None:
    def emit(_: Mapping[str, Any]) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError), controller.aside(emit) as tell:
        tell({})


def test_whoever_tells_it_has_gone_is_told_at_the_next_event() -> None:
    gone = threading.Event()

    def emit(_: Mapping[str, Any]) -> None:
        gone.set()
        raise BrokenPipeError

    def tell_for_ever() -> None:
        with controller.aside(emit) as tell:
            while True:
                tell({})

    with pytest.raises(BrokenPipeError):
        tell_for_ever()
    assert gone.is_set()


def test_a_limit_is_one_for_all_that_comes() -> None:
    """Byte by byte, each in its time, an answer could take for ever."""
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.05):
            theirs.sendall(b" ")

    dripping = threading.Thread(target=drip)
    with closing(controller.Client(ours, Pulse(os.getpid()))) as client, theirs:
        dripping.start()
        try:
            with pytest.raises(NoAnswerError):
                client.call("describe", {}, limit_s=0.5)
        finally:
            ended.set()
            dripping.join()


def test_an_answer_has_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "_LONGEST_ANSWER_BYTES", 1000)
    with pytest.raises(SandboxError, match="more than anybody asked for"):
        answer_to("names", [b"x" * 2000])
