"""Run a command as root on a stock Debian kernel, in a throw-away QEMU guest.

    this machine                            guest (no network card)
    /  --- virtiofsd, read-only ---------->  /lower \\
                                             tmpfs   } overlay: the same paths, tools and files;
    stdout, stderr, status  <-- virtio ports -       /  whatever is written is gone afterwards

Open vSwitch's kernel datapath, netem and GRE are absent from many a machine that runs the tests,
and loading modules is not ours to do.  The guest's kernel comes from Debian's cloud package,
unpacked into a cache folder and never installed; it runs on TCG, QEMU's emulation, because that
works everywhere: Python is 5 to 10 times slower in it, and starting a program 10 to 15 times.
Its clock counts instructions while it runs, and real time while it waits: whatever else this
machine does, ten seconds of patience in there are as much work as ever.

    python -m xlab.guest [--memory MIB] [--limit SECONDS] [--verbose] -- COMMAND...
    python -m xlab.guest --renew-lock   pin, for the virtual clock's guest, what apt has now
    python -m xlab.guest --check        whether this machine can, having fetched the kernel

Exit status: that of COMMAND; 3 this machine can't (the reason is on stderr); 124 the limit was
reached, in which waiting for a processor does not count; 70 the guest ended without a result.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from xlab.errors import CapabilityError, DeadlineError
from xlab.guest import packages
from xlab.kernel import signals
from xlab.kernel.processes import wait_until

CANNOT, CRASHED, TIMED_OUT = 3, 70, 124

#: Where the programs are: COMMAND and the package of Debian and Ubuntu that has it.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "/usr/libexec/virtiofsd": "virtiofsd",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "xz": "xz-utils",
    "setpriv": "util-linux",
}
#: Loaded before COMMAND starts, so that it finds what a machine with these methods in use has.
MODULES = (
    *("openvswitch", "vport-gre", "vport-vxlan", "vport-geneve", "ip_gre", "vxlan"),
    *("sch_netem", "sch_htb", "sch_tbf", "ifb", "veth", "bridge", "tun"),
)
#: What of the environment goes along; the rest of this machine's has no meaning in the guest.
ENVIRONMENT = ("PATH", "LANG", "HOME", "CI", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")

#: Options of the guest's kernel, each with its reason.
KERNEL_OPTIONS = (
    "console=hvc0",  # the virtio console: a serial port would be emulated byte by byte
    "panic=-1",  # restart at once, which -no-reboot turns into QEMU's end
    "quiet",
    "loglevel=4",
    "mitigations=off",  # guards against speculation cost much and have nothing to guard on TCG
    "nokaslr",  # one relocation less
    "tsc=reliable",  # else the clock watchdog, starved on a busy machine, takes a slow clock
    "random.trust_cpu=on",  # else early readers of random numbers wait for entropy
    "net.ifnames=0",
)


def main() -> int:
    options = arguments()
    # A shell's background jobs ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    try:
        missing = [f"{p} (package {d})" for p, d in PROGRAMS.items() if not shutil.which(p)]
        if missing:
            raise CapabilityError(f"missing: {', '.join(missing)}")
        kernel = stock_kernel()
        if options.check:
            return 0
        if options.renew_lock:
            with tempfile.TemporaryDirectory() as folder:
                packages.renew(Path(folder))
            return 0
        return boot(kernel, options)
    except CapabilityError as error:
        _say(str(error))
        return CANNOT
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _say(text: str) -> None:
    sys.stderr.write(f"guest: {text}\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a command on a stock kernel, in a guest.")
    parser.add_argument("--check", action="store_true", help="only say whether this machine can")
    parser.add_argument("--renew-lock", action="store_true", help="pin what apt has now")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    parser.add_argument("--limit", type=float, default=900.0, metavar="SECONDS")
    parser.add_argument("--verbose", action="store_true", help="the guest's console on stderr")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not (options.command or options.check or options.renew_lock):
        parser.error("no command")
    return options


# ------------------------------------------------------------------------------------- the kernel


def stock_kernel() -> Path:
    """The folder with a Debian cloud kernel's boot/ and usr/lib/modules/, fetched on first use."""
    if platform.machine() != "x86_64":
        raise CapabilityError(f"no guest kernel for {platform.machine()}, only for x86_64")
    cache = cache_folder()
    kernel = cache / "guest-kernel"
    if not kernel.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".guest-kernel-", dir=cache) as scratch:
            fresh = Path(scratch) / "kernel"
            unpack_kernel(packages.kernel(), Path(scratch), fresh)
            # Another run may have been faster: rename() refuses a folder that is there, and either
            # kernel will do.
            with contextlib.suppress(OSError):
                fresh.rename(kernel)
    return kernel


def cache_folder() -> Path:
    home = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home) / "xlab"


def unpack_kernel(package: str, scratch: Path, kernel: Path) -> None:
    _say(f"fetching {package} (35 MB, once)")
    # apt's own sandbox user can't write to a private folder.
    fetched = subprocess.run(
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode != 0:
        raise CapabilityError(f"apt-get can't download {package}: {fetched.stderr.strip()}")
    (archive,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, kernel], check=True)
    # Modules are unpacked here once: xz takes long under emulation.
    packed = sorted(str(file) for file in kernel.rglob("*.ko.xz"))
    subprocess.run(
        ["xargs", "-0", "-n64", "xz", "-d"], input="\0".join(packed).encode(), check=True
    )
    # depmod looks below lib/.
    (kernel / "lib").symlink_to("usr/lib")
    (modules,) = (kernel / "usr/lib/modules").iterdir()
    subprocess.run(["depmod", "-b", kernel, modules.name], check=True)


# -------------------------------------------------------------------------------------- the guest


def boot(kernel: Path, options: argparse.Namespace) -> int:
    """Boot, run the command, pass its output through as it comes, and return its status."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xlab-guest-")))
        console, result = scratch / "console", scratch / "result"
        result.touch()
        log = stack.enter_context((scratch / "log").open("w+"))
        initramfs = pack_initramfs(kernel, scratch, options.command)
        files = stack.enter_context(file_server(scratch, log))
        out = stack.enter_context(pump(sys.stdout.fileno()))
        err = stack.enter_context(pump(sys.stderr.fileno()))
        (vmlinuz,) = kernel.glob("boot/vmlinuz-*")
        memory = f"{options.memory}M"
        argv = [
            "qemu-system-x86_64",
            *("-machine", "q35,usb=off"),
            # A large buffer for translated code: kernel and Python together outgrow the default.
            *("-accel", "tcg,thread=single,tb-size=512"),
            # A nanosecond an instruction.  By the processor's own counter the kernel, which finds
            # its rate while it boots, was seen to run 4.5 times too fast beside other work.
            *("-icount", "shift=0,align=off,sleep=on"),
            # Five-level page tables would make each emulated page walk longer.
            *("-cpu", "max,la57=off"),
            *("-smp", "1", "-m", memory),
            # virtiofs reads and writes the guest's memory from its own process: shared memory.
            *("-object", f"memory-backend-memfd,id=memory,size={memory},share=on"),
            *("-numa", "node,memdev=memory"),
            # Nothing that was not asked for; no network card above all.
            *("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-vga", "none"),
            "-no-reboot",
            *("-kernel", str(vmlinuz), "-initrd", str(initramfs)),
            *("-append", " ".join(KERNEL_OPTIONS)),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"file,id=console,path={console}"),
            *("-device", "virtconsole,chardev=console"),
            *port("stdout", f"/dev/fdset/{out}"),
            *port("stderr", f"/dev/fdset/{err}"),
            *port("result", str(result)),
            *("-add-fd", f"fd={out},set={out}", "-add-fd", f"fd={err},set={err}"),
            *("-chardev", f"socket,id=root,path={files}"),
            *("-device", "vhost-user-fs-pci,queue-size=1024,chardev=root,tag=root"),
        ]
        with child(argv, log, pass_fds=(out, err)) as qemu:
            # The guest's end of each pipe is QEMU's alone, so that its end closes the pipe.
            os.close(out)
            os.close(err)
            if not ends_within(qemu, options.limit):
                _say(f"not done within {options.limit:g} s")
                return TIMED_OUT
        told = result.read_text().strip()
        if options.verbose or not told:
            log.seek(0)
            sys.stderr.write(f"{tail(log.read())} {tail(console.read_text(errors='replace'))}\n")
        if not told:
            _say(f"ended without a result (QEMU: {qemu.returncode})")
            return CRASHED
        return int(told)


def ends_within(qemu: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Whether it does, not counting time in which it had something to do and no processor.

    Its clock does not see that time either.  Beside five that wanted two processors, a guest that
    had worked for 825 s had waited for 1,999.
    """
    try:
        wait_until(
            lambda: qemu.poll() is not None,
            timeout_s=limit_s,
            awaited="the guest's end",
            pid=qemu.pid,
        )
    except DeadlineError:
        return False
    return True


def port(name: str, path: str) -> Sequence[str]:
    """A byte channel out of the guest: `/sys/class/virtio-ports/*/name` there, a file here."""
    return (
        *("-chardev", f"file,id={name},path={path},append=on"),
        *("-device", f"virtserialport,chardev={name},name={name}"),
    )


@contextlib.contextmanager
def file_server(scratch: Path, log: IO[str]) -> Iterator[Path]:
    """Serve this machine's / read-only; yields the socket.  It listens before QEMU is started."""
    path = scratch / "root.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        argv = [
            "/usr/libexec/virtiofsd",
            f"--fd={listener.fileno()}",
            *("--shared-dir", "/", "--readonly"),
            # Its sandboxes need rights that an ordinary user and many a container lack; the guest
            # is ours, and the server runs as the caller and can write nothing.
            *("--sandbox", "none"),
            # The guest may keep what it has read: nothing changes beneath it that matters.
            *("--cache", "always"),
            # One file system to the guest, whatever is mounted here: mounts would each need care.
            "--no-announce-submounts",
            *("--log-level", "error"),
        ]
        with child(argv, log, pass_fds=(listener.fileno(),)):
            listener.close()
            yield path


@contextlib.contextmanager
def child(
    argv: Sequence[str], log: IO[str], pass_fds: Sequence[int]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that never outlives this one, however this one ends."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *argv],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def pump(target: int) -> Iterator[int]:
    """A pipe's writing end whose bytes go to descriptor `target`; the caller closes that end."""
    source, writing_end = os.pipe()

    def copy() -> None:
        while block := os.read(source, 65536):
            view = memoryview(block)
            while view:
                view = view[os.write(target, view) :]

    copier = threading.Thread(target=copy)
    signals.start_deaf(copier)
    try:
        yield writing_end
    finally:
        with contextlib.suppress(OSError):
            os.close(writing_end)
        copier.join()
        os.close(source)


def pack_initramfs(kernel: Path, scratch: Path, command: Sequence[str]) -> Path:
    """init.sh and what it needs until it has the root: busybox, the overlay module, the command."""
    tree = scratch / "initramfs"
    for folder in ("bin", "dev", "proc", "sys", "guest"):
        (tree / folder).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "main has looked"
    shutil.copy(busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    shutil.copy(Path(__file__).with_name("view_init.sh"), tree / "init")
    (tree / "init").chmod(0o755)
    (overlay,) = kernel.rglob("overlay.ko")
    shutil.copy(overlay, tree / "overlay.ko")
    shutil.copy(busybox, tree / "guest/busybox")
    shutil.copy(Path(__file__).with_name("view_inside.sh"), tree / "guest/inside.sh")
    (tree / "guest/modules").write_text("\n".join(MODULES) + "\n")
    (tree / "guest/kernel").write_text(f"{kernel}\n")
    (tree / "guest/command.sh").write_text(command_script(command))
    names = sorted(str(file.relative_to(tree)) for file in tree.rglob("*"))
    initramfs = scratch / "initramfs.cpio"
    with initramfs.open("wb") as archive:
        subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            cwd=tree,
            input="\n".join(names).encode(),
            stdout=archive,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    return initramfs


def command_script(command: Sequence[str]) -> str:
    """A shell script that runs `command` with this process's folder and its chosen environment."""
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    exported = {"HOME": "/root", **kept, "TERM": "dumb", "XLAB_GUEST": "1"}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exported.items()]
    lines += [f"cd {shlex.quote(str(Path.cwd()))} || exit 1", f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def tail(text: str) -> str:
    return "\n".join(text.splitlines()[-80:])
