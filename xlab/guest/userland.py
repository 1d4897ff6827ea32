"""The guest's own user land: a tree of files made of packages, and the archive it boots from.

    packages ── dpkg-deb ── CACHE/PACKAGES/tree ──┐
                                                  ├── archive (initramfs, "newc") ── the guest's /
    xlab's own modules, compiled ─────────────────┘

No maintainer script runs: what those would do that matters is done here.  The same files give the
same bytes, whoever makes them and when: owners, times and inode numbers are not the disk's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from xlab.errors import XlabError
from xlab.guest import packages
from xlab.guest.packages import Parts
from xlab.kernel import shipped

#: What only people read, or nobody: it would be copied into the guest's memory at each boot.
_UNREAD = (
    *("boot", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"),
    *("usr/share/lintian", "usr/share/bash-completion", "usr/share/bug", "usr/share/zsh"),
    *("usr/share/perl", "usr/share/perl5", "usr/share/i18n", "usr/lib/x86_64-linux-gnu/gconv"),
    *("usr/include", "usr/games", "usr/lib/python3.13/test", "usr/lib/python3.13/pydoc_data"),
)
#: What an installed package would have update-alternatives(1) and others link.
_LINKS = {
    "usr/bin/sh": "dash",
    "usr/sbin/iptables": "xtables-nft-multi",
    "usr/sbin/iptables-save": "xtables-nft-multi",
    "usr/sbin/iptables-restore": "xtables-nft-multi",
    "usr/sbin/ovs-vswitchd": "../lib/openvswitch-switch/ovs-vswitchd",
    "usr/bin/python3": "python3.13",
    # Of numpy's, by which the weave router cuts up segments.
    "usr/lib/x86_64-linux-gnu/libblas.so.3": "blas/libblas.so.3",
    "usr/lib/x86_64-linux-gnu/liblapack.so.3": "lapack/liblapack.so.3",
}
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "guest\n",
    "etc/resolv.conf": "",
}
_FOLDERS = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "mnt",
    "opt",
    "var/log",
    "etc/skel",
    "modules",
)
_PYTHON = "usr/lib/python3/dist-packages"
#: Loaded before any work begins: what a machine with these methods in use has.
_MODULES = (
    *("openvswitch", "vport-gre", "vport-vxlan", "vport-geneve", "ip_gre", "vxlan"),
    *("sch_netem", "sch_htb", "sch_tbf", "ifb", "veth", "bridge", "tun", "overlay"),
    *("br_netfilter", "nf_tables", "nft_compat", "nft_chain_nat", "xt_MASQUERADE", "xt_conntrack"),
    *("xt_addrtype", "xt_tcpudp", "xt_comment", "xt_nat", "xt_mark", "iptable_nat"),
    *("iptable_filter", "cls_u32", "cls_matchall", "act_mirred", "sch_ingress"),
)
_UNPACK = """
import lzma, pathlib, sys
for file in map(pathlib.Path, sys.argv[1:]):
    file.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
    file.unlink()
"""
#: Where ours is in the guest, and which rooms of it the work there imports.
OURS = "opt"
_ROOMS = ("experiments", "faults", "guest", "inside", "kernel", "lab", "probes", "record")
_MORE_ROOMS = ("sandbox", "scenario", "weave", "__init__.py", "errors.py")


_INIT = Path(__file__).with_name("frozen_init.sh")


def recipe() -> str:
    """By which packages become a tree: another recipe, another tree."""
    return digest_of([("init", _INIT), ("unpack", Path(__file__))])


def unpack(files: Sequence[Path], tree: Path) -> None:
    """Make the tree of packages' files; `vmlinuz` stands beside it."""
    tree.mkdir()
    for file in sorted(files):
        _run("dpkg-deb", "-x", file, tree)
    (kernel,) = tree.glob("boot/vmlinuz-*")
    kernel.rename(tree.with_name("vmlinuz"))
    _unpack_modules(tree)
    for folder in _UNREAD:
        shutil.rmtree(tree / folder, ignore_errors=True)
    for folder in _FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for name, target in _LINKS.items():
        (tree / name).unlink(missing_ok=True)
        (tree / name).symlink_to(target)
    for name, text in _TEXTS.items():
        (tree / name).unlink(missing_ok=True)
        (tree / name).write_text(text)
    for name, file in packages.python_files():
        place = tree / _PYTHON / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    init = tree / "init"
    shutil.copyfile(_INIT, init)
    init.chmod(0o755)
    _in_tree(tree, None, "ldconfig")
    # By the inode numbers of this disk.
    shutil.rmtree(tree / "var/cache/ldconfig", ignore_errors=True)
    _compile(tree, None, "/usr/lib/python3.13", f"/{_PYTHON}")


def _unpack_modules(tree: Path) -> None:
    """Those we need and what they need, in the order of loading: xz takes long under emulation.

    By the guest's own kmod and Python: a container of Debian has neither kmod nor xz.
    """
    (modules,) = (tree / "usr/lib/modules").iterdir()
    _in_tree(tree, None, "depmod", modules.name)
    listed = ("-S", modules.name, "-a", "--show-depends", *_MODULES)
    shown = _in_tree(tree, None, "modprobe", *listed)
    wanted = dict.fromkeys(
        tree / line.split()[1].lstrip("/")
        for line in shown.splitlines()
        if line.startswith("insmod ")
    )
    # It answers to what is asked for after a virtual machine's work has begun.
    (fw_cfg,) = modules.rglob("qemu_fw_cfg.ko*")
    (tree / "modules").mkdir()
    for file in [*wanted, fw_cfg]:
        shutil.copyfile(file, tree / "modules" / file.name)
    packed = [f"/modules/{file.name}" for file in [*wanted, fw_cfg] if file.suffix == ".xz"]
    # -B: what is compiled is compiled below, in one way.
    _in_tree(tree, None, "python3.13", "-P", "-S", "-B", "-c", _UNPACK, *packed)
    names = [file.name.removesuffix(".xz") for file in wanted]
    (tree / "modules/order").write_text("\n".join(names) + "\n")
    shutil.rmtree(modules.parent)


def our_files() -> list[tuple[str, Path]]:
    """Of xlab what the work in a guest imports, as (path below `OURS`, file), in order."""
    package, scenarios = shipped.PACKAGE, shipped.find("scenarios")
    assert scenarios is not None
    found = [(f"xlab/{name}", package / name) for name in (*_ROOMS, *_MORE_ROOMS)]
    files = [(path, file) for path, file in found if file.is_file()]
    for path, folder in [*found, ("scenarios", scenarios)]:
        inner = sorted(folder.rglob("*")) if folder.is_dir() else ()
        files += [
            (f"{path}/{file.relative_to(folder)}", file)
            for file in inner
            if file.suffix in (".py", ".json", ".sh")
        ]
    return sorted(files)


def digest_of(files: Sequence[tuple[str, Path]]) -> str:
    found = hashlib.sha256()
    for path, file in files:
        found.update(f"{path}\0{file.stat().st_size}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_archive(
    tree: Path, files: Sequence[tuple[str, Path]], scratch: Path, out: BinaryIO
) -> None:
    """The initramfs: the tree with our files, compiled by the guest's own Python in `scratch`."""
    for path, file in files:
        place = scratch / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    _compile(tree, scratch, f"/{OURS}")
    entries = [*_below(tree), *((f"{OURS}/{path}", file) for path, file in _below(scratch))]
    for number, (path, file) in enumerate(sorted(entries), 1):
        _write_entry(out, number, path, file)
    _write_header(out, 0, "TRAILER!!!", 0, 0)


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            file = Path(parent, name)
            yield str(file.relative_to(folder)), file


def _write_entry(out: BinaryIO, number: int, path: str, file: Path) -> None:
    facts = file.lstat()
    if stat.S_ISLNK(facts.st_mode):
        content, mode = str(file.readlink()).encode(), stat.S_IFLNK | 0o777
    elif stat.S_ISREG(facts.st_mode):
        # What the disk of whoever made it adds or takes away is not told.
        executable = facts.st_mode & 0o100
        content, mode = file.read_bytes(), stat.S_IFREG | (0o755 if executable else 0o644)
    else:
        content, mode = b"", stat.S_IFDIR | (0o1777 if path == "tmp" else 0o755)
    _write_header(out, number, path, mode, len(content))
    out.write(content + b"\0" * (-len(content) % 4))


def _write_header(out: BinaryIO, number: int, path: str, mode: int, size: int) -> None:
    """Of an entry of a "newc" archive (see the kernel's early-userspace), root's and of 1970."""
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out.write(header + b"\0" * (-len(header) % 4))


def _compile(tree: Path, ours: Path | None, *folders: str) -> None:
    """By the guest's own Python: what another compiles differs, and it takes long under emulation.

    Unchecked: the files have no times.  Some of setuptools' are no Python that compiles.
    """
    _in_tree(
        tree,
        ours,
        *("python3.13", "-P", "-S", "-m", "compileall", "-q", "-s", "/"),
        *("--invalidation-mode", "unchecked-hash", *folders),
        check=False,
    )


def _in_tree(tree: Path, ours: Path | None, *argv: str, check: bool = True) -> str:
    """Run a program of the tree with the tree as its root; returns what it printed."""
    bound = f'mount --bind "$2" "$1/{OURS}" && ' if ours else ""
    script = f'{bound}root=$1 && shift 2 && exec chroot "$root" "$@"'
    return _run(
        *("unshare", "--user", "--map-root-user", "--mount", "--"),
        *("sh", "-c", script, "sh", tree, ours or "", *argv),
        check=check,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "PYTHONHASHSEED": "0"},
    )


def _run(*argv: str | Path, check: bool = True, env: dict[str, str] | None = None) -> str:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        env=env or {**os.environ, "PATH": path},
    )
    if check and done.returncode != 0:
        tail = done.stderr.strip()[-500:]
        raise XlabError(f"the virtual clock's guest can't be made: {argv[0]}: {tail}")
    return done.stdout


def as_parts(fetched: Sequence[packages.Package], qemu: str) -> Parts:
    """What a guest made of these packages is."""
    plan = packages.locked()
    return Parts(
        qemu=qemu,
        machine=plan.machine,
        processor=plan.processor,
        memory_mib=plan.memory_mib,
        packages=tuple(fetched),
        python_packages=packages.python_packages(),
    )
