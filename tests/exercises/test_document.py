"""A file's values, their lines, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlab.errors import UsageError
from xlab.exercises import document

FILE = Path("x.yaml")


def test_digits_are_numbers_and_everything_else_is_text() -> None:
    said = (
        'a: 12\nb: 1.5\nc: "12"\nd: yes\ne: none\nf: 10.1.2.3\ng: 1e3\nh: 0x1f\ni: 12:30:00\nj:\n'
    )
    assert document.parse(said, FILE).value == {
        "a": 12, "b": 1.5, "c": "12", "d": "yes", "e": "none", "f": "10.1.2.3", "g": "1e3",
        "h": "0x1f", "i": "12:30:00", "j": "",
    }  # fmt: skip


def test_every_value_has_its_line() -> None:
    found = document.parse("a: 1\nb:\n  - x\n  - y: 2\n    z: 3\n", FILE)
    assert [found.line(place) for place in (("a",), ("b", 0), ("b", 1, "z"))] == [1, 3, 5]
    # Of what is not there, what it would stand in.
    assert found.line(("b", 1, "w", 7)) == 4


def test_what_is_wrong_is_told_with_its_line() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"enum": ["x"]}},
        "required": ["c"],
        "additionalProperties": False,
    }
    found = document.parse("a: one\nb: y\nd: 1\n", FILE)
    told = sorted(map(str, found.problems(schema)))
    assert told == [
        "x.yaml:1: 'c' is missing",
        "x.yaml:1: a: 'one' is not of type 'integer'",
        "x.yaml:2: b: 'y' is not one of ['x']",
        "x.yaml:3: there is no 'd' here",
    ]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: 'a' stands here twice"),
        ("a: [1,\n", "x.yaml:2: "),
        ("a: *nothing\n", "x.yaml:1: "),
        (b"\xff\xfe\xff", "x.yaml: no YAML"),
        ('a: 1\nb: "\\uD800"\n', "x.yaml:2: half of a character"),
        ('a: 1\n"\\uDFFF": 2\n', "x.yaml:2: half of a character"),
        ('"\\UFFFFFFFF"', "x.yaml: no YAML: "),
        ('"\\U00110000"', "x.yaml: no YAML: "),
        (f"%YAML 1.{'1' * 5000}\n---\na: 1", "x.yaml: no YAML: "),
        ("[" * 5000, "x.yaml: nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_refused(said: str | bytes, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        document.parse(said, FILE)
    assert str(refused.value).startswith(told)


def test_nothing_in_a_file_is_carried_out() -> None:
    """Tags of YAML that would make objects are text like any other."""
    found = document.parse("a: !!python/object/apply:os.getcwd []\n", FILE)
    assert found.value == {"a": []}
