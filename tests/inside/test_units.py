"""Unit files, dockerd's options, what --format fills in, and the scripts of a host's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import DockerError, UsageError
from xlab.inside.machine import dockerd, systemd, tools, units
from xlab.inside.machine.docker import filled
from xlab.inside.machine.typist import RefusalError
from xlab.lab.docker import DaemonOptions

_NAME = "docker.service"


#: Lines of a [Service], as people write them and as nobody should.
_LINES = st.builds(
    str.__add__,
    st.sampled_from(["ExecStart=", "Environment=", "EnvironmentFile=", "ExecStart", "[", "# ", ""]),
    st.one_of(
        st.sampled_from(["", "-", "$A", "${A}", "'", "A='", "A=b c", "/dev/zero", "\\", "$", '""']),
        st.text(max_size=8),
    ),
)


def parse(*texts: str) -> units.Unit:
    return units.parse(_NAME, {Path(f"/{number}"): text for number, text in enumerate(texts)})


# -- units -----------------------------------------------------------------------------------------


def test_a_command_may_go_on_in_the_next_line() -> None:
    unit = parse(
        "[Unit]\nDescription=Docker\n[Service]\nExecStart=/usr/bin/dockerd -H fd:// \\\n"
        "  # between the lines\n  -b br0\n[Install]\nExecStart=not here\n"
    )
    assert unit.description == "Docker"
    assert unit.command() == ["/usr/bin/dockerd", "-H", "fd://", "-b", "br0"]


def test_a_drop_in_takes_back_what_was_said_and_says_it_anew() -> None:
    stock = systemd.unit_for(DaemonOptions())
    drop_in = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd --bip 10.0.0.1/24\n"
    assert parse(stock, drop_in).command() == ["/usr/bin/dockerd", "--bip", "10.0.0.1/24"]
    with pytest.raises(UsageError, match="has no ExecStart= setting"):
        parse(stock, "[Service]\nExecStart=\n").command()


def test_a_second_command_is_refused_but_for_a_oneshot() -> None:
    drop_in = "[Service]\nExecStart=/usr/bin/dockerd --bip 10.0.0.1/24\n"
    with pytest.raises(UsageError, match=r"^docker\.service: Service has more than one ExecStart="):
        parse(systemd.unit_for(DaemonOptions()), drop_in).command()
    oneshot = "[Service]\nType=oneshot\nExecStart=first\nExecStart=second\n"
    assert parse(oneshot).command() == ["second"]


def test_variables_are_put_in() -> None:
    unit = parse(
        '[Service]\nEnvironment="OPTS=-b br0" NAME=br9\nExecStart=dockerd $OPTS --x=${NAME} $NONE\n'
    )
    assert unit.command() == ["dockerd", "-b", "br0", "--x=br9"]


def test_a_file_of_variables_that_is_missing_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("# options\nDOCKER_OPTS='-b br0'\n")
    for name, expected in (("docker", ["dockerd", "-b", "br0"]), ("missing", ["dockerd"])):
        text = f"[Service]\nEnvironmentFile=-{tmp_path}/{name}\nExecStart=dockerd $DOCKER_OPTS\n"
        assert parse(text).command() == expected


def test_a_quote_that_does_not_end_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        parse("[Service]\nExecStart=dockerd 'br0\n").command()


@pytest.mark.parametrize("word", ["$A", "${A}${A}${A}"])
def test_what_variables_come_to_has_an_end(word: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_text(f"A='{'x ' * 30_000}'\n")
    for value in ("EnvironmentFile=" + str(tmp_path / "large"), f"Environment=A={'x' * 30_000}"):
        command = " ".join([word] * 10_000)
        with pytest.raises(UsageError, match="has too much in it"):
            parse(f"[Service]\n{value}\nExecStart=dockerd {command}\n").command()
    many = f"EnvironmentFile={tmp_path}/large\n" * 50
    unit = parse(f"[Service]\n{many}ExecStart=dockerd\n")
    assert unit.command() == ["dockerd"]


@given(st.text())
@example("[Service]\nExecStart=$A\nEnvironment=A='\n")
@example("[Service]\nExecStart=$A\n")
@example("[Service]\nEnvironmentFile=-\0\nExecStart=dockerd\n")
@example("[Service]\nEnvironmentFile=/dev/zero\nExecStart=dockerd\n")
@example(f"[Service]\nExecStart='{'x' * 5000}\n")
def test_any_text_is_a_unit_or_refused(text: str) -> None:
    _any_unit(text)


@given(st.lists(_LINES, max_size=6).map("\n".join))
def test_any_settings_are_a_unit_or_refused(text: str) -> None:
    _any_unit(f"[Service]\n{text}")


def _any_unit(text: str) -> None:
    words = attempt(lambda: parse(text).command(), UsageError)
    assert isinstance(words, Refusal) or (words and all(isinstance(word, str) for word in words))


def test_what_is_no_file_is_no_drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f"{_NAME}.d"
    (folder / "a.conf").mkdir(parents=True)
    os.mkfifo(folder / "b.conf")  # whoever reads it waits for a writer
    (folder / "c.conf").write_text("[Service]\nEnvironment=A=5\n")
    (tmp_path / _NAME).write_text("[Service]\nExecStart=dockerd --mtu=${A}\n")
    monkeypatch.setattr(units, "PLACES", (tmp_path,))
    found = units.load(_NAME)
    assert found is not None
    assert found.command() == ["dockerd", "--mtu=5"]


# -- dockerd ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-H fd:// --containerd=/run/c.sock", DaemonOptions()),
        ("-b br0 --fixed-cidr 10.0.0.64/26", DaemonOptions("br0", "10.0.0.64/26")),
        ("-bbr0", DaemonOptions("br0")),
        ("-b=br0 --mtu=1400", DaemonOptions("br0", mtu=1400)),
        ("--bridge=br0 --iptables=false", DaemonOptions("br0", iptables=False)),
        ("-D --ip-forward=0 -b br1 -b br0", DaemonOptions("br0", ip_forward=False)),
        ("--bip 10.0.0.1/24 --default-gateway 10.0.0.9",
         DaemonOptions(bip="10.0.0.1/24", default_gateway="10.0.0.9")),
    ],
)  # fmt: skip
def test_flags_are_read_as_dockerd_reads_them(words: str, expected: DaemonOptions) -> None:
    assert dockerd.options(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-b = br0", '"dockerd" accepts no argument'),
        ("--bridge", "flag needs an argument: --bridge"),
        ("-b", "flag needs an argument: 'b' in -b"),
        ("--frobnicate", "unknown flag, or one that is not emulated: --frobnicate"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("--mtu lots", 'invalid argument "lots"'),
        (f"--mtu {'1' * 5000}", "not an MTU"),
        ("--iptables=maybe", 'invalid argument "maybe"'),
    ],
)
def test_flags_that_dockerd_refuses(words: str, said: str) -> None:
    with pytest.raises(DockerError, match=said):
        dockerd.options(words.split())


def test_a_file_says_the_same_and_must_not_say_it_too() -> None:
    file = '{"bridge": "br0", "mtu": 1400, "log-driver": "local", "hosts": ["fd://"]}'
    assert dockerd.options([], file) == DaemonOptions("br0", mtu=1400)
    with pytest.raises(DockerError, match="both as a flag and in the configuration file: bridge"):
        dockerd.options(["-b", "br1"], file)
    for wrong in ("[]", "{", '{"bridge": 5}', '{"mtu": true}', '{"brigde": "br0"}', '{"mtu": 1}'):
        with pytest.raises(DockerError):
            dockerd.options([], wrong)


@given(st.lists(st.text(max_size=12), max_size=6), st.none() | st.text())
def test_any_options_are_read_or_refused(words: list[str], file: str | None) -> None:
    try:
        assert isinstance(dockerd.options(words, file), DaemonOptions)
    except DockerError:
        pass


def test_the_file_of_a_daemon_that_runs_starts_it_as_it_is() -> None:
    wanted = DaemonOptions("br0", "10.0.0.64/26", mtu=1400, iptables=False)
    _, *words = parse(systemd.unit_for(wanted)).command()
    assert dockerd.options(words) == wanted


# -- docker --format -------------------------------------------------------------------------------

_ABOUT = {"A": {"B": 5, "Up": True}, "Many": {"x": {"Ip": "1.2.3.4"}, "y": {"Ip": "5.6.7.8"}}}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.A.B}} {{ .A.Up }}", "5 true"),
        ("{{json .A}}", '{"B": 5, "Up": true}'),
        ("{{range .Many}}{{.Ip}},{{end}}", "1.2.3.4,5.6.7.8,"),
        ("{{range $k, $v := .Many}}{{.Ip}} {{end}}", "1.2.3.4 5.6.7.8 "),
        ("plain", "plain"),
    ],
)
def test_templates_are_filled_in(template: str, expected: str) -> None:
    assert filled(template, _ABOUT) == expected


@pytest.mark.parametrize("template", ["{{.A.C}}", "{{if .A}}x{{end}}", "{{len .A}}", "{{.A"])
def test_templates_that_ask_for_more_are_refused(template: str) -> None:
    with pytest.raises(RefusalError):
        filled(template, _ABOUT)


def test_a_template_has_its_length() -> None:
    """Of 64 KiB every thread of pid 1 waited for seven seconds."""
    with pytest.raises(RefusalError, match="longer than 4,096 characters"):
        filled("{{range .Many}}" * 300, _ABOUT)


@given(st.text(alphabet="{}.ABjsonrange $:=,end", max_size=40))
def test_any_template_is_filled_in_or_refused(template: str) -> None:
    try:
        assert isinstance(filled(template, _ABOUT), str)
    except RefusalError:
        pass


# -- the scripts -----------------------------------------------------------------------------------


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The commands of a host, with an ovs-vsctl that says what it was told."""
    real = tmp_path / "real/ovs-vsctl"
    real.parent.mkdir()
    real.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    real.chmod(0o755)
    path = os.environ["PATH"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{real.parent}:{path}")
        tools.make(tmp_path / "tools", userspace=True)
    wrapper = tmp_path / "tools/bin/ovs-vsctl"
    wrapper.write_text(wrapper.read_text().replace("/usr/lib/xlab", f"{tmp_path}/tools/lib/xlab"))
    return tmp_path / "tools"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("show", "show"),
        ("add-br obr0", "add-br obr0 -- set bridge obr0 datapath_type=netdev"),
        ("--may-exist add-br b -- add-port b p",
         "--may-exist add-br b -- set bridge b datapath_type=netdev -- add-port b p"),
        ("del-br obr0", "del-br obr0"),
        ("add-br a -- del-br b", "add-br a -- set bridge a datapath_type=netdev -- del-br b"),
    ],
)  # fmt: skip
def test_new_bridges_are_told_that_they_are_in_user_space(
    scripts: Path, typed: str, told: str
) -> None:
    done = subprocess.run(
        [scripts / "bin/ovs-vsctl", *typed.split()], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{told}\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("echo a b", "a b\n"),
        ("-u root -E -- echo a", "a\n"),
        ("WHERE=here sh -c 'echo $WHERE'", "here\n"),
    ],
)
def test_sudo_runs_what_follows(scripts: Path, typed: str, said: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" {typed}', scripts / "bin/sudo"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == said
