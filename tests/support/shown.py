"""Outputs that documents show come from real runs: what was typed for a block, and whether it fits.

A comment before a block, which readers don't see, says what was typed:

    <!-- shown slow userspace-ovs: bin/xlab run ovs-gre --quick -->
    ```
    ovs-gre    2 hosts, 2 containers each   …
    ```

It may have several lines, a command each.  The block is the output of the last; or has lines that
begin with `$ `, which are typed after them, and the output of each; one that shows none may print
whatever it does.  `…` stands for any text.
`<!-- not run: REASON -->` is for what can't be.

Compared are words, columns and units.  Figures are masked, except in addresses and names and where
they are facts and not measurements (2 hosts, 20/20, 38 bytes); so are the scale of a unit, the time
in a name, and who ran it (root or rootless).  ≈, which says that a figure can't be told from
another, may stand before any.  What begins with `- `, `note` or `machine` are remarks on a run:
another may have more of them, other words behind their first figure, and another verdict.

    python -m tests.support.shown [--write] FILE...     run, compare; --write renews the blocks
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import documents
from tests.support.documents import ROOT
from tests.support.labs import but_for_waiting

#: What a block may need of the machine, beside what every lab does.
NEEDS = {"slow", "userspace-ovs", "root"}
#: A lab's name is the machine's, or rather its network namespace's: blocks are typed in one of
#: their own, whose first process takes all others along.
ALONE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

_MARK = re.compile(r"<!-- shown((?: [\w-]+)*):\s*(.*?)\s*-->", re.DOTALL)
_FENCED = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
_MARKED = re.compile(_MARK.pattern + r"\n+^```\w*\n(?P<block>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shown:
    """A block, and what is typed for it."""

    document: Path
    number: int
    needs: frozenset[str]
    before: tuple[str, ...]
    block: str

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.number}"

    def parts(self) -> list[tuple[str, str]]:
        """Each command that is typed, with the output shown; none of what is typed before."""
        if not re.search(r"(?m)^\$ ", self.block):
            *_, last = self.before
            return [(last, self.block)]
        found: list[tuple[str, str]] = []
        for line in self.block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                command, output = found[-1]
                found[-1] = (command, f"{output}{line}\n")
        return found


def blocks(document: Path) -> list[Shown]:
    text = document.read_text(encoding="utf-8")
    found = []
    for match in _MARKED.finditer(text):
        needs = frozenset(match[1].split())
        assert needs <= NEEDS, f"{document}: {sorted(needs - NEEDS)}"
        number = text.count("\n", 0, match.start("block"))
        before = tuple(line.strip() for line in match[2].splitlines() if line.strip())
        found.append(Shown(document, number, needs, before, match["block"]))
    assert len(found) == len(_MARK.findall(text)), f"{document}: a mark without a block"
    return found


def unmarked(document: Path) -> Iterator[str]:
    """Where a block has an output that nobody runs."""
    text = document.read_text(encoding="utf-8")
    for match in _FENCED.finditer(text):
        before = text[: match.start()].rstrip()
        comment = before[before.rfind("<!--") :] if before.endswith("-->") else ""
        marked = comment.startswith(("<!-- shown", "<!-- not run: "))
        if match[1] in {"", "text"} and _has_output(match[2]) and not marked:
            yield f"{document.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"


def _has_output(block: str) -> bool:
    if re.search(r"(?m)^ *(✓|✗|\w+ +[✓✗] )", block):
        return True
    typed = re.compile(r"\$ |> |h\d\S*[#$] |root@|#|\s*$")
    lines = block.splitlines()
    # What is set in belongs to what was typed above.
    return any(line.startswith("$ bin/xlab") for line in lines) and not all(
        typed.match(line) or line.startswith((" ", "\t")) for line in lines
    )


# -- typing ----------------------------------------------------------------------------------------


def outputs(shown: Shown, place: Path, *, timeout_s: float) -> list[str]:
    """What the commands of a block print now, each on a terminal of 100 columns."""
    if not place.exists():
        documents.workplace(place)
        (place / "benchmarks").symlink_to(ROOT / "benchmarks")
    typed = [*shown.before, *(command for command, _ in shown.parts())]
    if not re.search(r"(?m)^\$ ", shown.block):
        typed = list(shown.before)
    mark = f"--- {os.urandom(8).hex()}"
    script = "".join(f"{command}\necho '{mark}'\n" for command in typed)
    alone = ALONE if os.geteuid() == 0 else (ALONE[0], "--user", "--map-root-user", *ALONE[1:])
    done = subprocess.run(
        [*alone, "bash", "-c", f"{script}bin/xlab down --all >&2"],
        cwd=place,
        env={**os.environ, "COLUMNS": "100", "XLAB_COMMAND": "bin/xlab"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    output = but_for_waiting(done.stdout)
    parts = re.split(rf"^{mark}\n", output, flags=re.MULTILINE)
    assert len(parts) == len(typed) + 1, output[-2000:]
    return parts[-1 - len(shown.parts()) : -1]


def what_is_otherwise(shown: Shown, seen: Sequence[str]) -> str:
    """The first difference between a block and what its commands print; empty if there is none."""
    for (command, block), output in zip(shown.parts(), seen, strict=True):
        if not block.strip():
            continue
        if reason := difference(block, output):
            return f"{shown.place}: {command}\n{reason}\n{output}"
    return ""


# -- comparing -------------------------------------------------------------------------------------

_FIGURE = r"[~≈<>±+−-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_FACTS = {"hosts", "containers", "pairs", "claims", "bytes", "addresses", "stages"}
_REMARK = re.compile(r"^\s*(?:- |note\s|machine\s)")


def difference(block: str, output: str) -> str:
    """Where words, columns or units differ; empty if they don't."""
    shown, shown_remarks = _told(block)
    seen, seen_remarks = _told(output)
    for remark in shown_remarks:
        if remark[0] == "machine":
            continue
        start = remark[: remark.index("#")] if "#" in remark else remark
        if not any(each[: len(start)] == start for each in seen_remarks):
            return f"no such remark: {' '.join(remark)}"
    at = 0
    segments = _segments(shown)
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        starts = [at] if number == 0 else range(at, len(seen) + 1)
        if last and number:
            starts = [len(seen) - len(segment)]
        found = next((i for i in starts if i >= at and seen[i : i + len(segment)] == segment), None)
        if found is None or (last and found + len(segment) != len(seen)):
            return _first_otherwise(segment, seen, starts)
        at = found + len(segment)
    return ""


def _first_otherwise(segment: list[str], seen: list[str], starts: Iterable[int]) -> str:
    """Where a part of what is shown stops being what is seen, at the place where it fits best."""

    def fits(start: int) -> int:
        pairs = list(zip(segment, seen[max(start, 0) :], strict=False))
        return next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))

    start = max(max(starts, key=fits, default=0), 0)
    same = fits(start)
    return "\n".join(
        (
            f"after  {' '.join(segment[max(same - 8, 0) : same]) or 'the beginning'}",
            f"shown  {' '.join(segment[same : same + 12]) or 'the end'}",
            f"seen   {' '.join(seen[start + same : start + same + 12]) or 'the end'}",
        )
    )


def _segments(words: list[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for word in words:
        if word == "…":
            found.append([])
        else:
            found[-1].append(word)
    return found


def _told(text: str) -> tuple[list[str], list[list[str]]]:
    """The words of an output, masked, and those of its remarks apart."""
    rest: list[str] = []
    remarks: list[str] = []
    within = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if _REMARK.match(line):
            remarks.append(line)
            within = indent
        elif within is not None and indent > within and line.strip():
            remarks[-1] += f" {line}"
        else:
            within = None
            rest.append(_in_order(line))
    return masked("\n".join(rest)), [masked(remark) for remark in remarks]


def _in_order(line: str) -> str:
    """Hosts are built at a time, and told in the order in which they are done."""
    if not re.match(r" *build +h\d", line):
        return line
    return " ".join(["build", *sorted(re.findall(r"h\d+ ✓", line))])


def masked(text: str) -> list[str]:
    """The words of a text, with figures as # and units without their scale."""
    # A comment behind a command is no output.
    text = re.sub(r"\d{4}-\d\d-\d\dT\d{6}Z", "#", text)
    text = re.sub(rf"{_FIGURE} min (?={_FIGURE} s\b)", "", text)
    # A starved machine may carry too little for its CPU time to be told.
    text = re.sub(r"(CPU per GB +)(?:no figure|–(?! *s))", r"\1– s", text)
    # The kernel asks for neighbours again after some seconds, which may be at the path.
    text = re.sub(r",\s+\d+ other packets?\s+on\s+the\s+link", "", text)
    words: list[str] = []
    plain = [word for word in text.split() if word != "≈"]
    for number, word in enumerate(plain):
        after = plain[number + 1] if number + 1 < len(plain) else ""
        before = plain[number - 1] if number else ""
        words.append(_masked(word, before, after))
    return words


def _masked(word: str, before: str, after: str) -> str:
    core = word.strip("(),;:.")
    fact = after.strip("(),;:.") in _FACTS or before == "MTU" or after == "of" or before == "of"
    if core == "–" or re.fullmatch(rf"{_FIGURE}(?:–{_FIGURE})?", core):
        return word if fact else word.replace(core, "#")
    if re.fullmatch(r"[nµm]?s|[kMGT]?(bit/s|pps|B)", core):
        unit = "s" if core.endswith("s") and "/" not in core and "pps" not in core else core
        return word.replace(core, unit.lstrip("kMGT"))
    return {"rootless": "root", "missed": "met"}.get(core, word)


# -- renewing --------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Run what documents show, and compare.")
    parser.add_argument("--write", action="store_true", help="put what is seen into the blocks")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    wrong = 0
    for document in arguments.files:
        for shown in blocks(document.resolve()):
            with tempfile.TemporaryDirectory() as folder:
                seen = outputs(shown, Path(folder) / "place", timeout_s=3600)
            reason = what_is_otherwise(shown, seen)
            wrong += bool(reason)
            print(reason or f"{shown.place}: as shown")
            if reason and arguments.write:
                _write(shown, seen)
    return 1 if wrong else 0


def _write(shown: Shown, seen: Sequence[str]) -> None:
    """The block anew; what is abridged in it needs a hand."""
    text = shown.document.read_text(encoding="utf-8")
    has_commands = re.search(r"(?m)^\$ ", shown.block)
    parts = [
        f"$ {command}\n{output}" if has_commands else output
        for (command, _), output in zip(shown.parts(), seen, strict=True)
    ]
    assert text.count(shown.block) == 1, shown.place
    shown.document.write_text(text.replace(shown.block, "".join(parts)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
