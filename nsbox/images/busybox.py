"""Makes a tree of one static busybox and its applets."""

import os
import struct
import subprocess

from ..errors import NsboxError
from . import command, entries, tree
from .command import LineHandler

_INSTALL = "apt-get update && apt-get install busybox-static"
FETCH = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "busybox-static"]
LOOKING, FETCHING, LINKING = "looking for a static busybox", "downloading busybox-static", "linking the applets"
_PT_INTERP = 3  # elf(5): the program asks for a dynamic loader
_FOLDERS = (
    *("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "lib", "etc", "home", "mnt", "opt"),
    *("proc", "sys", "dev", "run", "var/lib", "var/log", "var/spool"),
)


def make(place: entries.Workplace, step: LineHandler) -> None:
    """Make the tree in place.entry/rootfs.

    Raises:
        NsboxError: there is no static busybox, and none can be fetched.
    """
    step(LOOKING)
    program = installed() or _fetched(place, step)
    root = os.path.join(place.entry, "rootfs")
    os.mkdir(root)
    os.chmod(root, 0o755)
    for folder in _FOLDERS:
        tree.make_dir(root, folder)
    tree.make_dir(root, "root", 0o700)
    for folder in ("tmp", "var/tmp"):
        tree.make_dir(root, folder, 0o1777)
    step(LINKING)
    with open(program, "rb") as file:
        tree.put_file(root, "bin/busybox", file.read(), 0o755)
    for path in _applets(program, place):
        # Relative, so that it leads to the same file when looked at from outside.
        tree.put_link(root, path, os.path.relpath("bin/busybox", os.path.dirname(path)))


def is_static(path: str) -> bool:
    """Tell whether the file is an ELF program that needs no loader. See elf(5)."""
    try:
        with open(path, "rb") as file:
            data = file.read(64 * 1024)  # the program headers follow the ELF header
        return data[:4] == b"\x7fELF" and _PT_INTERP not in _segment_types(data)
    except (OSError, struct.error, LookupError):
        return False


def _segment_types(data: bytes) -> list[int]:
    order = {1: "<", 2: ">"}[data[5]]
    if data[4] == 2:  # ELFCLASS64
        (offset,) = struct.unpack_from(order + "Q", data, 32)
        size, count = struct.unpack_from(order + "HH", data, 54)
    else:
        (offset,) = struct.unpack_from(order + "I", data, 28)
        size, count = struct.unpack_from(order + "HH", data, 42)
    return [struct.unpack_from(order + "I", data, offset + i * size)[0] for i in range(count)]


def installed() -> str:
    """A static busybox on the path, or ""."""
    found = command.find("busybox")
    return found if found and is_static(found) else ""


def _fetched(place: entries.Workplace, step: LineHandler) -> str:
    """Download Debian's package and unpack it in the scratch directory; needs no root."""
    why = why_not(place.name)
    step(FETCHING)
    folder = os.path.join(place.work, "deb")
    os.mkdir(folder)
    said: list[str] = []
    _tool(FETCH, place, said, folder)
    packages = [name for name in os.listdir(folder) if name.endswith(".deb")]
    if packages:
        _tool(unpack(packages[0]), place, said, folder)
    program = os.path.join(folder, "unpacked", "bin", "busybox")
    if not is_static(program):
        reason = next((line for line in said if line.startswith("E: ")), "the download failed")
        raise NsboxError(f"{why}: {reason.removeprefix('E: ')}", hint=_INSTALL)
    return program


def why_not(name: str) -> str:
    """The beginning of what to say where none can be had. Raises NsboxError: none can even be fetched."""
    why = f"cannot build rootfs '{name}': no static busybox here"
    if not command.find("apt-get") or not command.find("dpkg-deb"):
        raise NsboxError(why, hint="install busybox-static, or a busybox built static, on the PATH")
    return why


def unpack(package: str) -> list[str]:
    """What takes a package apart."""
    return ["dpkg-deb", "-x", package, "unpacked"]


def _tool(argv: list[str], place: entries.Workplace, said: list[str], cwd: str) -> None:
    env = command.environment(TMPDIR=place.work)
    command.run(argv, env, place.lock_fd, said.append, cwd=cwd, own_world=False)


def list_applets(program: str) -> list[str]:
    """What tells the applets of a busybox."""
    return [program, "--list-full"]


def _applets(program: str, place: entries.Workplace) -> list[str]:
    """Paths of the applets below the root, as the program itself wants them placed."""
    done = subprocess.run(
        list_applets(program), env=command.environment(), cwd=place.work, text=True,
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )
    paths = [line for line in done.stdout.splitlines() if line and line != "bin/busybox"]
    if "bin/sh" not in paths or any(".." in path or path.startswith("/") for path in paths):
        raise NsboxError(f"cannot build rootfs '{place.name}': {program} lists no usable applets")
    return [path for path in paths if "/" in path]
