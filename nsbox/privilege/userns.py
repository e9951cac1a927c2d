"""A user namespace with ranges of ids, made and mapped before anybody lives in it. See user_namespaces(7).

    caller                           keeper
      is the owner, effectively
      clone3(CLONE_NEWUSER) -------->  waits
      writes both maps, or has newuidmap and newgidmap do it
      opens /proc/PID/ns/user
      kills it, or is killed itself -> end of file: exits

What is open keeps the namespace.

Whoever owns it has every right in it from outside. So no process in it may be open to the owner while
it has anything of ours in its memory: the keeper is not dumpable, nor is who enters before an execve(2).
"""

import os
import signal
from typing import NoReturn

from ..errors import NsboxError
from ..idranges import IdMap, IdRange
from ..linux import process, syscalls, trouble
from ..linux.flags import CloneFlag
from ..spec import Owner
from . import attributes, idmaps

# Never by a PATH: they have rights of their own, and what stands in their place would have ours.
HELPERS = {"uid_map": "/usr/bin/newuidmap", "gid_map": "/usr/bin/newgidmap"}


def make(uids: IdMap, gids: IdMap, owner: Owner | None = None) -> int:
    """A descriptor of a new user namespace with these maps. Only for a process with one thread.

    Args:
        owner: whose it shall be instead of ours; only for root.

    Raises:
        NsboxError: the kernel refuses, or the two helper programs do.
    """
    hold_r, hold_w = os.pipe2(os.O_CLOEXEC)

    def start() -> int:
        pid = syscalls.clone3(CloneFlag.CLONE_NEWUSER, signal.SIGCHLD)
        return pid or _keep(hold_r, hold_w)

    try:
        try:
            pid = start() if owner is None else attributes.acting_for(*owner, start)
        except OSError as err:
            raise NsboxError("cannot make a user namespace", hint=trouble.advice(err)) from err
        keeper = process.Spawned(pid, os.pidfd_open(pid))
        try:
            write(pid, uids, gids)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            process.kill_and_reap(keeper)  # its owner may have stopped it: an end of file might not do
            os.close(keeper.pidfd)
    finally:
        os.close(hold_r)
        os.close(hold_w)


def _keep(hold_r: int, hold_w: int) -> NoReturn:
    """In the keeper, which never returns: our caller's handlers must not run here."""
    try:
        for signum in process.ENDING_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        os.close(hold_w)
        os.read(hold_r, 1)
    finally:
        os._exit(0)


def write(pid: int, uids: IdMap, gids: IdMap) -> None:
    """Give the new user namespace of `pid` its maps, each in one go, as the kernel wants it.

    An ordinary user may map one id, the own one, and must give up setgroups(2) for it: with it a
    group could be dropped to which a file's mode denies something. More ids need the two helpers,
    which allow what /etc/subuid and /etc/subgid give; then setgroups(2) stays.
    """
    if os.geteuid() == 0:
        idmaps.write_file(pid, "uid_map", _lines(uids))
        idmaps.write_file(pid, "gid_map", _lines(gids))
    elif _is_own(uids, os.geteuid()) and _is_own(gids, os.getegid()):
        idmaps.write_file(pid, "uid_map", _lines(uids))
        idmaps.write_file(pid, "setgroups", "deny")
        idmaps.write_file(pid, "gid_map", _lines(gids))
    else:
        check_helpers()
        _help(pid, "uid_map", uids)
        _help(pid, "gid_map", gids)


def _is_own(ranges: IdMap, own: int) -> bool:
    return len(ranges) == 1 and ranges[0].outside == own and ranges[0].size == 1


def _lines(ranges: IdMap) -> str:
    return "".join(f"{one.inside} {one.outside} {one.size}\n" for one in ranges)


def check_helpers() -> None:
    """Raises NsboxError: one of the two programs is not installed."""
    for path in HELPERS.values():
        if not os.access(path, os.X_OK):
            raise NsboxError(f"cannot map a range of ids: there is no program {path}",
                             hint="install the package uidmap")  # fmt: skip


def _help(pid: int, name: str, ranges: IdMap) -> None:
    """Have the helper write one map, in one call; what it says against that is the reason."""
    path = HELPERS[name]
    argv = [path, str(pid), *(str(number) for one in ranges for number in one)]
    said_r, said_w = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, said_w, 2),
        ]
        helper = os.posix_spawn(path, argv, {"LANG": "C"}, file_actions=actions)
    except OSError as err:
        raise NsboxError(f"cannot run {path}") from err
    finally:
        os.close(said_w)
        with open(said_r, encoding="utf-8", errors="replace") as file:
            said = file.read(4096).split("\n")[0]
    if os.waitpid(helper, 0)[1]:
        shown = "".join(char if char.isprintable() else "?" for char in said)
        raise NsboxError(
            f"cannot map a range of ids: {shown or path + ' refused'}",
            hint="/etc/subuid and /etc/subgid must allow the range, and the program be setuid root",
        )


def map_of(pid: int | str, name: str) -> IdMap:
    """The uid_map or gid_map of a process ("self" too), as we see it from our own namespace."""
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        return tuple(IdRange(*map(int, line.split())) for line in file)
