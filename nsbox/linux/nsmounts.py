"""Bind mounts of namespaces: `ip netns add`, `unshare --net=FILE` and container runtimes make them."""

import os

from . import mounts, nsfs
from .mounts import MountEntry


def of_process(pid: int) -> list[MountEntry]:
    """Those that a process sees; `root` is the namespace, as "net:[4026531840]".

    Raises:
        OSError: the process has ended, or is somebody else's.
    """
    with open(f"/proc/{pid}/mountinfo", "rb", buffering=0) as file:
        raw = file.read()
    if b" - nsfs " not in raw:  # most see none, and hundreds of others
        return []
    return [entry for entry in mounts.read_mountinfo(pid) if entry.fstype == "nsfs"]


def open_mount(pid: int, target: str) -> int:
    """A descriptor of the namespace that `pid` sees mounted at `target`.

    Raises:
        OSError: it cannot be reached, or something else is mounted above it (ENOTTY).
    """
    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = mounts.open_in_root(root_fd, target, os.O_PATH, symlinks=False)
    finally:
        os.close(root_fd)
    try:
        return nsfs.open_handle(handle)
    finally:
        os.close(handle)
