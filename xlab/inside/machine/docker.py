"""The `docker` command in a host, over the emulated daemon: Docker's words and tables.

Networks, addresses and errors are Docker's.  Images are not: whatever its name, a container sees
the machine's own files, read-only, with an /etc, a /root and the like of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast, get_args

from xlab.errors import CapabilityError, CommandError, DockerError
from xlab.inside.machine.typist import (
    Attached,
    Options,
    Outcome,
    RefusalError,
    Subcommands,
    Typist,
)
from xlab.kernel.processes import search_path
from xlab.lab.docker import Container, Docker, Moment, RestartPolicy, SystemContainer
from xlab.sandbox.console import Attachable, Console

NOTICE = (
    "docker: emulated: the networks are Docker's, the programs this machine's, whatever the image\n"
)

_NO_DAEMON = (
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
    "Is the docker daemon running?"
)
#: What an image starts where nothing else is said.
_SHELLS = {"ubuntu": "/bin/bash", "debian": "bash", "fedora": "/bin/bash", "centos": "/bin/bash"}

#: Letters are one case in Docker's; nothing here hangs on it.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,250}")

#: HOST_NAME_MAX, limits.h.
_LONGEST_HOSTNAME = 64
#: Containers that one host keeps, running or not, and characters of all that was typed for them:
#: they are in the memory of pid 1, and who types may be a program that does nothing else.
_MOST_CONTAINERS, _MOST_TYPED, _LONGEST_NAME = 1000, 8 << 20, 255

_SUBCOMMANDS: Subcommands[Callable[[Docker, Typist], Outcome]] = Subcommands()

_NO_IMAGES = (
    "there are no images: docker run takes any name, and starts what this machine has installed"
)
_ONE_BY_ONE = "type docker run for each service"
_OTHER_HOSTS = "hosts are joined by a bridge, Open vSwitch or weave: xlab list"
#: What else people type after `docker`, and what does it here.
_INSTEAD = {
    **dict.fromkeys(
        ("build", "buildx", "commit", "history", "image", "import", "load", "push", "rmi", "save",
         "search", "tag"),
        _NO_IMAGES,
    ),
    **dict.fromkeys(("login", "logout"), f"this lab is offline, and {_NO_IMAGES}"),
    **dict.fromkeys(("compose", "stack"), _ONE_BY_ONE),
    **dict.fromkeys(("swarm", "node", "service"), _OTHER_HOSTS),
    "cp": "docker exec -i NAME sh -c 'cat >FILE' <FILE writes one",
    "events": "docker ps -a shows what became of each container",
    "info": "there are docker version and docker network inspect bridge",
    "port": "a container's own address answers on every port: docker inspect NAME",
    "rename": "docker rm -f NAME, then docker run --name NEW",
    "stats": "xlab top shows them, outside of the lab",
    "system": "docker rm removes what docker ps -a lists",
    "top": "docker exec NAME ps",
    "volume": "what a container writes to its /root, /etc and /var/lib stays until it is removed",
    **dict.fromkeys(("pause", "unpause"), "docker exec NAME kill -STOP PID, and -CONT"),
    "update": "containers have no limits",
    "wait": "docker ps -a shows whether one has ended, and how",
}  # fmt: skip
#: The same for what follows `docker run`.
_INSTEAD_IN_RUN = {
    "p publish=": "a container's own address answers on every port: docker inspect NAME",
    "P publish-all": "a container's own address answers on every port: docker inspect NAME",
    "v volume=": "docker exec -i NAME sh -c 'cat >FILE' <FILE writes a file there; /home is the "
                 "machine's own in each container, to be read",
    "mount=": "/home is the machine's own in each container, to be read",
    "volumes-from=": "/home is the machine's own in each container, to be read",
    "link=": "containers of a host reach each other by address (docker inspect NAME); a line in "
             "the container's /etc/hosts gives a name",
    "add-host=": "docker exec NAME sh -c 'echo ADDRESS NAME >>/etc/hosts'",
    "dns=": "this lab is offline: a line in the container's /etc/hosts gives a name",
    "ip=": "the lowest free address is taken (--fixed-cidr in docker.service says from where on); "
           "weave run ADDRESS/PREFIX gives one of your own",
    "mac-address=": "it follows from the address",
    "entrypoint=": "the program and its arguments stand behind the image's name",
    "u user=": "there is no one but root here",
    "w workdir=": "docker run IMAGE sh -c 'cd FOLDER && …', or docker exec -w",
    "env-file=": "-e NAME=VALUE, once for each",
    "m memory=": "containers have no limits",
    "cpus=": "containers have no limits",
}  # fmt: skip


def perform(docker: Docker, typist: Typist) -> Outcome:
    """Do what was typed after `docker`; the exit status, or a container to attend to."""
    words = list(typist.words)
    if words[:1] == ["container"]:
        words = [{"ls": "ps", "list": "ps"}.get(word, word) for word in words[1:2]] + words[2:]
    elif words[:1] == ["image"] and words[1:2] in (["ls"], ["list"], ["pull"]):
        words = ["pull" if words[1] == "pull" else "images", *words[2:]]
    verb, *rest = words or [""]
    typist = typist.having_typed(rest)
    if verb in ("", "help", "-h", "--help"):
        typist.out(f"Usage:  docker COMMAND\n\nEmulated here: {_SUBCOMMANDS}\n")
        return 0
    if verb in ("--version", "-v"):
        return _version(docker, typist)
    system = [e.short_name for e in docker.in_host_network() if e.short_name in rest]
    if system and verb not in ("run", "create"):
        raise RefusalError(
            f"{system[0]} is the router's: `weave status` shows it, and `weave stop` ends it"
        )
    if verb not in _SUBCOMMANDS:
        advice = _INSTEAD.get(verb, f"there are {_SUBCOMMANDS}")
        raise RefusalError(f"{verb!r} is not emulated here: {advice}")
    # The status is Docker's for what went wrong before a container's own program ran.
    failed = 125 if verb in ("run", "create") else 1
    if not docker.is_running and verb != "version":
        typist.err(f"docker: {_NO_DAEMON}.\n" if failed == 125 else f"{_NO_DAEMON}\n")
        return failed
    try:
        return _SUBCOMMANDS[verb](docker, typist)
    except RefusalError as error:
        typist.err(f"docker: {error}\n")
        return failed


# -- run, create, start ----------------------------------------------------------------------------


@_SUBCOMMANDS.named("run")
def _run(docker: Docker, typist: Typist) -> Outcome:
    options = options_of_run(typist)
    with console_for(options) as console:
        descriptors = [] if "detach" in options else console.attach(once=True)
        container = create(docker, options)
        start_new(docker, container, console)
    if "detach" not in options:
        return _attended(container, console, descriptors)
    typist.out(f"{container.id}\n")
    return 0


@_SUBCOMMANDS.named("create")
def _create(docker: Docker, typist: Typist) -> None:
    typist.out(f"{create(docker, options_of_run(typist)).id}\n")


def options_of_run(typist: Typist) -> Options:
    """What follows `docker run`; RefusalError where it asks for what is not emulated."""
    options = Options(
        typist.words, "i interactive", "t tty", "d detach", "e env=", "h hostname=", "name=", "rm",
        "restart=", "net network=", "privileged", "cap-add=",
        instead=_INSTEAD_IN_RUN, anywhere=False,
    )  # fmt: skip
    if not options.rest:
        raise RefusalError('"docker run" requires at least 1 argument.')
    network = options.value("network", "bridge")
    if network not in ("bridge", "default"):
        raise RefusalError(f"--network {network} is not emulated: {_ONE_NETWORK}")
    if len(os.fsencode(options.value("hostname") or "")) > _LONGEST_HOSTNAME:
        raise RefusalError(f"a host name has at most {_LONGEST_HOSTNAME} bytes")
    _require_restart_policy(options)
    if "detach" not in options and "tty" in options and "interactive" in options:
        if not typist.terminal:
            raise RefusalError("the input device is not a TTY")
    return options


def _require_restart_policy(options: Options) -> None:
    policy = options.value("restart", "no")
    if policy not in get_args(RestartPolicy):
        listed = ", ".join(get_args(RestartPolicy))
        raise RefusalError(f"--restart {policy} is not emulated; there are {listed}", 125)
    if policy != "no" and "rm" in options:
        raise RefusalError("Conflicting options: --restart and --rm", 125)


def create(docker: Docker, options: Options) -> Container:
    """A container as the options of `docker run` say; DockerError in Docker's words."""
    image, *command = options.rest
    if not _IMAGE.fullmatch(image):
        raise RefusalError("invalid reference format", 125)
    _require_room(docker, options)
    command = command or [_SHELLS.get(re.split("[:@]", image)[0].split("/")[-1], "sh")]
    container = docker.create(options.value("name"), image=image, command=command)
    container.tty = "tty" in options
    container.interactive = "interactive" in options
    container.auto_remove = "rm" in options
    container.restart_policy = cast(RestartPolicy, options.value("restart", "no"))
    container.env = dict(each.partition("=")[::2] for each in options.values("env"))
    container.hostname = options.value("hostname") or container.hostname
    return container


def _require_room(docker: Docker, options: Options) -> None:
    if len(options.value("name") or "") > _LONGEST_NAME:
        raise RefusalError(f"a name has at most {_LONGEST_NAME} characters", 125)
    kept = docker.all_containers
    typed = sum(map(len, [*options.rest, *options.values("env")]))
    for each in kept:
        typed += sum(map(len, [*each.command, *each.env, *each.env.values()]))
    if len(kept) >= _MOST_CONTAINERS or typed > _MOST_TYPED:
        raise RefusalError("no room for another container in this host: remove some", 125)


def console_for(options: Options) -> Console:
    """What the program of a new container is to read and write."""
    return Console(tty="tty" in options, stdin="interactive" in options)


def start_new(
    docker: Docker,
    container: Container,
    console: Console,
    *,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Start what has just been created, with the status and the words of `docker run` if it fails.

    One that could not be started stays behind as "Created", unless it was to go with its program.
    """
    try:
        _start(docker, container, console, prepare=prepare)
    except BaseException as error:
        if container.auto_remove:
            docker.remove(container)
        if not isinstance(error, DockerError):
            raise
        text = str(error).removeprefix("docker: ")
        status = error.exit_code if error.exit_code > 1 else 125
        raise DockerError(f"docker: {text}", exit_code=status) from error


def _start(
    docker: Docker,
    container: Container,
    console: Console,
    *,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    program = container.command[0] if container.command else ""
    if program and shutil.which(program, path=search_path()) is None:
        raise _no_such_program(program)
    docker.start_container(container, console, prepare=prepare)


def _no_such_program(program: str) -> DockerError:
    where = f"stat {program}: no such file or directory" if "/" in program else (
        "executable file not found in $PATH"
    )  # fmt: skip
    return DockerError(
        "Error response from daemon: failed to create task for container: failed to create shim "
        "task: OCI runtime create failed: runc create failed: unable to start container process: "
        f'exec: "{program}": {where}: unknown.',
        exit_code=127,
    )


def _attended(container: Container, console: Console, descriptors: Sequence[int]) -> Attached:
    """What was attached to before its program was started; or to that, if it ran already."""
    if not console.is_opened:
        return _attached(container)
    assert container.program is not None
    return Attached(container.program, descriptors, interactive=container.interactive)


@_SUBCOMMANDS.named("start")
def _start_again(docker: Docker, typist: Typist) -> Outcome:
    options = Options(typist.words, "a", "i")
    _require(options.rest, "start")
    if "a" in options or "i" in options:
        container = docker.container(options.rest[0])
        with container.new_console() as console:
            descriptors = console.attach()
            _start(docker, container, console)
        return _attended(container, console, descriptors)
    for name in options.rest:
        typist.require_host()
        container = docker.container(name)
        # One with a terminal waits for somebody.
        again = container.ended_by_itself and not (container.tty or container.interactive)
        hint = f"{_why_not_running(container)}\n" if again else ""
        with container.new_console() as console:
            _start(docker, container, console)
        typist.out(f"{name}\n")
        if hint:
            typist.err(hint)
    return 0


def _why_not_running(container: Container) -> str:
    """A hint for whoever wants something of a container that does not run."""
    name = container.short_name
    if not container.ended_by_itself:
        return f"docker start {name} starts it; docker ps -a shows it"
    program = " ".join(container.command)
    alone = program.split("/")[-1] in ("sh", "bash", "dash")
    shell = alone and not (container.tty or container.interactive)
    why = "a container ends with its program"
    if shell:
        why = "without a terminal a shell ends at once"
    return (
        f"{name}: its program, {_quoted(program)[:40]}, ended by itself, with status "
        f"{container.exit_code} (docker ps -a): {why}. One that stays: docker run -itd IMAGE, or "
        "docker run -d IMAGE sleep infinity"
    )


# -- stop, rm --------------------------------------------------------------------------------------


def _each(
    docker: Docker, names: Sequence[str], typist: Typist, verb: str, do: Callable[[Container], None]
) -> int:
    """`do` it to every container named; as Docker does, the rest too when one fails."""
    status = 0
    _require(names, verb)
    for name in names:
        typist.require_host()
        try:
            do(docker.container(name))
            typist.out(f"{name}\n")
        except DockerError as error:
            typist.err(f"{error}\n")
            status = 1
    return status


@_SUBCOMMANDS.named("stop", "kill")
def _stop(docker: Docker, typist: Typist) -> Outcome:
    options = Options(typist.words, "t time=", "s signal=", "f force")
    return _each(docker, options.rest, typist, "stop", docker.stop)


@_SUBCOMMANDS.named("restart")
def _restart(docker: Docker, typist: Typist) -> Outcome:
    options = Options(typist.words, "t time=", "s signal=", "f force")
    return _each(docker, options.rest, typist, "restart", docker.restart)


@_SUBCOMMANDS.named("rm")
def _remove(docker: Docker, typist: Typist) -> Outcome:
    options = Options(typist.words, "f force")
    remove = partial(docker.remove, force="force" in options)
    return _each(docker, options.rest, typist, "rm", remove)


# -- ps, exec, attach ------------------------------------------------------------------------------


@_SUBCOMMANDS.named("ps")
def _ps(docker: Docker, typist: Typist) -> None:
    options = Options(typist.words, "a all", "q quiet", "l latest", "no-trunc")
    if options.rest:
        raise RefusalError('"docker ps" accepts no arguments.')
    listed: list[Container | SystemContainer] = [
        each for each in docker.all_containers if "all" in options or each.state == "running"
    ]
    listed = sorted([*listed, *docker.in_host_network()], key=lambda each: -each.created.at_s)
    if "latest" in options:
        listed = list(docker.all_containers[-1:])
    rows = [_row(each, whole="no-trunc" in options) for each in listed]
    if "quiet" in options:
        typist.out("".join(f"{row[0]}\n" for row in rows))
        return
    heads = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
    typist.out(table([heads, *rows]))


def _row(container: Container | SystemContainer, *, whole: bool) -> tuple[str, ...]:
    age = _age(container.created)
    if isinstance(container, Container):
        command, state = _quoted(" ".join(container.command)), _state(container)
    else:
        command, state = "", f"Up {age}"
    return (
        container.id if whole else container.id[:12],
        container.image,
        f'"{command}"' if whole or len(command) <= 20 else f'"{command[:19]}…"',
        f"{age} ago",
        state,
        "",
        container.short_name,
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as the docker client sets them: the widest entry and three spaces."""
    widths = [max(len(row[i]) for row in rows) + 3 for i in range(len(rows[0]))]
    lines = ("".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _quoted(command: str) -> str:
    """Without what a terminal would obey, as Docker's own table has it (strconv.Quote)."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in command)


def _state(container: Container) -> str:
    if container.state == "running":
        return f"Up {_age(container.started)}"
    if container.state == "exited":
        return f"Exited ({container.exit_code}) {_age(container.finished)} ago"
    return "Created"


def _age(then: Moment) -> str:
    """As the docker client has it (go-units, HumanDuration)."""
    seconds = int(then.age_s)
    for size, one, many in (
        (86400, "24 hours", "days"), (3600, "About an hour", "hours"),
        (60, "About a minute", "minutes"),
    ):  # fmt: skip
        if seconds >= size:
            number = seconds // size
            return one if number == 1 else f"{number} {many}"
    if seconds < 1:
        return "Less than a second"
    return "1 second" if seconds == 1 else f"{seconds} seconds"


@_SUBCOMMANDS.named("exec")
def _exec(docker: Docker, typist: Typist) -> Outcome:
    options = Options(
        typist.words, "i interactive", "t tty", "d detach", "e env=", "w workdir=", "privileged",
        instead={"u user=": _INSTEAD_IN_RUN["u user="]}, anywhere=False,
    )  # fmt: skip
    if len(options.rest) < 2:
        raise RefusalError('"docker exec" requires at least 2 arguments.')
    name, *argv = options.rest
    container = docker.container(name)
    if container.state != "running":
        raise DockerError(
            f"Error response from daemon: container {container.id} is not running\n"
            + _why_not_running(container)
        )
    tty, interactive = "tty" in options, "interactive" in options
    if tty and interactive and not typist.terminal:
        raise RefusalError("the input device is not a TTY")
    env = dict(each.partition("=")[::2] for each in options.values("env"))
    folder = options.value("workdir") or "/"
    with Console(tty=tty, stdin=interactive) as console:
        descriptors = [] if "detach" in options else console.attach(once=True)
        try:
            process = container.open_program(argv, console, env=env, folder=folder)
        except (CapabilityError, CommandError) as error:
            missing = isinstance(error, CapabilityError)
            why = "executable file not found in $PATH: unknown" if missing else "permission denied"
            raise DockerError(
                "OCI runtime exec failed: exec failed: unable to start container process: exec: "
                f'"{argv[0]}": {why}',
                exit_code=127 if missing else 126,
            ) from error
    if "detach" in options:
        return 0
    return Attached(Attachable(process, console), descriptors, interactive=interactive)


@_SUBCOMMANDS.named("attach")
def _attach(docker: Docker, typist: Typist) -> Outcome:
    options = Options(typist.words, "no-stdin", "sig-proxy=")
    _require(options.rest, "attach")
    container = docker.container(options.rest[0])
    if container.state != "running":
        raise DockerError(
            "You cannot attach to a stopped container, start it first\n"
            + _why_not_running(container)
        )
    return _attached(container, interactive="no-stdin" not in options)


def _attached(container: Container, *, interactive: bool = True) -> Attached:
    if container.program is None:
        raise DockerError(
            f"docker: {container.short_name} was started without a program and a terminal; "
            f"go in by: docker exec -it {container.short_name} sh"
        )
    found = container.program.console.attach()
    interactive = interactive and container.interactive
    return Attached(container.program, found, interactive=interactive)


# -- looking ---------------------------------------------------------------------------------------


@_SUBCOMMANDS.named("logs")
def _logs(docker: Docker, typist: Typist) -> None:
    options = Options(
        typist.words,
        instead={
            "f follow": "docker attach NAME shows what is printed from now on",
            "n tail=": "docker logs NAME | tail",
            "t timestamps": "docker inspect NAME says when it was started",
        },
    )
    _require(options.rest, "logs")
    container = docker.container(options.rest[0])
    if container.program is not None:
        for stream, data in container.program.console.log():
            shown = typist.out if stream == "out" else typist.err
            shown(data.decode(errors="replace"))


@_SUBCOMMANDS.named("inspect")
def _inspect(docker: Docker, typist: Typist) -> Outcome:
    options = Options(typist.words, "f format=", "type=")
    _require(options.rest, "inspect")
    found, status = [], 0
    for name in options.rest:
        try:
            found.append(describe(docker, docker.container(name)))
        except DockerError:
            if name == "bridge":
                found.append(describe_network(docker))
                continue
            typist.err(f"Error: No such object: {name}\n")
            status = 1
    _print_objects(typist, found, options.value("format"))
    return status


def _print_objects(
    typist: Typist, found: Sequence[Mapping[str, Any]], template: str | None
) -> None:
    if template is None:
        typist.out(json.dumps(found, indent=4) + "\n")
        return
    for each in found:
        typist.out(filled(template, each) + "\n")


#: {{.A.B}}, {{json .A}}, and {{range .A}}…{{end}}, the part of Go's text/template that people use.
_RANGE = re.compile(
    r"\{\{\s*range\s+(?:\$\w+\s*,\s*\$\w+\s*:=\s*)?(\.[\w.]*)\s*\}\}"  # $key, $value := .Where
    r"(.*?)\{\{\s*end\s*\}\}"
)
_FIELD = re.compile(r"\{\{\s*(json\s+)?(\.[\w.]*)\s*\}\}")
#: Characters of a template.  The end of a range is looked for to the end of the line, from each
#: beginning anew; and no other thread of pid 1 runs while a regular expression is at work.
_LONGEST_TEMPLATE = 4096


def filled(template: str, about: Any) -> str:
    """A template of `--format`, filled in; RefusalError where it asks for more than that."""

    if len(template) > _LONGEST_TEMPLATE:
        raise RefusalError(f"template: longer than {_LONGEST_TEMPLATE:,} characters")

    def look_up(path: str) -> Any:
        value = about
        for key in filter(None, path.split(".")):
            if not isinstance(value, Mapping) or key not in value:
                raise RefusalError(f"template: there is no {path}")
            value = value[key]
        return value

    def repeat(match: re.Match[str]) -> str:
        many = look_up(match[1])
        each = many.values() if isinstance(many, Mapping) else many
        if isinstance(each, str) or not isinstance(each, Iterable):
            raise RefusalError(f"template: range can't iterate over {match[1]}")
        return "".join(filled(match[2], one) for one in each)

    def fill(match: re.Match[str]) -> str:
        value = look_up(match[2])
        if match[1]:
            return json.dumps(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    text = _RANGE.sub(repeat, template)
    if "{{" in _FIELD.sub("", text):
        raise RefusalError(f"template: only {{{{.A.B}}}}, json and range are emulated: {template}")
    return _FIELD.sub(fill, text)


def describe(docker: Docker, container: Container) -> dict[str, Any]:
    """A container as `docker inspect` has it: those fields that mean something here."""
    address = container.interface_address
    on_network = {
        "Gateway": docker.gateway if address else "",
        "IPAddress": str(address.ip) if address else "",
        "IPPrefixLen": address.network.prefixlen if address else 0,
        "MacAddress": container.mac if address else "",
    }
    networks = {"bridge": {"NetworkID": docker.network_id, **on_network}}
    program = container.program
    return {
        "Id": container.id,
        "Created": container.created.date.isoformat(),
        "Path": container.command[0] if container.command else "",
        "Args": list(container.command[1:]),
        "State": {
            "Status": container.state,
            "Running": container.state == "running",
            "Pid": program.process.pid if program and container.state == "running" else 0,
            "ExitCode": container.exit_code,
            "StartedAt": container.started.date.isoformat(),
            "FinishedAt": container.finished.date.isoformat(),
        },
        "Image": container.image,
        "Name": f"/{container.short_name}",
        "HostConfig": {
            "NetworkMode": "bridge",
            "AutoRemove": container.auto_remove,
            "RestartPolicy": {"Name": container.restart_policy, "MaximumRetryCount": 0},
        },
        "Config": {
            "Hostname": container.hostname,
            "Tty": container.tty,
            "OpenStdin": container.interactive,
            "Env": [f"{key}={value}" for key, value in container.env.items()],
            "Cmd": list(container.command),
            "Image": container.image,
        },
        "NetworkSettings": {**on_network, "Networks": networks},
    }


def describe_network(docker: Docker) -> dict[str, Any]:
    """The network as `docker network inspect bridge` has it."""
    pool = {"Subnet": docker.subnet, "Gateway": docker.gateway}
    if docker.options.fixed_cidr:
        pool["IPRange"] = docker.options.fixed_cidr
    return {
        "Name": "bridge",
        "Id": docker.network_id,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [pool]},
        "Internal": False,
        "Containers": {
            each.id: {
                "Name": each.short_name,
                "MacAddress": each.mac,
                "IPv4Address": str(each.interface_address),
                "IPv6Address": "",
            }
            for each in docker.containers
        },
        "Options": {
            "com.docker.network.bridge.name": docker.bridge,
            "com.docker.network.driver.mtu": str(docker.options.mtu),
        },
    }


#: Of a host.  Docker has "host" and "none" besides, which no container could join here.
_ONE_NETWORK = (
    "docker network ls shows the one there is, bridge. For another subnet or bridge put --bip or "
    "-b behind ExecStart in /lib/systemd/system/docker.service, then type systemctl daemon-reload, "
    "and systemctl restart docker"
)


@_SUBCOMMANDS.named("network")
def _network(docker: Docker, typist: Typist) -> None:
    match list(typist.words):
        case ["ls" | "list", *words]:
            options = Options(words, "q quiet", "no-trunc")
            identity = docker.network_id if "no-trunc" in options else docker.network_id[:12]
            heads = ("NETWORK ID", "NAME", "DRIVER", "SCOPE")
            rows = table([heads, (identity, "bridge", "bridge", "local")])
            typist.out(f"{identity}\n" if "quiet" in options else rows)
        case ["inspect", *words]:
            options = Options(words, "f format=")
            _require(options.rest, "network inspect")
            for name in options.rest:
                if name not in ("bridge", docker.network_id, docker.network_id[:12]):
                    raise DockerError(f"[]\nError response from daemon: network {name} not found")
            _print_objects(typist, [describe_network(docker)], options.value("format"))
        case words:
            verb = " ".join(["network", *words[:1]])
            raise RefusalError(f"{verb} is not emulated, but ls and inspect: {_ONE_NETWORK}")


@_SUBCOMMANDS.named("images")
def _images(docker: Docker, typist: Typist) -> None:
    """The names that containers were started by; nothing is stored for any of them."""
    options = Options(typist.words, "a all", "q quiet", "no-trunc")
    used: dict[tuple[str, str], Moment] = {}
    made = [(each.image, each.created) for each in docker.in_host_network()]
    made += [(each.image, each.created) for each in docker.all_containers]
    for image, created in made:
        used.setdefault(_repository(image), created)
    rows = [("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")]
    for (name, tag), first in sorted(used.items(), key=lambda item: -item[1].at_s):
        if not options.rest or options.rest[0] in (name, f"{name}:{tag}"):
            digest = hashlib.sha256(f"{name}:{tag}".encode(errors="replace")).hexdigest()
            shown = f"sha256:{digest}" if "no-trunc" in options else digest[:12]
            rows.append((name, tag, shown, f"{_age(first)} ago", "0B"))
    quiet = "".join(f"{identity}\n" for _, _, identity, *_ in rows[1:])
    typist.out(quiet if "quiet" in options else table(rows))


def _repository(image: str) -> tuple[str, str]:
    """Name and tag: "registry:5000/ubuntu" has a port, and the tag "latest"."""
    name, _, digest = image.partition("@")
    head, _, tag = name.rpartition(":")
    if head and "/" not in tag:
        return head, tag
    return name, "<none>" if digest else "latest"


@_SUBCOMMANDS.named("pull")
def _pull(_: Docker, typist: Typist) -> None:
    _require(list(typist.words), "pull")
    typist.out(f"{typist.words[-1]}: nothing to pull, containers run this machine's own programs\n")


@_SUBCOMMANDS.named("version")
def _version(docker: Docker, typist: Typist) -> None:
    typist.out(f"Docker version {docker.options.version}, emulated by xlab\n")


def _require(names: Sequence[str], verb: str) -> None:
    if not names:
        raise RefusalError(f'"docker {verb}" requires at least 1 argument.')
