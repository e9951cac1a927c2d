"""How a process is guarded, as the kernel says it in /proc; and what a pod promises its members.

Its session keyring is not here: nobody can read which one another process has.
"""

import os
from typing import Any

from ..capabilities import names_of, settle
from ..linux import mounts, procfs
from ..privilege import masks, rights
from .inside import seccomp_mode
from .record import PodRecord

# As proc_pid_status(5) has them.
_SETS = {"effective": "CapEff", "permitted": "CapPrm", "inheritable": "CapInh", "bounding": "CapBnd",
         "ambient": "CapAmb"}  # fmt: skip
_KERNELS = ("proc", "sysfs")
_MASKED = {*(f"/proc/{name}" for name in masks.MASKED_IN_PROC), *(f"/sys/{name}" for name in masks.MASKED_IN_SYS)}


def of_process(pid: int) -> dict[str, Any]:
    """The posture of one process; user and group numbers are those of the caller's user namespace.

    Raises:
        OSError: it has ended.
    """
    status = _status(pid)
    uid_map = procfs.id_map(pid)
    return {
        "uid": int(status["Uid"].split()[1]),
        "gid": int(status["Gid"].split()[1]),
        "groups": [int(word) for word in status["Groups"].split()],
        "capabilities": {name: names_of(int(status[key], 16)) for name, key in _SETS.items()},
        "no_new_privs": status["NoNewPrivs"] == "1",
        "seccomp": seccomp_mode(status),
        "root_is_uid": next((outside - first for first, outside, count in uid_map if first == 0), None),
        "uid_map": [list(row) for row in uid_map],
        "gid_map": [list(row) for row in procfs.id_map(pid, "gid")],
        **_closed(pid),
    }


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", "rb") as file:
        lines = os.fsdecode(file.read()).split("\n")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _closed(pid: int) -> dict[str, list[str]]:
    """What of /proc and /sys the process finds read-only, and what covered by nothing."""
    read_only, masked = set[str](), set[str]()
    try:
        entries = mounts.read_mountinfo(pid)
    except OSError:
        entries = []
    for entry in entries:
        if not f"{entry.target}/".startswith(("/proc/", "/sys/")):
            continue
        if entry.target in _MASKED and entry.fstype not in _KERNELS:
            masked.add(entry.target)
        elif "ro" in entry.options.split(","):
            read_only.add(entry.target)
    return {"read_only": sorted(read_only), "masked": sorted(masked)}


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
    }
