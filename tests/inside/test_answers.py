"""What a host answers where a lab has not what was asked for: it names what does the same there."""

from __future__ import annotations

import os
import re
import shlex
import signal
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.support.labs import PATIENCE_S, machine, run_in_sandbox, sandboxed
from tests.support.world import World, ordinary_world, usual_signals
from xlab.errors import XlabError
from xlab.inside.machine import tools
from xlab.inside.machine.desk import Desk
from xlab.inside.machine.systemd import DockerService, Systemd
from xlab.kernel.processes import wait_until
from xlab.lab import machine_root, underlay, weave
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node

pytestmark = pytest.mark.sandbox

_FIXTURES = (ordinary_world, usual_signals)


class Typed:
    """Two hosts with Docker, and what is typed in the first."""

    def __init__(self, lab: Lab | None = None) -> None:
        self.lab = lab or Lab(underlay.describe(None, hosts=2))
        self.lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
        for host in self.lab.hosts:
            host.docker.start()

    def say(self, line: str, *, host: int = 0) -> tuple[int, str, str]:
        """Status and output of a line; 0 for a program to attend to."""
        there = self.lab.hosts[host]
        command, *words = shlex.split(line)
        said: list[Any] = []
        services: dict[str, Any] = {"docker": DockerService(there)}
        desk = Desk(there, Systemd(there, services), lambda _: None)
        desk._noticed.update(("docker", "weave", "systemctl"))
        asked = {"command": command, "words": words, "terminal": False}
        found = desk._typed(asked, said.append, mine=[])
        out, err = ("".join(each.get(stream, "") for each in said) for stream in ("out", "err"))
        return found["status"], out, err


REFUSED = [
    ("docker build -t mine .", 1, "docker run takes any name"),
    ("docker compose up", 1, "docker run for each service"),
    ("docker login", 1, "this lab is offline"),
    ("docker image rm ubuntu", 1, "docker run takes any name"),
    ("docker cp a c1:/b", 1, "docker exec -i NAME"),
    ("docker swarm init", 1, "xlab list"),
    ("docker nonsense", 1, "there are run, create"),
    ("docker logs -f c1", 1, "docker attach NAME"),
    ("docker ps --filter name=c1", 1, "there are -a, -q, -l, --no-trunc"),
    ("docker exec -u nobody c1 true", 1, "no one but root"),
    ("docker run -p 80:80 ubuntu", 125, "own address answers on every port: docker inspect"),
    ("docker run -v /a:/b ubuntu", 125, "docker exec -i NAME sh -c 'cat >FILE' <FILE"),
    ("docker run --mount type=bind ubuntu", 125, "/home is the machine's own"),
    ("docker run --link c1:db ubuntu", 125, "/etc/hosts"),
    ("docker run --restart on-failure ubuntu", 125, "always, unless-stopped"),
    ("docker run --network host ubuntu", 125, "docker network ls shows the one there is, bridge"),
    ("docker run --gpus all ubuntu", 125, "there are -i, -t, -d, -e, -h, --name, --rm, --restart"),
    ("docker network create mine", 1, "docker network ls shows the one there is, bridge"),
    ("weave nonsense", 1, "there are launch, run"),
    ("weave connect 10.211.55.4", 1, "weave launch PEER"),
    ("weave launch --password secret", 1, "weave launch [PEER…] takes other hosts' addresses"),
    ("weave run ubuntu", 1, "weave run ADDRESS/PREFIX"),
    ("weave attach c1", 1, "weave attach ADDRESS/PREFIX CONTAINER"),
    ("weave expose", 1, "weave expose ADDRESS/PREFIX; handing out addresses is not emulated"),
    ("weave hide", 1, "weave hide ADDRESS/PREFIX"),
    ("weave expose 192.168.1.100/24", 1, "Have you launched it?"),
    ("systemctl nonsense docker", 1, "start, stop, restart"),
    ("systemctl mask docker", 1, "systemctl stop NAME"),
    ("systemctl disable docker", 1, "systemctl stop docker ends it until the next boot"),
    ("systemctl poweroff", 1, "xlab fault crash HOST"),
    ("systemctl restart nginx", 5, "there are docker"),
    ("systemctl edit docker", 1, "/etc/systemd/system/NAME.service.d/override.conf"),
    ("service --status-all", 1, "there are docker"),
    ("journalctl -f", 1, "journalctl -n 20"),
    ("poweroff", 1, "`xlab fault crash h1` outside"),
]  # fmt: skip


@sandboxed
def test_every_refusal_names_what_works_here() -> None:
    typed = Typed()
    typed.lab.hosts[0].docker.run("c1")
    wrong = {
        line: answered
        for line, status, advice in REFUSED
        if (answered := typed.say(line))[:2] != (status, "") or advice not in answered[2]
    }
    assert wrong == {}


@sandboxed
def test_networks_are_those_that_are_listed() -> None:
    typed = Typed()
    (status, listed, _) = typed.say("docker network ls")
    heads, *rows = listed.splitlines()
    assert (status, heads.split()) == (0, ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"])
    for identity, name, driver, scope in (row.split() for row in rows):
        assert (driver, scope) == ("bridge", "local")
        assert typed.say(f"docker network inspect {identity}")[0] == 0
        assert typed.say(f"docker run -d --network {name} busybox sleep 60")[0] == 0
        for line in ("docker network create mine", "docker run --network mine ubuntu"):
            assert f"the one there is, {name}." in typed.say(line)[2]
    assert typed.say("docker network ls -q")[1] == f"{rows[0].split()[0]}\n"
    assert typed.say("docker network inspect host")[0] == 1


@sandboxed
def test_images_have_dockers_columns() -> None:
    typed = Typed()
    assert typed.say("docker images") == (
        0, "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n", "",
    )  # fmt: skip
    tagged = ("ubuntu:latest", "here:5000/a/b:1.2", "busybox@sha256:0")
    for image in ("ubuntu", tagged[0], "here:5000/a/b", *tagged[1:]):
        assert typed.say(f"docker create {image}")[0] == 0
    listed = typed.say("docker images")[1]
    heads, *rows = listed.splitlines()
    columns = [heads.index(head) for head in ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")]
    cells = [
        [row[at:to].rstrip() for at, to in zip(columns, [*columns[1:], None], strict=True)]
        for row in rows
    ]
    assert [(name, tag) for name, tag, *_ in cells] == [
        ("busybox", "<none>"), ("here:5000/a/b", "1.2"), ("here:5000/a/b", "latest"),
        ("ubuntu", "latest"),
    ]  # fmt: skip
    for _, _, identity, created, size in cells:
        assert re.fullmatch(r"[0-9a-f]{12}", identity)
        assert created.endswith(" ago")
        assert size == "0B"
    assert len({cell[2] for cell in cells}) == len(cells)
    assert typed.say("docker image ls")[1] == listed
    assert typed.say("docker images -q ubuntu")[1] == f"{cells[-1][2]}\n"
    assert typed.say("docker images ubuntu:18.04")[1].count("\n") == 1


@sandboxed
def test_of_a_container_that_ended_at_once_it_is_said_why() -> None:
    typed = Typed()
    docker = typed.lab.hosts[0].docker

    def started(line: str, name: str) -> None:
        assert typed.say(f"docker run -d --name {name} {line}")[0] == 0
        wait_until(
            lambda: docker.container(name).state == "exited",
            timeout_s=PATIENCE_S, awaited="its end",
        )  # fmt: skip

    started("ubuntu", "shell")
    started("busybox sh -c 'exit 3'", "script")
    assert typed.say("docker create --name new ubuntu")[0] == 0
    assert typed.say("docker run -dit --name stopped ubuntu")[0] == 0
    assert typed.say("docker stop stopped")[0] == 0
    stays = "docker run -itd IMAGE, or docker run -d IMAGE sleep infinity"
    why = "ended by itself, with status 0 (docker ps -a): without a terminal a shell ends at once"
    for line, dockers_words in (
        ("docker exec shell true", r"container [0-9a-f]{64} is not running"),
        ("docker attach shell", "You cannot attach to a stopped container, start it first"),
    ):
        status, _, said = typed.say(line)
        assert status == 1
        first, second = said.splitlines()
        assert re.search(dockers_words, first)
        assert why in second
        assert stays in second
    status, out, said = typed.say("docker start shell")
    assert (status, out, said.count("\n")) == (0, "shell\n", 1)
    assert why in said
    said = typed.say("docker exec script true")[2]
    assert "status 3 (docker ps -a): a container ends with its program" in said
    for name in ("new", "stopped"):
        said = typed.say(f"docker exec {name} true")[2]
        assert f"docker start {name} starts it" in said
        assert "by itself" not in said
    assert typed.say("docker start stopped") == (0, "stopped\n", "")


# -- weave expose ----------------------------------------------------------------------------------


def pings(source: Node, address: str) -> bool:
    return source.run(["ping", "-n", "-c1", "-W0.5", address], check=False).returncode == 0


@pytest.mark.skipif(not machine().tun.usable, reason=machine().tun.detail)
@sandboxed
def test_a_router_that_gives_no_answer_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = Typed()
    assert typed.say("weave launch")[0] == 0
    # Nobody was named: the page is empty, and there.
    assert typed.say("weave status targets") == (0, "", "")
    assert "there are connections, peers and targets" in typed.say("weave status dns")[2]
    monkeypatch.setattr(weave, "_ANSWER_S", 0.3)
    (router,) = typed.lab.hosts[0].weave.pids()
    os.kill(router, signal.SIGSTOP)
    status, _, said = typed.say("weave status connections")
    os.kill(router, signal.SIGCONT)
    assert (status, said) == (1, "weave: the router of h1 gives no answer within 0.3 s\n")


@pytest.mark.skipif(not machine().tun.usable, reason=machine().tun.detail)
@sandboxed
def test_an_exposed_host_is_in_the_containers_network_until_it_is_hidden() -> None:
    typed = Typed()
    h1, h2 = typed.lab.hosts

    def nat() -> list[str]:
        text = h1.configure(["iptables-save", "-t", "nat"]).stdout
        return [line for line in text.splitlines() if "WEAVE" in line]

    assert typed.say("weave launch")[0] == 0
    assert typed.say("weave launch 10.211.55.3", host=1)[0] == 0
    assert typed.say("weave run 192.168.1.2/24 --name c1 ubuntu sleep 600", host=1)[0] == 0
    for host in (h1, h2):
        host.weave.await_connections(1)
    c1 = h2.docker.container("c1")
    assert not pings(h1, "192.168.1.2")

    assert typed.say("weave expose 192.168.1.100/24") == (0, "192.168.1.100\n", "")
    wait_until(lambda: pings(h1, "192.168.1.2"), timeout_s=PATIENCE_S, awaited="h2/c1")
    assert pings(c1, "192.168.1.100")
    mac = h1.mac_address("weave")
    assert typed.say("weave ps")[1] == f"weave:expose {mac} 192.168.1.100/24\n"
    rules = [
        ":WEAVE",
        "-A POSTROUTING -j WEAVE",
        "-A WEAVE -d 192.168.1.0/24 ! -s 192.168.1.0/24 -j MASQUERADE",
        "-A WEAVE -s 192.168.1.0/24 ! -d 192.168.1.0/24 -j MASQUERADE",
    ]

    def plain(lines: list[str]) -> set[str]:
        """iptables-save names the source first."""
        return {
            " ".join(sorted(line.split()[:1] if line[0] == ":" else line.split())) for line in lines
        }

    assert plain(nat()) == plain(rules)
    # Once more is nothing new; a second address has rules of its own.
    assert typed.say("weave expose 192.168.1.100/24")[0] == 0
    assert plain(nat()) == plain(rules)
    assert len(nat()) == len(rules)
    # Whoever comes from another network is masqueraded: a container that is on docker0 alone.
    alone = h1.docker.run("alone")
    wait_until(lambda: pings(alone, "192.168.1.2"), timeout_s=PATIENCE_S, awaited="h2/c1")

    assert typed.say("weave hide 192.168.1.100/24") == (0, "192.168.1.100\n", "")
    assert not pings(h1, "192.168.1.2")
    assert plain(nat()) == plain(rules[:2])
    assert "192.168.1.100/24 is not exposed" in typed.say("weave hide 192.168.1.100/24")[2]
    assert "192.168.1/24" in typed.say("weave expose 192.168.1/24")[2]

    # What a host has in memory alone a power cut takes.
    assert typed.say("weave expose 192.168.1.100/24")[0] == 0
    typed.lab.crash(h1)
    typed.lab.boot(h1)
    assert h1.weave.exposed == []
    with pytest.raises(XlabError, match="`weave launch` makes it"):
        h1.weave.expose("192.168.1.100/24")
    h1.docker.start()
    h1.weave.resume()
    assert not pings(h1, "192.168.1.2")
    assert nat() == []
    h1.weave.expose("192.168.1.100/24")
    wait_until(lambda: pings(h1, "192.168.1.2"), timeout_s=PATIENCE_S, awaited="h2/c1 again")
    assert plain(nat()) == plain(rules)


# -- the internet ----------------------------------------------------------------------------------


def offline() -> tuple[Host, Node]:
    """A host as of a lab that stays, and a container in it."""
    tools.make_offline(machine_root.OFFLINE)
    typed = Typed(Lab(underlay.describe(None, hosts=2), own_disks=True))
    host = typed.lab.hosts[0]
    return host, host.docker.run("c1")


def shell(node: Node, line: str) -> tuple[int, str, str]:
    done = node.run(["sh", "-c", line], check=False, timeout_s=PATIENCE_S)
    return done.returncode, done.stdout, done.stderr


#: Where distributions look first; what else our own search path has is ours alone.
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@sandboxed
def test_nothing_is_installed_in_a_lab() -> None:
    for node in offline():
        for line in ("apt-get update", "apt install -y curl"):
            status, out, said = shell(node, f"{PATH}; {line}")
            command = line.split()[0]
            assert (status, out) == (100, "")
            assert said.startswith(f"{command}: this lab is offline: ")
            assert "ip, ping," in said
            assert "outside of the lab" in said.casefold()


def test_an_ordinary_users_containers_are_told_so_too(ordinary_world: World) -> None:
    assert ordinary_world.say("up", "baseline", "--empty").status == 0
    run = ("docker", "run", "--rm", "ubuntu", "sh", "-c", "touch /usr/mine; apt-get update")
    said = ordinary_world.say("exec", "h1", "--", *run)
    assert (said.status, said.stdout) == (100, "")
    assert "Read-only file system" in said.stderr
    assert "apt-get: this lab is offline" in said.stderr


def test_a_name_asked_for_in_vain_is_told_to_be_of_the_internet() -> None:
    asking = {
        name: line
        for name, line in {
            "ping": "ping -c1 www.example.com",
            "curl": "curl -sS http://user@www.example.com:80/a?b",
            "wget": "wget -t1 -O- https://www.example.com",
        }.items()
        if Path("/usr/bin", name).exists() and not Path("/usr/local/bin", name).exists()
    }
    if not asking:
        pytest.skip("neither ping nor curl nor wget is in /usr/bin")

    def story() -> None:
        for node in offline():
            for name, line in asking.items():
                real = shell(node, f"PATH=/usr/bin; {line}")
                status, out, said = shell(node, f"{PATH}; {line}")
                assert (status, out) == real[:2]
                # Its own words first; wget's have the time.
                own, _, hint = said.partition(f"{name}: this lab is offline")
                assert own.splitlines()[-1:] == real[2].splitlines()[-1:]
                assert "nor www.example.com." in hint

    run_in_sandbox(story)


def await_program(pid: int, name: str) -> None:
    """The file it is, which a script is not."""
    program = Path(f"/proc/{pid}/exe")
    wait_until(lambda: program.readlink().name == name, timeout_s=PATIENCE_S, awaited=name)


@sandboxed
def test_but_for_that_programs_are_the_machines_own() -> None:
    host, container = offline()
    for node in (host, container):
        # It is the real one that signals are for, and no shell that waits for it.
        with node.start(["sh", "-c", f"{PATH}; exec ping 127.0.0.1"]) as ping:
            await_program(ping.pid, "ping")
        shell(node, "echo 127.0.0.1 web.lab >>/etc/hosts")
        assert shell(node, f"{PATH}; ping -c1 web.lab")[::2] == (0, "")
        # Its own complaints have the status of an unknown name, too.
        assert "offline" not in shell(node, f"{PATH}; ping -Z web.lab")[2]
        refused = shell(node, f"{PATH}; wget -t1 http://web.lab:9/ || curl web.lab:9")
        assert "offline" not in refused[2]
        assert shell(node, "echo >/usr/bin/mine")[0] == (0 if node is host else 2)
    line = "cd; echo url=file:///etc/hostname | curl -sK- -o page.html; cat page.html"
    read = shell(host, f"{PATH}; {line}")
    assert read[1] == "h1\n" or not Path("/usr/bin/curl").exists()
