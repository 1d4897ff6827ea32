"""Values are drawn again for whoever has them, and differ among all others."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations
from typing import Any

import pytest

from xlab.errors import UsageError
from xlab.exercises import variants
from xlab.exercises.variants import Variant

WANTED = {
    "bridge": {"one_of": ["br0", "lan0", "swbr0"]},
    "mtu": {"between": [1300, 1500], "step": 20},
    "underlay": {"network": "10.0.0.0/8", "prefix": 24},
    "inner": {"network": "10.0.0.0/8", "prefix": 16},
    "h1": {"address": ["underlay", 3]},
    "range": {"part": ["underlay", 26, 1]},
    "first": {"address": ["range", 0]},
    "mask": {"netmask": "underlay"},
    "bits": {"bits": "inner"},
    "tunnel": {"sum": ["mtu", -38]},
    "said": {"text": "{bridge} of {h1}"},
    "which": {"case": "bridge", "br0": "the first of {h1}", "lan0": 2, "swbr0": "3"},
}


def drawn(student: str, exercise: str = "05-x", secret: bytes = b"s" * 32) -> dict[str, Any]:
    return variants.drawn(WANTED, Variant(student, secret).key(exercise))


def test_the_same_student_has_the_same_values_and_others_have_others() -> None:
    assert drawn("anna") == drawn("anna")
    assert len({str(drawn(f"student {number}")) for number in range(200)}) == 200
    assert drawn("anna") != drawn("anna", "06-x")
    assert drawn("anna") != drawn("anna", secret=b"t" * 32)
    # Neither name can be made to run into the other.
    assert Variant("a", b"s").key("bc") != Variant("ab", b"s").key("c")


def test_every_choice_is_made_by_somebody() -> None:
    found = [drawn(f"student {number}") for number in range(200)]
    assert {each["bridge"] for each in found} == {"br0", "lan0", "swbr0"}
    assert {each["mtu"] for each in found} == set(range(1300, 1501, 20))


def test_what_follows_from_what_was_drawn() -> None:
    found = drawn("anna")
    underlay = IPv4Network(found["underlay"])
    assert (underlay.prefixlen, found["bits"], found["mask"]) == (24, 16, "255.255.255.0")
    assert found["h1"] == str(underlay[3])
    assert (found["range"], found["first"]) == (f"{underlay[64]}/26", str(underlay[64]))
    assert found["tunnel"] == found["mtu"] - 38
    assert found["said"] == f"{found['bridge']} of {found['h1']}"
    case = {"br0": f"the first of {found['h1']}", "lan0": 2, "swbr0": "3"}
    assert found["which"] == case[found["bridge"]]


def test_networks_never_overlap() -> None:
    wanted = {f"n{i}": {"network": "172.16.0.0/12", "prefix": 16} for i in range(14)}
    for number in range(20):
        key = Variant(str(number)).key("05-x")
        found = [IPv4Network(str(each)) for each in variants.drawn(wanted, key).values()]
        assert not any(a.overlaps(b) for a, b in combinations(found, 2))
        docker0 = IPv4Network("172.17.0.0/16")
        assert not any(each.overlaps(docker0) for each in found)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"a": {"address": ["b", 1]}}, "variants.a: b is no value that stands before this one"),
        ({"a": {"sum": [1, "x"]}}, "variants.a: x is no number"),
        (
            {"n": {"network": "10.0.0.0/8", "prefix": 24}, "p": {"part": ["n", 26, 4]}},
            "variants.p: part: 10.",
        ),
        (
            {"b": {"one_of": ["x"]}, "a": {"case": "b", "y": "z"}},
            "variants.a: nothing is said of the case that b is x",
        ),
        ({"a": {"case": "b", "y": "z"}}, "variants.a: b is no value that stands before"),
        (
            {"a": {"text": "{b}"}, "b": {"text": "c"}},
            "variants.a: b is no value that stands before",
        ),
        ({"a": {"network": "10.0.0.0/28", "prefix": 24}}, "variants.a: network: 10.0.0.0/28 has"),
        ({"a": {"between": [2, 1]}}, "variants.a: between: "),
        (
            {f"n{i}": {"network": "192.168.0.0/16", "prefix": 17} for i in range(3)},
            "variants.n2: network: 192.168.0.0/16 has no room for another /17",
        ),
        (
            {
                "v0": {"text": "0123456789"},
                **{f"v{i}": {"text": f"{{v{i - 1}}}" * 10} for i in range(1, 11)},
            },
            "variants.v3: a value has 1,024 characters at most",
        ),
        ({"a": {"one_of": ["x" * 1025]}}, "variants.a: a value has 1,024"),
        (
            {"n": {"network": "10.0.0.0/8", "prefix": 24}, "p": {"part": ["n", -8 * 10**9, 0]}},
            "variants.p: part: 10.",
        ),
        (
            {"n": {"network": "10.0.0.0/8", "prefix": 24}, "p": {"part": ["n", 23, 0]}},
            "variants.p: part: 10.",
        ),
        (
            {"n": {"network": "10.0.0.0/8", "prefix": 24}, "p": {"part": ["n", 33, 0]}},
            "variants.p: part: 10.",
        ),
        ({"a": {"sum": [10**15 - 1, 1]}}, "variants.a: a number of more than 15 digits"),
    ],
)
def test_what_makes_no_sense_is_named(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        variants.drawn(wanted, b"key")
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("text", ["", "{mtu}", "{net} at {mtu}{mtu} {other} ${mtu}", "é{mtu}"])
def test_how_long_a_text_gets_is_known_before(text: str) -> None:
    values: dict[str, variants.Value] = {"net": "10.0.0.0/24", "mtu": 1462}
    assert variants.filled_length(text, values) == len(str(variants.filled(text, values)))


def test_a_name_in_braces_is_its_value_and_no_other_brace_is() -> None:
    values: dict[str, variants.Value] = {"net": "10.0.0.0/24", "mtu": 1462}
    assert variants.filled("{mtu}", values) == 1462
    assert variants.filled("to {net} at {mtu}", values) == "to 10.0.0.0/24 at 1462"
    assert variants.filled("${net} {print $1} {other} {}", values) == (
        "${net} {print $1} {other} {}"
    )
    assert variants.unknown_in("{net} {other} ${shell} {print $1}", values) == ["other"]
