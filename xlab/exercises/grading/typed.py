"""What somebody has typed in an exercise's lab, as a draft of what to hand in.

A shell of `xlab shell` keeps what is typed there, with its status, in the node's /root/.typed; what
files were changed is found on the node's disk.  The draft has the commands in the order in which
they were typed, across hosts; without those that only look; an editor's line becomes the file as it
is now; and what ended with an error is there as a comment.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import PurePosixPath

#: They change nothing, or wait for somebody.
_LOOKING = frozenset("""
    bg cat cd clear date df diff dig dmesg env exit fg file find free getent grep head history host
    hostname htop id ifconfig info iperf3 jobs journalctl less locate logout ls lsmod man more mount
    mtr nc netstat nslookup ping pgrep printenv ps pwd reset route ss stat tail tcpdump top
    traceroute tree tshark type uname uptime vmstat w watch wc whatis whereis which who whoami xlab
""".split())  # fmt: skip  # noqa: SIM905 - to be read
#: Of these it hangs on the words: what shows, and what changes.
_SHOWING = re.compile(
    r"brctl show(macs|stp)?( .*)?"
    r"|ovs-(vsctl|appctl|ofctl|dpctl) (--\S+ )*(show|list|list-\S+|get|dump\S*|fdb/show|find)( .*)?"
    r"|docker (ps|logs|inspect|images|info|version|port|top|stats|diff|network (ls|inspect))( .*)?"
    r"|weave (status|ps|report|version|dns-lookup)( .*)?"
    r"|systemctl (status|cat|show|is-\S+|list-\S+)( .*)?"
    r"|iptables( -t \w+)?( -\w*[LS]\w*)( .*)?"
    r"|arp( -[an]+)*|sysctl( -[na]+)? [\w./-]+|conntrack -L( .*)?"
)
_IP_SHOWS = re.compile(r"(ip|bridge)( -\S+)* \w+( (show|list|ls|get)\b.*)?")
#: Those of them that change something when they have such words.
_CHANGING = {"ifconfig": 2, "route": 1, "mount": 1, "hostname": 1}
_EDITORS = frozenset("""
    ed ee emacs joe mcedit mg micro nano ne nvim pico sensible-editor vi view vim vim.tiny
""".split())  # fmt: skip  # noqa: SIM905 - to be read
_WRITES = re.compile(r"(?<![<&\d])>>?(?!&)|\|\s*tee\b")
_ENTRY = re.compile(r"(\d{1,12}[.,]\d{1,9}) (\d{1,3}) (.+)", re.DOTALL)
_EDIT_UNIT = re.compile(r"systemctl edit (?:--\S+ )*(\S+?)(?:\.service)?$")


@dataclass(frozen=True, slots=True)
class Line:
    """One that was typed, in a host or a container ("h1/c1")."""

    node: str
    at_s: float
    status: int
    text: str


def parse(node: str, content: str) -> Iterator[Line]:
    """Of /root/.typed: "SECONDS STATUS COMMAND", each ended by a NUL; what else is there is passed
    over, since it is the student's own file."""
    for entry in content.split("\0"):
        if found := _ENTRY.fullmatch(entry.strip("\n")):
            yield Line(node, float(found[1].replace(",", ".")), int(found[2]), found[3].strip())


def draft(
    lines: Sequence[Line], files: Mapping[str, Mapping[str, str]], *, exercise: str
) -> dict[str, str]:
    """Scripts by host; `files` are those that were changed, by host and path."""
    written: dict[str, set[str]] = {host: set() for host in files}
    steps = [
        step
        for line in sorted(lines, key=lambda line: line.at_s)
        if (step := _step(line, files, written))
    ]
    # What was changed and no line says how comes before all else.
    for host, changed in files.items():
        texts = "\n".join(line.text for line in lines if line.node.startswith(host))
        for path in sorted(set(changed) - written[host]):
            if PurePosixPath(path).name not in texts:
                steps.insert(0, (host, _heredoc(path, changed[path])))
    scripts: dict[str, list[str]] = {}
    number, last, last_host = 0, "", ""
    for host, text in steps:
        if host != last:
            # Hosts of one part are carried out in their order.
            if not last or host < last_host:
                number += 1
            last = last_host = host
            scripts.setdefault(host, [f"# {exercise}, as it was typed on {host}"])
            scripts[host] += ["", f"# part {number}"]
        scripts[host].append(text)
    return {host: "\n".join(said) + "\n" for host, said in sorted(scripts.items())}


def _step(
    line: Line, files: Mapping[str, Mapping[str, str]], written: Mapping[str, set[str]]
) -> tuple[str, str] | None:
    """The host, and what is done there; None for what changes nothing."""
    host, _, container = line.node.partition("/")
    text = line.text
    words = _words(text)
    if words[:1] == ["sudo"]:
        words, text = words[1:], re.sub(r"^\s*sudo\s+", "", text)
    if not words or text.startswith("#"):
        return None
    edited = _edited(words, text, files.get(host, {}))
    if edited and not container:
        written[host].update(edited)
        return host, "\n".join(_heredoc(path, files[host][path]) for path in edited)
    if words[0] in _EDITORS or words[:2] == ["systemctl", "edit"] or _only_looks(words, text):
        return None
    text = _without_terminal(words, text)
    if not text:
        return None
    if container:
        text = f"docker exec {shlex.quote(container)} sh -c {shlex.quote(text)}"
    if line.status:
        return host, "\n".join(f"# status {line.status}: {each}" for each in text.splitlines())
    return host, text


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def _edited(words: Sequence[str], text: str, changed: Mapping[str, str]) -> list[str]:
    """Which of the changed files an editor's line is about."""
    if unit := _EDIT_UNIT.search(text):
        wanted = f"/etc/systemd/system/{unit[1]}.service.d/"
        return [path for path in changed if path.startswith(wanted)]
    if words[0] not in _EDITORS:
        return []
    named = {word.rsplit("/", 1)[-1] for word in words[1:] if not word.startswith(("-", "+"))}
    return [path for path in changed if path.rsplit("/", 1)[-1] in named]


def _only_looks(words: Sequence[str], text: str) -> bool:
    if _WRITES.search(text) or ";" in text or "&&" in text or "||" in text:
        return False
    first = words[0].rsplit("/", 1)[-1]
    if first in _LOOKING:
        given = [word for word in words if not word.startswith("-")]
        return len(given) <= _CHANGING.get(first, len(given))
    if words[:3] == ["ip", "netns", "exec"] or words[:2] == ["docker", "exec"]:
        behind = dropwhile(lambda word: word.startswith("-"), words[3 if first == "ip" else 2 :])
        inner = list(behind)[1:]
        return not inner or _only_looks(inner, " ".join(inner))
    plain = " ".join(words)
    if first in ("ip", "bridge"):
        return _IP_SHOWS.fullmatch(plain) is not None
    return _SHOWING.fullmatch(plain) is not None


def _without_terminal(words: Sequence[str], text: str) -> str:
    """Docker's -t needs one, which a script has not; nothing for what somebody typed into."""
    if words[0] != "docker" or len(words) < 3:
        return text
    flags = [word for word in words[2:] if re.fullmatch(r"-[a-zA-Z]+", word)]
    terminal = any("t" in flag for flag in flags) or "--tty" in words
    if words[1] in ("exec", "attach") and terminal:
        return ""
    detached = any("d" in flag for flag in flags) or "--detach" in words
    if words[1] == "run" and terminal and not detached:
        return re.sub(r"\bdocker run\b", "docker run -d", text, count=1)
    return text


def _heredoc(path: str, content: str) -> str:
    end = "FILE"
    while end in content.splitlines():
        end += "_"
    folder = shlex.quote(str(PurePosixPath(path).parent))
    body = content if content.endswith("\n") or not content else f"{content}\n"
    return f"mkdir -p {folder}\ncat >{shlex.quote(path)} <<'{end}'\n{body}{end}"
