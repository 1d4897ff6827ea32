"""What was typed becomes a script a host: what changes something, in the order of typing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.exercises.grading import typed
from xlab.exercises.grading.typed import Line


def draft(
    *lines: tuple[str, int, str], files: dict[str, dict[str, str]] | None = None
) -> dict[str, str]:
    said = [Line(node, float(at), status, text) for at, (node, status, text) in enumerate(lines)]
    changed: dict[str, dict[str, str]] = {line.node.partition("/")[0]: {} for line in said}
    return typed.draft(said, changed | (files or {}), exercise="21 Two ways")


def commands(script: str) -> list[str]:
    return [line for line in script.splitlines() if line and not line.startswith("# 21")]


def test_hosts_take_turns_as_they_did() -> None:
    scripts = draft(
        ("h1", 0, "ip link set eth0 up"),
        ("h2", 0, "ip link set eth0 up"),
        ("h2", 0, "ip route add 10.0.0.0/8 dev eth0"),
        ("h1", 0, "ip route add 10.0.0.0/8 dev eth0"),
    )
    assert commands(scripts["h1"]) == ["# part 1", "ip link set eth0 up", "# part 2",
                                       "ip route add 10.0.0.0/8 dev eth0"]  # fmt: skip
    assert commands(scripts["h2"]) == ["# part 1", "ip link set eth0 up",
                                       "ip route add 10.0.0.0/8 dev eth0"]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["ping 10.0.0.1", "ip addr", "ip -br a", "ip route get 10.0.0.1", "bridge fdb show br br0",
     "brctl show", "docker ps -a", "docker network inspect bridge", "docker exec c1 ping 10.0.0.2",
     "docker exec -it c1 sh", "ip netns exec red ping 10.0.0.2", "ip netns", "iptables -nvL",
     "ovs-vsctl show", "tcpdump -ni eth0 proto gre", "weave status", "ifconfig", "ifconfig eth0",
     "route -n", "cat /etc/network/interfaces", "sudo ls", "# a note", "sysctl net.ipv4.ip_forward",
     "systemctl status docker", "vim /etc/hosts", "history | grep ip"],
)  # fmt: skip
def test_what_only_looks_is_left_out(line: str) -> None:
    assert draft(("h1", 0, line)) == {}


@pytest.mark.parametrize(
    "line",
    ["ip address add 10.0.0.1/8 dev eth0", "brctl addbr br0", "ifconfig eth0 0.0.0.0",
     "echo 1 >/proc/sys/net/ipv4/ip_forward", "cat >/etc/x <<E\na\nE", "ip netns add red",
     "ip netns exec red ip link set lo up", "docker exec c1 ip route add default via 10.0.0.1",
     "docker run -dit --name c1 busybox", "iptables -P FORWARD ACCEPT",
     "sysctl -w net.ipv4.ip_forward=1",
     "ovs-vsctl add-br obr0", "route add default gw 10.0.0.1", "ls; ip link set eth0 up",
     "weave launch 10.0.0.2", "python3 -m http.server &", "arp -s 10.0.0.1 02:00:00:00:00:01"],
)  # fmt: skip
def test_what_changes_something_is_kept(line: str) -> None:
    assert line in draft(("h1", 0, line))["h1"]


def test_what_failed_is_a_comment() -> None:
    said = draft(("h1", 2, "ip rote add 10.0.0.0/8"), ("h1", 0, "ip link set lo up"))["h1"]
    assert "# status 2: ip rote add 10.0.0.0/8\nip link set lo up" in said


def test_an_edited_file_stands_where_it_was_edited() -> None:
    text = "auto br0\niface br0 inet static\n"
    scripts = draft(
        ("h1", 0, "ifdown eth0"),
        ("h1", 0, "nano /etc/network/interfaces"),
        ("h1", 0, "ifup br0"),
        files={"h1": {"/etc/network/interfaces": text, "/etc/motd": "FILE\n"}},
    )
    lines = scripts["h1"].splitlines()
    place = lines.index("cat >/etc/network/interfaces <<'FILE'")
    assert lines[place - 2] == "ifdown eth0"
    assert lines[place + 1 : place + 5] == ["auto br0", "iface br0 inet static", "FILE", "ifup br0"]
    # What no line says anything of comes first, and ends where it does not end by itself.
    assert lines.index("cat >/etc/motd <<'FILE_'") < lines.index("ifdown eth0")


def test_a_unit_that_was_edited_is_its_file() -> None:
    file = "/etc/systemd/system/docker.service.d/override.conf"
    said = draft(("h1", 0, "systemctl edit docker"), files={"h1": {file: "[Service]\n"}})["h1"]
    assert f"cat >{file} <<'FILE'\n[Service]\nFILE" in said


def test_a_file_that_a_command_has_written_is_not_written_twice() -> None:
    said = draft(("h1", 0, "echo auto lo >/etc/network/interfaces"),
                 files={"h1": {"/etc/network/interfaces": "auto lo\n"}})["h1"]  # fmt: skip
    assert "FILE" not in said


def test_what_was_typed_in_a_container_is_done_by_its_host() -> None:
    said = draft(("h1/c1", 0, "ip link set eth0 mtu 1400"))
    assert "docker exec c1 sh -c 'ip link set eth0 mtu 1400'" in said["h1"]


def test_a_container_that_was_somebodys_terminal_goes_on_without() -> None:
    assert (
        "docker run -d -it --name c1 ubuntu bash"
        in draft(("h1", 0, "docker run -it --name c1 ubuntu bash"))["h1"]
    )


@given(st.text(max_size=300))
def test_any_file_is_lines_or_none(content: str) -> None:
    """It is the student's own."""
    lines = list(typed.parse("h1", content))
    assert all(line.text for line in lines)
    assert set(typed.draft(lines, {"h1": {}}, exercise="x")) <= {"h1"}


def test_entries_are_read_as_the_shell_writes_them() -> None:
    entries = ["1700000000.123456 0 ip link set lo up", "1700000001,5 2 cat <<E\na\nE", "rubbish"]
    content = "".join(f"{entry}\0" for entry in entries)
    assert list(typed.parse("h1", content)) == [
        Line("h1", 1700000000.123456, 0, "ip link set lo up"),
        Line("h1", 1700000001.5, 2, "cat <<E\na\nE"),
    ]
