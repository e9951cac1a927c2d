"""How a process is guarded, as the kernel says it in /proc; and what a pod promises its members.

Each value is read from the process itself, by one open directory of /proc: where its number is another
process's by then, that is an error and never a mixture of the two. What may not be read is None, and
`unread` says why.
"""

import errno
import os
from typing import Any

from ..capabilities import names_of, settle
from ..linux import mounts, mounttree, process, procfs
from ..linux.mounts import MountEntry
from ..privilege import masks, rights
from . import keyring, nodes
from .inside import seccomp_mode
from .record import PodRecord

# As proc_pid_status(5) has them.
_SETS = {"effective": "CapEff", "permitted": "CapPrm", "inheritable": "CapInh", "bounding": "CapBnd",
         "ambient": "CapAmb"}  # fmt: skip
_KERNELS = ("proc", "sysfs")
_MASKED = {*(f"/proc/{name}" for name in masks.MASKED_IN_PROC), *(f"/sys/{name}" for name in masks.MASKED_IN_SYS)}
_READ_ONLY = {"/sys", *(f"/proc/{name}" for name in masks.READ_ONLY_IN_PROC)}
# The lines of proc_pid_limits(5), by the names of getrlimit(2).
_LIMITS = {
    "Max cpu time": "cpu", "Max file size": "fsize", "Max data size": "data", "Max stack size": "stack",
    "Max core file size": "core", "Max resident set": "rss", "Max processes": "nproc", "Max open files": "nofile",
    "Max locked memory": "memlock", "Max address space": "as", "Max file locks": "locks",
    "Max pending signals": "sigpending", "Max msgqueue size": "msgqueue", "Max nice priority": "nice",
    "Max realtime priority": "rtprio", "Max realtime timeout": "rttime",
}  # fmt: skip
_LIMIT_NAME_WIDTH = 26
_SLAVES = range(136, 144)  # majors of pseudo-terminals, see pts(4) and the kernel's devices.txt
_ENDED = ("Z", "X")
_IDS = ("real", "effective", "saved", "filesystem")


def of_process(pid: int, start_time: int | None = None) -> dict[str, Any]:
    """The posture of one process; user and group numbers are those of the caller's user namespace.

    Args:
        start_time: of the process that is meant, in clock ticks after boot; None for whoever has that number.

    Raises:
        OSError: it has ended.
    """
    dir_fd = procfs.open_directory(pid)
    try:
        fields = process.stat_fields(f"self/fd/{dir_fd}")
        if start_time is not None and int(fields[19]) != start_time:
            raise ProcessLookupError(errno.ESRCH, "the process has ended")
        return _of_directory(dir_fd) if fields[0] not in _ENDED else _of_thread(dir_fd)
    finally:
        os.close(dir_fd)


def _of_thread(dir_fd: int) -> dict[str, Any]:
    """That of the first thread that lives: a process whose first thread has ended looks like a zombie, and is none."""
    for name in sorted(os.listdir(f"/proc/self/fd/{dir_fd}/task"), key=int):
        try:
            thread_fd = os.open(f"task/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        except OSError:
            continue
        try:
            if process.stat_fields(f"self/fd/{thread_fd}")[0] not in _ENDED:
                return _of_directory(thread_fd)
        except procfs.GONE:
            continue
        finally:
            os.close(thread_fd)
    raise ProcessLookupError(errno.ESRCH, "the process has ended")


def _of_directory(dir_fd: int) -> dict[str, Any]:
    here = f"self/fd/{dir_fd}"  # below /proc, where the other readers look
    status = _status(here)
    maps = {name: procfs.id_map(here, name) for name in ("uid", "gid")}
    ids = {name: [int(word) for word in status[name.capitalize()].split()] for name in ("uid", "gid")}
    unread: dict[str, str] = {}
    same = _shares_users(here, unread)
    return {
        "uid": ids["uid"][1],
        "gid": ids["gid"][1],
        "groups": [int(word) for word in status["Groups"].split()],
        "uids": dict(zip(_IDS, ids["uid"], strict=True)),
        "gids": dict(zip(_IDS, ids["gid"], strict=True)),
        **{f"{name}_inside": _inside(ids[name][1], maps[name], same) for name in ("uid", "gid")},
        "capabilities": {name: names_of(int(status[key], 16)) for name, key in _SETS.items()},
        "no_new_privs": status["NoNewPrivs"] == "1",
        "seccomp": seccomp_mode(status),
        "seccomp_filters": int(status["Seccomp_filters"]) if "Seccomp_filters" in status else None,
        "root_is_uid": next((outside - first for first, outside, count in maps["uid"] if first == 0), None),
        "uid_map": [list(row) for row in maps["uid"]],
        "gid_map": [list(row) for row in maps["gid"]],
        **_mounted(dir_fd, here, unread),
        "limits": _limits(here),
        "session_keyring": keyring.UNKNOWN,
        "terminal": _terminal(here),
        "oom_score_adj": int(_text(here, "oom_score_adj")),
        "unread": unread,
    }


def _text(here: str, name: str) -> str:
    with open(f"/proc/{here}/{name}", "rb") as file:
        return os.fsdecode(file.read())


def _status(here: str) -> dict[str, str]:
    lines = _text(here, "status").split("\n")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _shares_users(here: str, unread: dict[str, str]) -> bool | None:
    """Whether it is in our user namespace; None where that may not be seen."""
    try:
        return os.path.samestat(os.stat(f"/proc/{here}/ns/user"), os.stat("/proc/self/ns/user"))
    except PermissionError as err:
        unread["uid_inside"] = unread["gid_inside"] = os.strerror(err.errno or 0)
        return None


def _inside(number: int, ranges: list[tuple[int, int, int]], same: bool | None) -> int | None:
    """A number of our user namespace as that of the process has it; None for one that is not known there."""
    if same is not False:
        return number if same else None
    known = (first + number - outside for first, outside, count in ranges if outside <= number < outside + count)
    return next(known, None)


def _mounted(dir_fd: int, here: str, unread: dict[str, str]) -> dict[str, Any]:
    """Of its root, /proc, /sys and /dev: what it may not write to, what is covered, and the devices."""
    shown = mounttree.visible(mounts.read_mountinfo(here))
    found: dict[str, Any] = {
        **closed(shown),
        "root_read_only": shown["/"].read_only if "/" in shown else None,
        "device_mounts": nodes.mounts_with_devices(shown),
        "devices": None,
    }
    try:
        root_fd = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except PermissionError as err:
        why = os.strerror(err.errno or 0)
        unread.update({name: why for name in ("root_read_only", "devices") if found[name] is None})
        return found
    try:
        if found["root_read_only"] is None:  # a directory in the midst of a mount that is not in the list
            found["root_read_only"] = bool(os.fstatvfs(root_fd).f_flag & os.ST_RDONLY)
        found["devices"], problem = nodes.of_root(root_fd, shown)
    finally:
        os.close(root_fd)
    if problem:
        unread["devices"] = problem
    # Where no node can be made, one of the host is mounted; it is no place for others. Nor is what covers a file.
    single = {*found["masked"], *(node["path"] for node in found["devices"])}
    found["device_mounts"] = [target for target in found["device_mounts"] if target not in single]
    return found


def closed(shown: dict[str, MountEntry]) -> dict[str, list[str]]:
    """What of /proc and /sys is read-only, what is covered by nothing; and what nsbox closes and is open here.

    Args:
        shown: the visible mounts of a process, by target.
    """
    read_only, masked = set[str](), set[str]()
    for target, entry in shown.items():
        if not f"{target}/".startswith(("/proc/", "/sys/")):
            continue
        if target in _MASKED and entry.fstype not in _KERNELS:
            masked.add(target)
        elif entry.read_only:
            read_only.add(target)
    is_open = {place for place in (*_MASKED, *_READ_ONLY) if _is_open(place, mounttree.holding(place, shown))}
    below = tuple(f"{one}/" for one in _READ_ONLY)
    is_open |= {  # a part of what is read-only that is mounted on it again, and can be written to
        target for target, entry in shown.items()
        if entry.fstype in _KERNELS and not entry.read_only and target.startswith(below)
    }  # fmt: skip
    return {"read_only": sorted(read_only), "masked": sorted(masked), "open": sorted(is_open)}


def _is_open(place: str, on: MountEntry | None) -> bool:
    """Whether a process on one of whose mounts it is can do there what nsbox lets no member do."""
    if on is None or on.fstype not in _KERNELS or place in _READ_ONLY and on.read_only:
        return False
    return os.path.lexists(place)  # as in every /proc and /sys; no root is asked


def _limits(here: str) -> dict[str, dict[str, int | str]]:
    """Each limit, soft and hard: a number or "unlimited". See getrlimit(2) for the units."""
    found = {}
    for line in _text(here, "limits").splitlines()[1:]:
        name = line[:_LIMIT_NAME_WIDTH].strip()
        bounds = zip(("soft", "hard"), line[_LIMIT_NAME_WIDTH:].split(), strict=False)
        found[_LIMITS.get(name, name)] = {key: word if word == "unlimited" else int(word) for key, word in bounds}
    return found


def _terminal(here: str) -> str | None:
    """The controlling terminal, as "pts/0", or "4:1" for one that is no pseudo-terminal. See proc_pid_stat(5)."""
    number = int(process.stat_fields(here)[4]) & 0xFFFF_FFFF
    if not number:
        return None
    major, minor = os.major(number), os.minor(number)
    return f"pts/{(major - _SLAVES.start) * 256 + minor}" if major in _SLAVES else f"{major}:{minor}"


def of_members(record: PodRecord) -> dict[str, Any]:
    """What each member of a pod gets that does not say otherwise, if the caller makes it."""
    keep = settle(record.rights, chrooted=record.chroot)
    # In a user namespace there is all that the kernel knows; elsewhere no more than we have.
    have = rights.known() if "user" in dict(record.kinds) else rights.own()
    return {
        "capabilities": names_of(keep.bits & have),
        "no_new_privs": keep.no_new_privs,
        "privileged": record.rights.privileged,
        "cap_add": sorted(record.rights.added),
        "cap_drop": sorted(record.rights.dropped),
        "seccomp": record.seccomp.chosen.name,
        "user": [os.geteuid(), os.getegid()] if record.userns == "keep-id" else [0, 0],
    }
