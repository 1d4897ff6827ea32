"""Names of labs that stay, as the kernel lists them among everybody's sockets."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import UsageError
from xlab.sandbox import registry

HEAD = "Num       RefCount Protocol Flags    Type St Inode Path\n"
ROW = "0000000000000000: 00000002 00000000 {flags:08X} 0001 01 81542 {path}\n"
LISTENS = 0x10000

LAB_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True)
#: What other people may have bound, line feeds and all.
OTHERS = st.text(max_size=30) | st.sampled_from(
    ["/run/dbus", "@x\n0 0 0 zz 0 0 0 @xlab/0/a", "@x\n", "@x\r@xlab/0/b", "@xlab/0/", "@xlab/1/c"]
)


@given(LAB_NAMES)
def test_a_lab_is_found_under_its_name(name: str) -> None:
    assert registry.validated(name) == name
    ours, others = f"@xlab/0/{name}", f"@xlab/7/{name}"
    assert registry._listed(HEAD + ROW.format(flags=LISTENS, path=ours), 0) == {name: {"81542"}}
    assert registry._listed(HEAD + ROW.format(flags=0, path=ours), 0) == {}
    assert registry._listed(HEAD + ROW.format(flags=LISTENS, path=others), 0) == {}
    packets = ROW.replace(" 0001 ", " 0005 ").format(flags=LISTENS, path=ours)
    assert registry._listed(HEAD + packets, 0) == {}


@given(st.lists(OTHERS, max_size=5), LAB_NAMES)
@example(["@x\n0 0 0 zz 0 0 0 @xlab/0/a"], "mine")
def test_whatever_others_bind_ours_are_found_and_all_are_names(
    others: list[str], name: str
) -> None:
    rows = [ROW.format(flags=LISTENS, path=path) for path in (*others, f"@xlab/0/{name}")]
    found = registry._listed(HEAD + "".join(rows), 0)
    assert name in found
    for each in found:
        assert registry.validated(each) == each


@given(st.text(max_size=100))
def test_any_text_is_a_name_or_refused_in_few_words(text: str) -> None:
    found = attempt(lambda: registry.validated(text), UsageError)
    assert isinstance(found, Refusal) or found == text
