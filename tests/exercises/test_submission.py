"""What is handed in: packed, and read again from what anybody may have made."""

from __future__ import annotations

import errno
import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.errors import UsageError
from xlab.exercises.grading import submission, tarball
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


def records(*said: bytes) -> bytes:
    """Of pax: each with the length of all of it before it."""
    return b"".join(b"%d %b\n" % (next(n for n in range(3, 9999)
                                      if n == len(b"%d %b\n" % (n, each))), each)
                    for each in said)  # fmt: skip


def extended(kind: bytes, content: bytes) -> bytes:
    header = special("header", kind)
    header.size = len(content)
    return header.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def _true() -> bytes:
    member = special("h1.sh", tarfile.REGTYPE)
    member.size = 4
    return member.tobuf() + b"true".ljust(512, b"\0")


def pax(*said: bytes) -> bytes:
    return extended(tarfile.XHDTYPE, records(*said))


#: h1.sh with `true` in it.
TRUE = _true()


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
        ([("h1.sh", b"".join(b"# part %d\n" % n for n in range(1001)))], "more than 1000 parts"),
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
    record = b"4096 comment="
    header.size = 4 << 10
    path = tmp_path / "anna.tar"
    path.write_bytes((header.tobuf(tarfile.GNU_FORMAT) + record.ljust(4095, b"0") + b"\n") * 33)
    with pytest.raises(UsageError, match="a header in it is too long"):
        submission.read(path)


@pytest.mark.parametrize("size", [-1, -512, -5000, -(2**80), 2**80])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, *tarball._PAX, *tarball._GNU, b"?"])
def test_nothing_in_it_is_smaller_than_nothing_or_larger_than_what_is_there(
    kind: bytes, size: int, tmp_path: Path
) -> None:
    """Read by tarfile, a header of -512 bytes has all that is left, here 64 KiB of digits."""
    member = special("notes", kind)
    member.size = size
    path = tmp_path / "anna.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"1" * (64 << 10) + TRUE)
    with pytest.raises(UsageError, match=r"promises more than there is|a header in it is too long"):
        submission.read(path)


@pytest.mark.parametrize(
    "size", ["-512", "+3", "1e3", "\u0663", "", "9" * 19, "9" * 21, "9" * 3000, "4_0", " 4"]
)
def test_what_pax_says_of_a_size_is_one(size: str, tmp_path: Path) -> None:
    path = tmp_path / "anna.tar"
    path.write_bytes(pax(f"size={size}".encode()) + TRUE)
    with pytest.raises(UsageError, match=r"a size is no number|promises more than there is"):
        submission.read(path)


@pytest.mark.parametrize(
    "record", [b"12 path=h2.sh", b"5 a=b\n", b"0 a=b\n", b"x", b"9999999 a=b\n", b"-6 a=b\n",
               b"6 a b\n", b"\0" * 9]
)  # fmt: skip
def test_a_record_of_pax_is_as_long_as_it_says(record: bytes, tmp_path: Path) -> None:
    path = tmp_path / "anna.tar"
    path.write_bytes(extended(tarfile.XHDTYPE, record) + TRUE)
    with pytest.raises(UsageError, match="a pax header has a record that is none"):
        submission.read(path)


@pytest.mark.parametrize(
    "said", [[b"GNU.sparse.major=1", b"GNU.sparse.minor=0"], [b"GNU.sparse.map=0,4"],
             [b"GNU.sparse.size=4"], [b"GNU.sparse.name=h1.sh", b"path=GNUSparseFile.7/h1.sh"]]
)  # fmt: skip
def test_a_file_with_holes_is_no_regular_one(said: list[bytes], tmp_path: Path) -> None:
    """The map of holes, which may be as long as the archive, is not read."""
    path = tmp_path / "anna.tar"
    path.write_bytes(pax(*said) + TRUE)
    with pytest.raises(UsageError, match=r"h1\.sh is no regular file"):
        submission.read(path)
    sparse = special("notes", tarfile.GNUTYPE_SPARSE)
    path.write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + TRUE)
    with pytest.raises(UsageError, match="pack it without --sparse"):
        submission.read(path)


def test_what_is_said_of_all_and_of_the_next_is_heeded(tmp_path: Path) -> None:
    other = special("GNU", tarfile.REGTYPE).tobuf()
    path = tmp_path / "anna.tar"
    path.write_bytes(
        extended(tarfile.XGLTYPE, b"13 comment=x\n")
        + pax(b"path=\xff/h2.sh", b"size=4") + special("x", tarfile.REGTYPE).tobuf()
        + b"true".ljust(512, b"\0")
        + extended(tarfile.GNUTYPE_LONGLINK, b"far\0") + extended(tarfile.GNUTYPE_LONGNAME, b"y\0z")
        + other + TRUE + b"what is behind the last is passed over".ljust(512)
    )  # fmt: skip
    assert submission.read(path).scripts == {"h1": "true", "h2": "true"}


@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200
            ),
            st.binary(max_size=1100),
        ),
        max_size=4,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_it_is_read_as_it_was_packed(members: list[tuple[str, bytes]], form: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(f"{name}.")
            info.size, info.mtime = len(content), 1.5
            archive.addfile(info, io.BytesIO(content))
    found = [(each.name, bytes(each.content)) for each in tarball.members(packed.getvalue())]
    assert found == [(f"{name}.", content) for name, content in members]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"0", b"x", b"g", b"X", b"L", b"K", b"S", b"5", b"2", b"7", b"?"]),
            st.sampled_from([0, 1, 8, 512, 513, 1 << 33, -1, -512]) | st.integers(-9, 2000),
            st.lists(st.sampled_from([b"path=a", b"size=9", b"size=-9", b"GNU.sparse.map=1,2"])),
        ),
        max_size=6,
    )
)
def test_any_headers_are_a_tar_or_none(
    headers: list[tuple[bytes, int, list[bytes]]],
) -> None:
    whole = b""
    for kind, size, said in headers:
        member = special("a", kind)
        member.size = size
        whole += member.tobuf(tarfile.GNU_FORMAT) + records(*said).ljust(512, b"\0")
    try:
        found = list(tarball.members(whole))
    except (UsageError, tarfile.TarError):
        return
    assert sum(len(each.content) for each in found) <= len(whole)


@pytest.mark.parametrize("offset", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_member_of_a_zip_may_be_said_to_lie_anywhere(offset: int, tmp_path: Path) -> None:
    """ZIP64 has 64 bits for where its header is, seek(2) has 63."""
    path = tmp_path / "anna.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("h1.sh", b"true\n")
    whole = path.read_bytes()
    listed, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    extra = struct.pack("<HHQ", 1, 8, offset)
    entry = bytearray(whole[listed:end] + extra)
    entry[30:32], entry[42:46] = struct.pack("<H", len(extra)), b"\xff" * 4
    last = bytearray(whole[end:])
    last[12:16] = struct.pack("<L", len(entry))
    path.write_bytes(whole[:listed] + entry + last)
    with pytest.raises(UsageError, match=r"can be read|can't be read"):
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
