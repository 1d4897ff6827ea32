"""Submissions graded: right ones have their points, cheats gain nothing, nobody is harmed."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.labs import why_no_sandbox
from tests.support.ordinary import ORDINARY
from xlab.errors import UsageError, XlabError
from xlab.exercises import answers, beginning, drafting, exercise
from xlab.exercises.export import folder_name
from xlab.exercises.grading import course, outcome, replay, submission
from xlab.exercises.grading.course import Course, Terms
from xlab.exercises.grading.submission import Submission
from xlab.exercises.model import Exercise
from xlab.exercises.variants import Variant
from xlab.kernel import limits, syscalls
from xlab.record import record
from xlab.record.grade import Grade
from xlab.sandbox import containment
from xlab.sandbox.containment import Limits

pytestmark = pytest.mark.sandbox

SECRET = b"0123456789abcdef0123456789abcdef"
NAME = "21-two-ways"
#: Stands where no submission may read.
MARK = "what nobody may read"
#: Small, so that it is reached soon.
LIMITS = Limits(processes=200, memory_bytes=512 << 20, disk_bytes=64 << 20, files=5000,
                file_bytes=32 << 20)  # fmt: skip

#: Answers ARP and every ping itself, in place of whoever is to be behind t0.
_PRETENDER = r"""
import socket, struct
t1 = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
t1.bind(("t1", 0))
mac = b"\2\0\0\0\0\x99"
while True:
    frame, (_, _, kind, *_) = t1.recvfrom(2048)
    if kind == 4:
        continue
    if frame[12:14] == b"\x08\x06" and frame[21] == 1:
        answer = frame[6:12] + mac + frame[12:20] + b"\0\2" + mac + frame[38:42] + frame[22:32]
    elif frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == 8:
        body = b"\0\0\0\0" + frame[38:]
        total = sum(struct.unpack(f"!{(len(body) + 1) // 2}H", body + bytes(len(body) % 2)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        body = b"\0\0" + struct.pack("!H", ~total & 0xFFFF) + body[4:]
        answer = frame[6:12] + mac + frame[12:26] + frame[30:34] + frame[26:30] + body
    else:
        continue
    t1.send(answer)
"""

#: Takes what the kernel keeps for whoever grades, as root of a lab has that one's number outside.
_KEYS = r"""
import ctypes, errno, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(*call):
    return errno.errorcode[ctypes.get_errno()] if libc.syscall(*call) < 0 else "done"
add_key, keyctl = (248, 250) if platform.machine() == "x86_64" else (217, 219)
try:
    listed = [line.split() for line in open("/proc/keys")]
except FileNotFoundError:
    listed = []
for serial, *_, kind, name in ((int(words[0], 16), *words[7:9]) for words in listed):
    if kind == "keyring":
        tried(keyctl, 8, serial, -3)  # KEYCTL_LINK to the session keyring
for serial in (int(words[0], 16) for words in listed):
    key = ctypes.create_string_buffer(100)
    if libc.syscall(keyctl, 11, serial, key, 99) > 0:  # KEYCTL_READ
        print(key.value)
print("keys:", tried(add_key, b"user", b"x", b"x", 1, -3), tried(keyctl, 0, -3, 0))
try:
    print("vsock:", socket.socket(40))
except OSError as error:
    print("vsock:", errno.errorcode[error.errno])
"""


@dataclass(frozen=True)
class Case:
    """A submission: before and after the scripts of the solution, or in their place."""

    points: int
    status: str = "graded"
    cause: str = ""
    h1: str = ""
    h2: str = ""
    solved: bool = False
    answered: bool = False
    #: What must, and what must not, have been printed.
    said: str = ""
    not_said: tuple[str, ...] = field(default=())


#: Of 4 points: there (2), back (1), the question (1).
CASES: dict[str, Case] = {
    "right": Case(4, solved=True, answered=True),
    "half": Case(2, h1="ip route add {net2} via {h2}"),
    "empty": Case(0, h1="true"),
    "unlike": Case(3, h1="route add -net {net2} gw {h2} dev eth0", h2="ip r a {net1} via {h1}"),
    # -- cheats
    "programs": Case(
        0,
        h1="""
        alias ping='true'; PATH=/root:$PATH
        for name in ping ip; do
            printf '#!/bin/sh\\necho "64 bytes from {own2}: time=0.1 ms"' >/root/$name
            chmod +x /root/$name; cp /root/$name /usr/bin/$name; cp /root/$name /usr/sbin/$name
        done
        echo /root/none.so >/etc/ld.so.preload
        export LD_PRELOAD=/root/none.so
        """,
    ),
    "in its place": Case(
        0, h1="ip address add {own2}/32 dev lo", h2="ip address add {own1}/32 dev lo"
    ),
    "pretender": Case(
        0,
        h1=f"""
        ip link add t0 type veth peer name t1
        ip link set t0 up; ip link set t1 up; ip route add {{net2}} dev t0
        cat >/root/p.py <<'END'\n{_PRETENDER}\nEND
        {sys.executable} -I -S /root/p.py >/dev/null 2>&1 &
        ping -c9 -i0.3 -W2 {{own2}} | grep 'bytes from' && echo it answers
        """,
        said="it answers",
    ),
    "neighbours by hand": Case(
        # Of the way there; back h2 asks h1, who tells.
        1,
        h1="""
# part 1
        ping -c1 -W2 {h2}
        mac=$(ip neigh show {h2} | sed 's/.*lladdr \\([^ ]*\\).*/\\1/')
        ip neigh replace {h2} lladdr $mac dev eth0 nud permanent
# part 3
        ping -c1 -W2 {own2} && echo it answers
        """,
        h2="""
# part 2
        sysctl -w net.ipv4.conf.eth0.arp_ignore=8
        """,
        solved=True,
        said="it answers",
    ),
    # -- vandals
    "vandal": Case(
        3,
        h1="umount -l /sys /proc /dev/pts /run; rm -rf /usr/bin /usr/sbin /etc /run/xlab",
        solved=True,
    ),
    "bomb": Case(
        1, "stopped", "more than 200 processes", h1="b() { b | b & }; b; sleep 60", solved=True,
        answered=True,
    ),
    "memory": Case(
        1, "stopped", "more than 512 MiB of memory", answered=True, solved=True,
        h1=f"{sys.executable} -I -S -c 'x = bytearray(2 << 30)'",
    ),
    "shared memory": Case(
        0, "stopped", "more than 512 MiB of memory",
        h1="mkdir /root/m; mount -t tmpfs -o size=9g none /root/m\n"
           "for i in $(seq 64); do head -c 31M /dev/zero >/root/m/$i; done; sleep 9",
    ),
    "filler": Case(3, h1="for i in 1 2 3; do head -c 31M /dev/zero >/root/$i; done; ls -s /root/3",
                   solved=True, said="No space left"),
    "files": Case(3, h1="cd /root; seq 100000 | xargs touch 2>&1 | tail -1", solved=True,
                  said="No space left"),
    "sparse": Case(3, h1="truncate -s 10G /root/x; ls -s /root/x", solved=True,
                   said="File size limit"),
    "setuid": Case(0, h1="cp /bin/sh /tmp/s; chmod u+s /tmp/s; /tmp/s -c 'head -1 /etc/shadow'; "
                         "mknod /tmp/sda b 8 0; head -c1 /tmp/sda; echo done",
                   said="done", not_said=("root:",)),
    "endless output": Case(3, h1="yes", solved=True),
    "never ends": Case(3, h1="sleep 1000", solved=True),
    "will not die": Case(
        3, solved=True,
        h1="trap '' TERM HUP INT; (trap '' TERM HUP INT; while :; do sleep 1; done) &",
    ),
    "reader": Case(
        0,
        h1=f"""
# part 1
        for place in {{output}} {{checkout}} {{secret}} /home /mnt /media /root/.. /srv; do
            ls $place; cat $place $place/* $place/*/*/* 2>/dev/null | head -c 100000
        done
        ls /proc/1/root/ /proc/1/cwd/; cat /proc/*/environ; cat /proc/1/maps | head -3
        umount -l /proc; ls /proc; find / -name grade.json -o -name checks.yaml -o -name teacher.md
# part 2
        cat >/root/k.py <<'END'\n{_KEYS}\nEND
        {sys.executable} -I -S /root/k.py; cat /proc/keys
        """,
        said="keys: ENOSYS ENOSYS\nvsock: EAFNOSUPPORT\n",
        not_said=(MARK, "/checks.yaml", "/teacher.md", "/grade.json"),
    ),
    "writer": Case(0, h1="mkdir -p {output}; echo '{{}}' >{output}/grade.json; mount -o remount,rw "
                         "{checkout}/xlab; touch {checkout}/xlab/x {checkout}/x; echo done",
                   said="done"),
    "first process": Case(
        0,
        # A host that boots is started with its own shell: this one looks around first.
        h1="""
# part 1
        cp /usr/bin/dash /root/dash.real; rm -f /usr/bin/dash
        cat >/usr/bin/dash <<'END'
#!/root/dash.real
(ls /proc; cat /proc/1/cmdline; ls /proc/1/root /proc/1/cwd) >>/root/seen 2>&1
exec /root/dash.real "$@"
END
        chmod +x /usr/bin/dash
        reboot
# part 2
        cat /root/seen
        """,
        said="cpuinfo",
        not_said=("xlab", "checkout", "home"),
    ),
    "the controller": Case(
        0,
        h1=f"""
        kill -9 1; kill -STOP 1; kill -9 -1
        {sys.executable} -I -S -c '
        import socket
        for line in open("/proc/net/unix"):
            print(line)
        '
        """,
        not_said=("@xlab",),
    ),
}  # fmt: skip
#: Those that every `bin/test` grades.
OFTEN = ("right", "half", "pretender", "reader")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = drafting.draft(NAME, tmp_path_factory.mktemp("labs"))
    checks = made / "checks.yaml"
    checks.write_text(checks.read_text().replace("  reaches:", "  wait: 0.7\n  reaches:"))
    (made / "solution/teacher.md").write_text(MARK)
    return made


def submitted(found: Exercise, case: Case, places: Mapping[str, str]) -> Submission:
    assert found.solution is not None
    scripts = {}
    for host, text in (("h1", case.h1), ("h2", case.h2)):
        own = text
        for name, value in {**found.values, **places}.items():
            own = own.replace(f"{{{name}}}", str(value))
        if case.solved:
            own = f"{found.solution.scripts[host][1]}\n{own}"
        scripts[host] = own.replace("{{", "{").replace("}}", "}")
    given = beginning.right_answers(found.solution) if case.answered else None
    return Submission(scripts, answers.sheet(found, given), found.student, found.name)


def graded(folder: Path, tmp_path: Path, names: tuple[str, ...]) -> dict[str, Grade]:
    if missing := why_no_sandbox():
        pytest.skip(missing)
    box, output = tmp_path / "in", tmp_path / "grades"
    box.mkdir()
    output.mkdir()
    (output / "note").write_text(MARK)
    (tmp_path / "key").write_text(MARK)
    root = Path(__file__).parents[2]
    places = {"output": str(output), "checkout": str(root), "secret": str(tmp_path)}
    for name in names:
        found = exercise.load(folder, Variant(name, SECRET))
        given = submitted(found, CASES[name], places)
        (box / f"{name}.tar.gz").write_bytes(submission.pack(given))
    made = Course(Terms(SECRET, LIMITS, time_s=120, script_s=6), output)
    entries = made.found(box, [folder])
    grades = made.grade(entries, jobs=2)
    assert (output / "note").read_text() == MARK
    assert sorted(p.name for p in output.iterdir()) == sorted(
        ["note", *(folder_name(grade.student) for grade in grades)]
    )
    assert not (root / "xlab/x").exists()
    assert not (root / "x").exists()
    return {grade.student: grade for grade in grades}


def require_as_expected(grade: Grade, case: Case) -> None:
    said = "\n".join(f"{part.stopped}\n{part.said}" for part in grade.parts)
    seen = [(check.id, check.outcome, check.seen) for check in grade.checks]
    told = json.dumps([grade.student, grade.cause, said, seen], indent=1)
    assert grade.status == case.status, told
    assert case.cause in grade.cause, told
    assert grade.points == case.points, told
    assert case.said in said, told
    for words in case.not_said:
        assert words not in said, told


@contextmanager
def key_of_the_grader() -> Iterator[None]:
    """In the user keyring of whom `grade` is, or becomes: `keyctl add user … @u`.

    Where the kernel has keys, and this user may have one more.
    """
    libc = ctypes.CDLL(None)
    add_key, keyctl = (248, 250) if platform.machine() == "x86_64" else (217, 219)
    kind, name, ring = b"user", f"xlab-test-{os.getpid()}".encode(), -4

    def add() -> None:
        libc.syscall(add_key, kind, name, MARK.encode(), len(MARK), ring)

    def remove() -> None:
        found = libc.syscall(keyctl, 10, ring, kind, name, 0)  # KEYCTL_SEARCH
        libc.syscall(keyctl, 9, found, ring)  # KEYCTL_UNLINK

    def as_the_grader(work: Callable[[], None]) -> None:
        def child() -> NoReturn:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(ORDINARY, ORDINARY, ORDINARY)
                os.setresuid(ORDINARY, ORDINARY, ORDINARY)
            work()
            os._exit(0)

        _, status = os.waitpid(syscalls.fork(child), 0)
        assert status == 0

    as_the_grader(add)
    try:
        yield
    finally:
        as_the_grader(remove)


def test_cheats_gain_nothing_and_the_hostile_harm_nobody(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a teacher's shell knows is no student's business.
    monkeypatch.setenv("TOKEN_OF_THE_TEACHERS", MARK)
    with key_of_the_grader():
        grades = graded(folder, tmp_path, OFTEN)
    for name, grade in grades.items():
        require_as_expected(grade, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in OFTEN])
def test_each_of_the_others(name: str, folder: Path, tmp_path: Path) -> None:
    require_as_expected(graded(folder, tmp_path, (name,))[name], CASES[name])


@pytest.mark.slow
def test_somebody_elses_is_worth_nothing_and_is_seen(folder: Path, tmp_path: Path) -> None:
    anna = exercise.load(folder, Variant("anna", SECRET))
    given = submitted(anna, CASES["right"], {})
    for name in ("anna", "ben"):
        (tmp_path / f"{name}.tar.gz").write_bytes(submission.pack(given))
    made = Course(Terms(SECRET, LIMITS), tmp_path / "grades")
    entries = made.found(tmp_path, [folder])
    grades = {grade.student: grade for grade in made.grade(entries, jobs=2)}
    assert grades["anna"].points == 4
    # The question has one answer for all.
    assert grades["ben"].points == 1
    suspected = {Path(path).name: said for path, said in course.suspicions(entries).items()}
    assert suspected["anna.tar.gz"] == ["the same scripts as ben"]
    same, values, whose = suspected["ben.tar.gz"]
    assert same == "the same scripts as anna"
    assert values.endswith(": values of anna")
    assert whose == "it says that it is anna's"


@pytest.mark.slow
def test_what_has_a_grade_is_not_done_again_until_something_changes(
    folder: Path, tmp_path: Path
) -> None:
    found = exercise.load(folder, Variant("anna", SECRET))
    file = tmp_path / "anna.tar.gz"
    file.write_bytes(submission.pack(submitted(found, CASES["half"], {})))

    def again(**how: bool) -> tuple[list[Grade], list[bool]]:
        made = Course(Terms(SECRET, LIMITS), tmp_path / "grades")
        kept: list[bool] = []

        def hear(event: course.Event) -> None:
            if event.grade:
                kept.append(event.kept)

        return made.grade(made.found(tmp_path, [folder]), jobs=1, tell=hear, **how), kept

    first, kept = again()
    assert kept == [False]
    assert again() == (first, [True])
    grades, kept = again(again=True)
    assert kept == [False]
    assert [(g.points, g.status) for g in grades] == [(2, "graded")]
    file.write_bytes(submission.pack(submitted(found, CASES["right"], {})))
    grades, kept = again()
    assert (grades[0].points, kept) == (4, [False])


def test_what_cant_be_read_is_refused_in_the_grade(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "anna.tar.gz").write_bytes(b"no archive")
    other = Submission({"h1": "true"}, "", "ben", "07-which-way")
    (tmp_path / "ben.tar.gz").write_bytes(submission.pack(other))
    made = Course(Terms(SECRET, LIMITS), tmp_path / "grades")
    anna, ben = made.grade(made.found(tmp_path, [folder]), jobs=1)
    assert (anna.status, anna.points, anna.of) == ("refused", 0, 4)
    assert "no archive that can be read" in anna.cause
    assert (ben.status, ben.cause) == ("refused", "it is for 07-which-way, not for 21-two-ways")


def test_one_that_takes_too_long_is_stopped_and_its_answers_count(
    folder: Path, tmp_path: Path
) -> None:
    found = exercise.load(folder, Variant("anna", SECRET))
    case = Case(1, h1="sleep 1000", answered=True)
    (tmp_path / "anna.tar.gz").write_bytes(submission.pack(submitted(found, case, {})))
    made = Course(Terms(SECRET, LIMITS, time_s=6, script_s=1000), tmp_path / "grades")
    (grade,) = made.grade(made.found(tmp_path, [folder]), jobs=1)
    assert (grade.status, grade.cause) == ("stopped", "it took longer than 6 s")
    assert grade.points == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filled", "outcome", "status"), [(True, "failed", "graded"), (False, "broken", "error")]
)
def test_whose_fault_it_is_that_a_check_cant_be_carried_out(
    filled: bool, outcome: str, status: str, folder: Path, tmp_path: Path
) -> None:
    """A host does not boot whose disk is full; and which faults there are only the lab knows."""
    own = tmp_path / "labs" / NAME
    shutil.copytree(folder, own)
    checks = own / "checks.yaml"
    then = "then: {reaches: {from: h1, to: h2}}"
    fault = "crash h1" if filled else "melt h1"
    text = checks.read_text().replace(
        'reaches: {from: h2, to: "{own1}"}', f"survives: {{fault: {fault}, mended: yes, {then}}}"
    )
    checks.write_text(text)
    filling = "cd /root; seq 100000 | xargs touch 2>/dev/null" if filled else "true"
    found = exercise.load(own, Variant("anna", SECRET))
    given = submitted(found, Case(0, h1=filling, solved=True), {})
    (tmp_path / "anna.tar.gz").write_bytes(submission.pack(given))
    made = Course(Terms(SECRET, LIMITS, script_s=20), tmp_path / "grades")
    (grade,) = made.grade(made.found(tmp_path, [own]), jobs=1)
    (back,) = [check for check in grade.checks if check.id == "back"]
    assert (back.outcome, grade.status) == (outcome, status), (back.seen, grade.cause)


def test_what_one_student_makes_of_theirs_keeps_nobody_elses(folder: Path, tmp_path: Path) -> None:
    for name in ("anna.tar.gz", "Anna.zip", "ben.tar.gz"):
        (tmp_path / name).write_bytes(b"")
    twice, ben = Course(Terms(SECRET), tmp_path / "grades").found(tmp_path, [folder])
    assert (twice.student.lower(), ben.student) == ("anna", "ben")
    assert twice.refused.startswith("handed in twice: ")
    assert "can be read" in ben.refused
    # Of which exercise, nothing says.
    made = Course(Terms(SECRET), tmp_path / "grades")
    assert made.found(tmp_path) == []
    assert [student for student, _, _ in made.unknown] == ["Anna", "anna", "ben"]


def test_whatever_reading_one_raises_refuses_that_one_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("anna", "ben"):
        given = Submission({"h1": "true"}, "", name, NAME)
        (tmp_path / f"{name}-{NAME}.tar.gz").write_bytes(submission.pack(given))
    read = submission.read

    def broken(path: Path, *, collected: Path) -> Submission:
        if path.name.startswith("anna"):
            raise AssertionError("\udcff" * 100)
        return read(path, collected=collected)

    monkeypatch.setattr(submission, "read", broken)
    anna, ben = Course(Terms(SECRET), tmp_path / "grades").found(tmp_path, [folder])
    assert anna.refused.startswith(r"it can't be read: AssertionError: '\udcff\udcff")
    assert len(anna.refused) < 500
    assert (ben.student, ben.refused) == ("ben", "")


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        (b'{"grade": {', "stopped", "its lab came to an end"),
        (b'{"grade": {\n', "error", "can't be understood"),
        (b"[1]\n", "error", "can't be understood"),
        (b"\xff\n", "error", "can't be understood"),
        (b"[" * 100_000 + b"\n", "error", "can't be understood"),
        (b"9" * 5000 + b"\n", "error", "can't be understood"),
        (b'{"grade": 7}\n', "error", "can't be understood"),
        (b'"' + b"x" * course._LONGEST_LINE, "error", "can't be understood"),
    ],
    ids=range(8),
)
def test_a_worker_that_cant_be_understood_ends_no_other(
    said: bytes,
    status: str,
    words: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = tmp_path / "in"
    box.mkdir()
    for name in ("anna", "ben"):
        (box / f"{name}.tar.gz").write_bytes(
            submission.pack(Submission({"h1": "true"}, "", name, NAME))
        )
    made = Course(Terms(SECRET), tmp_path / "grades")
    entries = made.found(box, [folder])
    right = outcome.without(entries[1].exercise, "graded", "", file="", key="", given=None)
    (tmp_path / "anna").write_bytes(said)
    (tmp_path / "ben").write_text(json.dumps({"grade": record.to_document(right)}) + "\n")
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
        case $(cat) in *'"student": "anna"'*) cat {tmp_path}/anna;; *) cat {tmp_path}/ben;; esac
    """)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    anna, ben = made.grade(entries, jobs=2)
    assert (anna.status, ben.status) == (status, "graded")
    assert words in anna.cause
    assert len(anna.cause) < 500


@pytest.mark.parametrize("broken", ["_one", "_stopped"])
def test_whatever_grading_one_raises_is_an_error_of_that_one_alone(
    broken: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("anna", "ben"):
        (tmp_path / f"{name}.tar.gz").write_bytes(
            submission.pack(Submission({"h1": "true"}, "", name, NAME))
        )

    def fail(_: Course, entry: course.Entry, *more: object) -> Grade:
        if broken == "_stopped" and not isinstance(more[0], str):
            raise course._LostError("lost")
        if entry.student == "anna":
            raise MemoryError(7)
        return outcome.without(entry.exercise, "graded", "", file="", key="", given=None)

    for method in {"_one", broken}:
        monkeypatch.setattr(Course, method, fail)
    made = Course(Terms(SECRET), tmp_path / "grades")
    anna, ben = made.grade(made.found(tmp_path, [folder]), jobs=2)
    assert (anna.status, anna.cause) == ("error", "MemoryError: '7'")
    assert ben.status == "graded"


@pytest.mark.parametrize(
    ("first", "full_again", "times", "points"),
    [(1, False, 2, 4), (4, False, 1, 4), (1, True, 2, 1)],
)
def test_one_that_loses_points_while_the_arp_table_is_full_is_done_again_alone(
    first: int,
    full_again: bool,
    times: int,
    points: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has all points has lost none; and alone it is as good as it gets, and said."""
    for name in ("anna", "ben"):
        (tmp_path / f"{name}.tar.gz").write_bytes(
            submission.pack(Submission({"h1": "true"}, "", name, NAME))
        )
    done: list[str] = []
    refused = 0

    def one(_: Course, entry: course.Entry, *__: object) -> Grade:
        nonlocal refused
        made = outcome.without(entry.exercise, "graded", "", file="", key="", given=None)
        if entry.student == "anna":
            return made
        done.append(entry.student)
        refused += len(done) == 1 or full_again
        return replace(made, points=first if refused == len(done) else made.of)

    monkeypatch.setattr(Course, "_one", one)
    monkeypatch.setattr(limits, "neighbour_overflows", lambda: refused)
    made = Course(Terms(SECRET), tmp_path / "grades")
    _, ben = made.grade(made.found(tmp_path, [folder]), jobs=1)
    assert (len(done), ben.points, ben.status) == (times, points, "graded")
    assert ["table of neighbours" in note for note in ben.notes] == [True] * full_again


class Prints:
    """A lab in which each part prints so much, or does not end for so long a reason."""

    def __init__(self, said: str, why: XlabError | None = None) -> None:
        self._said, self._why = said, why

    def call(self, verb: str, _: object) -> Any:
        if verb == "run" and self._why:
            raise self._why
        return {
            "run": {"stdout": self._said, "stderr": "", "returncode": 0},
            "check": {"holds": True, "seen": self._said},
        }.get(verb, {})


@pytest.mark.parametrize(
    "lab",
    [
        Prints("\N{ROCKET}" * 5000),
        Prints("", UsageError("\N{ROCKET}" * 9000)),
        Prints("", XlabError("\N{ROCKET}" * 9000)),
    ],
)
def test_a_grade_is_one_line_that_can_be_read_whatever_is_printed(
    lab: Prints, folder: Path
) -> None:
    """As JSON a rocket is twelve bytes."""
    found = exercise.load(folder, Variant("anna", SECRET))
    script = "".join(f"# part {n}\ntrue\n" for n in range(1, 501))
    given = Submission({"h1": script, "h2": script}, "", "anna", NAME)
    replayed = replay.done_in(lab, found, given, script_s=1)
    made = outcome.of_replayed(found, given, replayed, file="", key="", took_s=0)
    assert len(made.parts) == 1000
    assert (made.parts[0].said or made.parts[0].stopped).startswith("\N{ROCKET}" * 200)
    assert len(json.dumps({"grade": record.to_document(made)})) < course._LONGEST_LINE
    kept = ["of what is printed 200000 characters are kept"]
    assert list(made.notes) == (kept if made.parts[0].said else [])


def test_an_exercise_with_a_name_too_long_is_none(tmp_path: Path) -> None:
    given = Submission({"h1": "true"}, "", "anna", f"21-{'a' * 5000}")
    (tmp_path / "anna.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "anna.zip", "w") as archive:
        for name, content in given.files().items():
            archive.writestr(name, content)
    made = Course(Terms(SECRET), tmp_path / "grades")
    assert made.found(tmp_path) == []
    assert [student for student, _, _ in made.unknown] == ["anna"]


def test_where_a_lab_would_see_it_no_solution_may_lie(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "anna.tar.gz").write_bytes(b"")
    assert containment.is_seen(Path("/usr/local/src/xlab/labs/05-share-out-a-subnet"))
    assert not containment.is_seen(folder)
    monkeypatch.setattr(containment, "is_seen", lambda _: True)
    with pytest.raises(UsageError, match="which every lab sees"):
        Course(Terms(SECRET), tmp_path / "grades").found(tmp_path, [folder])


def test_two_that_would_have_one_folder_are_not_mixed_up(folder: Path, tmp_path: Path) -> None:
    for name in ("anna b.tar.gz", "anna-b.tar.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match="would have one folder"):
        Course(Terms(SECRET), tmp_path / "grades").found(tmp_path, [folder])
