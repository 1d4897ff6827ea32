"""What is handed in: packed, and read again from what anybody may have made."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.errors import UsageError
from xlab.exercises.grading import submission
from xlab.exercises.grading.submission import Submission

SCRIPTS = {"h1": "ip link set eth0 up\n", "h2": "# part 2\ntrue\n"}
WHOLE = Submission(SCRIPTS, "next-hop: h2\n", student="Anna B.", exercise="21-two-ways")


def packed(path: Path, given: Submission = WHOLE) -> Path:
    path.write_bytes(submission.pack(given))
    return path


def tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_what_is_packed_is_read_again_and_packed_to_the_same_bytes(tmp_path: Path) -> None:
    first = packed(tmp_path / "a.tar.gz")
    assert submission.read(first) == WHOLE
    assert first.read_bytes() == submission.pack(WHOLE)
    assert submission.read(first).given() == {"next-hop": "h2"}


@pytest.mark.parametrize("folder", ["", "21-two-ways/", "./21-two-ways/"])
@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip", "folder"])
def test_it_may_be_packed_by_other_means(kind: str, folder: str, tmp_path: Path) -> None:
    path = tmp_path / (f"anna.{kind}" if kind != "folder" else "anna")
    files = WHOLE.files() | {"notes.txt": b"mine"}
    if kind == "folder":
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(folder + name, content)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(folder + name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert submission.read(path) == WHOLE


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([special("h1.sh", tarfile.SYMTYPE, "/etc/passwd")], "h1.sh is no regular file"),
        ([special("h1.sh", tarfile.LNKTYPE, "../../x")], "h1.sh is no regular file"),
        ([special("h1.sh", tarfile.CHRTYPE)], "h1.sh is no regular file"),
        ([special("h1.sh", tarfile.FIFOTYPE)], "h1.sh is no regular file"),
        ([("../h1.sh", b"true")], "is not where it is to be"),
        ([("/root/h1.sh", b"true")], "is not where it is to be"),
        ([("a/b/c/h1.sh", b"true")], "is not where it is to be"),
        ([("h1.sh", b"true"), ("x/h1.sh", b"false")], "h1.sh is there twice"),
        ([("h1.sh", b"x" * (101 << 10))], "h1.sh is longer than 100 KiB"),
        ([("h1.sh", b"\xff\xfe")], "h1.sh is no UTF-8"),
        ([("h1.sh", b"a\0b")], "there is a NUL in it"),
        ([(f"{n}", b"") for n in range(201)], "more than 200 files"),
        ([("zeros", b"\0" * (17 << 20))], "unpacks to more than 16 MiB"),
        ([("readme", b"hello")], "no script of a host"),
        ([(f"h{n}.sh", b"x" * (99 << 10)) for n in range(1, 13)], "more than 1 MiB together"),
        ([("h1.sh", b"true"), ("submission.yaml", b"[a]")], "does not say whose"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_in_words(
    members: list[tuple[str, bytes]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        submission.read(tar(tmp_path / "anna.tar.gz", *members))


def test_the_name_of_a_member_is_not_told(tmp_path: Path) -> None:
    """One that is no UTF-8 kept a whole class from being graded."""
    path = tmp_path / "anna.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(special(os.fsdecode(b"\xff\xfe/h1.sh"), tarfile.SYMTYPE, "x"))
    with pytest.raises(UsageError, match=r"h1\.sh is no regular file") as refused:
        submission.read(path)
    str(refused.value).encode()


def test_a_zip_says_nothing_of_the_memory_it_takes(tmp_path: Path) -> None:
    """LZMA's window of 4 GiB, asked for by some hundred bytes, is not made."""
    path = tmp_path / "anna.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("h1.sh", b"true\n" * 100)
    packed = bytearray(path.read_bytes())
    # Behind the local header (30 bytes) and the name: 2 of version, 2 of size, properties, window.
    window = 30 + len("h1.sh") + 5
    packed[window : window + 4] = b"\xff" * 4
    path.write_bytes(packed)
    with pytest.raises(UsageError, match=r"h1\.sh is packed in a way of its own"):
        submission.read(path)


def test_a_sparse_file_of_ten_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    huge = special("h1.sh", tarfile.REGTYPE)
    huge.size = 10 << 30
    path = tmp_path / "anna.tar"
    path.write_bytes(huge.tobuf() + b"x" * 1024)
    with pytest.raises(UsageError, match=r"longer than|can be read"):
        submission.read(path)


def test_bombs_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "anna.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("h1.sh", b"\0" * (64 << 20))
    with pytest.raises(UsageError, match=r"h1\.sh is longer than"):
        submission.read(path)
    (tmp_path / "big.tar").write_bytes(b"x" * ((4 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 4 MiB"):
        submission.read(tmp_path / "big.tar")


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("/etc/passwd")])
def test_what_is_no_file_is_not_opened(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "anna.tar.gz")
    with pytest.raises(UsageError):
        submission.read(tmp_path / "anna.tar.gz")
    folder = tmp_path / "ben"
    folder.mkdir()
    make(folder / "h1.sh")
    with pytest.raises(UsageError):
        submission.read(folder)


def test_a_link_to_somebody_elses_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "ben").mkdir()
    (tmp_path / "ben/h1.sh").write_text("true")
    (tmp_path / "anna").symlink_to("ben")
    with pytest.raises(UsageError, match="it is a link"):
        submission.read(tmp_path / "anna")


@pytest.mark.parametrize("closed", ["anna", "anna/21-two-ways"])
def test_a_folder_that_nobody_may_look_into_is_its_students_alone(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for student in ("anna", "ben"):
        (tmp_path / student / "21-two-ways").mkdir(parents=True)
        (tmp_path / student / "21-two-ways/h1.sh").write_text("true")
    # Root may look into all: this is the kernel's answer to others.
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    listdir = os.listdir

    def listed(folder: int) -> list[str]:
        if Path(f"/proc/self/fd/{folder}").samefile(tmp_path / closed):
            raise denied
        return listdir(folder)

    def entries(folder: Path) -> Iterator[Path]:
        if folder == tmp_path / closed:
            raise denied
        return (folder / name for name in listdir(folder))

    monkeypatch.setattr(os, "listdir", listed)
    monkeypatch.setattr(Path, "iterdir", entries)
    (anna, refused), (ben, taken) = submission.names(tmp_path)
    assert (anna, refused, ben) == ("anna", tmp_path / closed, "ben")
    assert submission.read(taken, collected=tmp_path).scripts == {"h1": "true"}
    with pytest.raises(UsageError, match="it can't be read: Permission denied"):
        submission.read(refused, collected=tmp_path)


def test_a_folder_that_became_a_link_since_it_was_listed_is_not_read(tmp_path: Path) -> None:
    for place in ("ben/21-two-ways", "collected/anna/21-two-ways"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "h1.sh").write_text(f"echo {place}")
    collected = tmp_path / "collected"
    ((name, path),) = submission.names(collected)
    assert submission.read(path, collected=collected).scripts["h1"].endswith(str(place))
    (collected / "anna").rename(tmp_path / "away")
    (collected / "anna").symlink_to("../ben")
    assert name == "anna"
    with pytest.raises(UsageError, match="it is a link"):
        submission.read(path, collected=collected)


def test_a_folder_that_becomes_a_link_while_it_is_read_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for student in ("anna", "ben"):
        (tmp_path / student).mkdir()
        (tmp_path / student / "h1.sh").write_text(student)
    listdir = os.listdir

    def listed(folder: int) -> list[str]:
        found = listdir(folder)
        (tmp_path / "anna").rename(tmp_path / "away")
        (tmp_path / "anna").symlink_to("ben")
        return found

    monkeypatch.setattr(os, "listdir", listed)
    assert submission.read(tmp_path / "anna").scripts == {"h1": "anna"}


def test_nobody_hands_in_what_lies_behind_a_link(tmp_path: Path) -> None:
    """Not where it leads to a folder of folders, either."""
    (tmp_path / "ben/private").mkdir(parents=True)
    (tmp_path / "ben/private/h1.sh").write_text("true")
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected/anna").symlink_to(tmp_path / "ben")
    found = list(submission.names(tmp_path / "collected"))
    assert found == [("anna", tmp_path / "collected/anna")]
    with pytest.raises(UsageError, match="it is a link"):
        submission.read(found[0][1])


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [5 << 10, 15 << 20])
def test_headers_that_take_for_ever_are_refused_at_once(
    kind: bytes, size: int, tmp_path: Path
) -> None:
    """15 KB, packed, of which reading one regular expression makes 10^14 steps."""
    header = special("h1.sh", kind)
    header.size = size
    long = header.tobuf(tarfile.GNU_FORMAT) + b"0" * size
    path = tmp_path / "anna.tar.gz"
    path.write_bytes(gzip.compress(long.ljust(-(-len(long) // 512) * 512, b"\0")))
    with pytest.raises(UsageError, match="a header in it is too long"):
        submission.read(path)


def test_many_headers_are_as_one(tmp_path: Path) -> None:
    header = special("h1.sh", tarfile.XHDTYPE)
    header.size = 4 << 10
    path = tmp_path / "anna.tar"
    path.write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"0" * (4 << 10)) * 33)
    with pytest.raises(UsageError, match="a header in it is too long"):
        submission.read(path)


@given(st.binary(max_size=2000), st.sampled_from(["a.tar.gz", "a.tar", "a.zip"]))
def test_any_bytes_are_a_submission_or_none(content: bytes, name: str) -> None:
    folder = Path("/proc/self/fd")
    file = os.memfd_create("submission")
    os.write(file, content)
    try:
        with os.fdopen(os.open(folder / str(file), os.O_RDONLY), "rb") as opened:
            reading = submission._of_zip if name.endswith("zip") else submission._of_tar
            try:
                assert isinstance(reading(opened), dict)
            except (UsageError, *submission._NO_ARCHIVE):
                pass
    finally:
        os.close(file)


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_any_texts_are_answers_and_a_manifest_or_refused(sheet: bytes, manifest: bytes) -> None:
    files = {"h1.sh": b"true", "answers.yaml": sheet, "submission.yaml": manifest}
    try:
        made = submission._made(files)
        assert isinstance(made.given(), dict)
    except UsageError:
        pass


def test_an_alias_that_stands_for_a_billion_is_refused() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    with pytest.raises(UsageError, match="an alias"):
        Submission({}, "\n".join(lines)).given()


def test_whose_it_is_says_the_file_and_not_what_is_in_it(tmp_path: Path) -> None:
    packed(tmp_path / "anna-21-two-ways.tar.gz")
    (tmp_path / "Ben C_123").mkdir()
    packed(tmp_path / "Ben C_123/anna-21-two-ways.tar.gz")
    (tmp_path / "carl").mkdir()
    (tmp_path / "carl/h1.sh").write_text("true")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden.tar.gz").write_text("")
    found = [name for name, _ in submission.names(tmp_path)]
    assert found == ["Ben C_123", "anna", "carl"]
