"""Attributes of a process that prctl(2) knows, and its user and groups.

The only user of python-prctl.
"""

import os
import signal

import prctl  # type: ignore[import-untyped]

from typing import Callable, TypeVar

from ..linux import process

T = TypeVar("T")


def die_with_parent(parent_pidfd: int) -> None:
    """Have the kernel kill the caller when its parent ends. See PR_SET_PDEATHSIG in prctl(2).

    A change of user clears the setting, so it comes after that.

    Args:
        parent_pidfd: of the parent, which may have ended before the setting took effect.
    """
    prctl.set_pdeathsig(signal.SIGKILL)
    if process.has_ended(parent_pidfd):
        os._exit(process.EXIT_SETUP_FAILED)


def hide_from_others() -> None:
    """Keep others from looking into the caller through /proc until it calls execve(2).

    See PR_SET_DUMPABLE in prctl(2) and "ptrace access mode checking" in ptrace(2).
    """
    prctl.set_dumpable(0)


def show_to_own_user() -> None:
    """Let the caller's user look into /proc/PID again, the caller itself first of all.

    A change of user closes that. See PR_SET_DUMPABLE in prctl(2).
    """
    prctl.set_dumpable(1)


def set_name(name: str) -> None:
    """The name that ps(1) shows, at most 15 bytes. See PR_SET_NAME in prctl(2)."""
    prctl.set_name(name)


def hide_arguments(name: bytes) -> None:
    """Overwrite what /proc/PID shows as the caller's arguments and environment.

    Until it calls execve(2): os.environ.clear() leaves that memory as it is. Where the kernel lets
    nobody but root look already, and so not the caller either, it stays.
    See arg_start to env_end in proc_pid_stat(5).

    Args:
        name: what is shown as its one argument, cut to the room there is.
    """
    arg_start, arg_end, env_start, env_end = map(int, process.stat_fields("self")[45:49])
    try:
        mem_fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.pwrite(mem_fd, bytes(env_end - env_start), env_start)
        room = arg_end - arg_start
        os.pwrite(mem_fd, name[: room - 1].ljust(room, b"\0"), arg_start)
    finally:
        os.close(mem_fd)


def read_as_others_do() -> None:
    """Let root too execute a file that it may not read, and so be hidden while it does.

    Until the next execve(2), which gives the two rights back. The kernel lets nobody look into a
    process whose program its user could not have read. See capabilities(7), PR_SET_DUMPABLE in prctl(2).
    """
    prctl.cap_effective.drop("dac_override", "dac_read_search")


def drop_groups(proc_fd: int | None = None) -> None:
    """Leave the caller's supplementary groups behind. See setgroups(2).

    In a user namespace that denies setgroups(2) they cannot be dropped, and must not be:
    a group may be what a file's mode denies something to. Nor in one that maps no group yet.
    See user_namespaces(7).

    Args:
        proc_fd: a /proc that the caller is in, if that is not so of the one at /proc.
    """
    try:
        os.setgroups([])
    except PermissionError:
        if os.getgroups() and _read("setgroups", proc_fd) != b"deny" and _read("gid_map", proc_fd):
            raise


def become(uid: int, gid: int) -> None:
    """Be another user of the user namespace that the caller is in, which knows it. See user_namespaces(7)."""
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def acting_for(uid: int, gid: int, action: Callable[[], T]) -> T:
    """Do `action` with another effective user, but with root's rights: what is made is the user's.

    Real and saved user stay root's, so the user can neither signal nor trace us meanwhile.
    Only for root, in a process with one thread.
    """
    old_gid = os.getegid()
    hide_from_others()
    os.setegid(gid)
    try:
        os.seteuid(uid)
        prctl.cap_effective.sys_admin = True  # where the machine forbids user namespaces to users
        return action()
    finally:
        os.seteuid(0)
        os.setegid(old_gid)


def _read(name: str, proc_fd: int | None) -> bytes:
    """A file of ours in /proc; nothing where the /proc here is that of another PID namespace.

    As bytes: the decoder would be imported, by now from the pod's root.
    """
    try:
        path = f"/proc/self/{name}" if proc_fd is None else f"self/{name}"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096).strip()
    finally:
        os.close(fd)
