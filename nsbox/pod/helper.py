"""A helper process that serves one pod: who it is stands in a file of the pod's directory.

It ends with the pod. A number in a file is never trusted: see process.Identity.
"""

import os
import signal
from contextlib import suppress

from ..linux import process
from .files import CorruptFile, read_json, write_json

_END_S = 5.0


def remember(dir_fd: int, file: str, pid: int) -> None:
    """Write down that `pid` is the helper. Raises OSError: it has ended, or the disk is full."""
    write_json(dir_fd, file, {"helper": list(process.identify(pid))})


def written(dir_fd: int, file: str) -> process.Identity | None:
    """Who is written down, running or not."""
    try:
        boot_id, pid, start_time = read_json(dir_fd, file)["helper"]
        return process.Identity(str(boot_id), int(pid), int(start_time))
    except (FileNotFoundError, CorruptFile, KeyError, TypeError, ValueError):
        return None


def find(dir_fd: int, file: str) -> int | None:
    """A pidfd of the helper, or None if it does not run."""
    try:
        who = written(dir_fd, file)
        return None if who is None else process.open_process(who)
    except ProcessLookupError:
        return None


def runs(dir_fd: int, file: str) -> bool:
    """Whether the helper is alive."""
    pidfd = find(dir_fd, file)
    if pidfd is not None:
        os.close(pidfd)
    return pidfd is not None


def end(dir_fd: int, file: str) -> None:
    """Kill the helper, if it runs, and forget it."""
    pidfd = find(dir_fd, file)
    if pidfd is not None:
        process.send_signal(pidfd, signal.SIGKILL)
        process.has_ended(pidfd, _END_S)
        os.close(pidfd)
    with suppress(FileNotFoundError):
        os.unlink(file, dir_fd=dir_fd)
