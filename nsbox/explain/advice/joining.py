"""Rules of setns(2): entering namespaces."""

import os
from typing import NamedTuple

from ...linux import namespaces, nsfs
from ...linux.flags import CloneFlag
from . import machine
from .case import Case, Rule, Seen, known, lacks, unknown
from .making import threads

_SETNS = ("setns",)
_GONE = "the target is gone by now, or may not be looked at: nothing can be compared"


class Target(NamedTuple):
    """What setns was to enter: a name per kind, as "user:[4026531837]", and where it can be opened."""

    names: dict[str, str]
    paths: dict[str, str]


def target_of(case: Case) -> Target | None:
    """What is behind the descriptor; None where that is not known any more."""
    place = case.text(len(case.asked) - 1) if case.asked else ""
    kinds = [kind.name for kind in namespaces.KINDS if case.wants(kind.flag)]
    if place.startswith("pidfd:"):
        pid = place.removeprefix("pidfd:")
        names = {}
        for kind in kinds:
            try:
                names[kind] = os.readlink(f"/proc/{pid}/ns/{kind}")
            except OSError:
                return None
        return Target(names, {kind: f"/proc/{pid}/ns/{kind}" for kind in kinds})
    kind = place.partition(":")[0]
    return Target({kind: place}, {}) if kind in nsfs.KIND_NAMES else None



def _already_in(case: Case) -> Seen:
    target = target_of(case)
    own = case.scene.get("ns/user")
    if target is None or own is None or "user" not in target.names:
        return unknown(_GONE)
    return known(target.names["user"] == own, f"the process was in {own}, the target is in {target.names['user']}",
                 "nsbox why $$ TARGET")  # fmt: skip


def _no_right_inside(case: Case) -> Seen:
    """Whether a namespace to enter belongs to a user namespace in which the process has no rights."""
    target = target_of(case)
    if target is None or not target.paths:
        return unknown(_GONE)
    entering = "user" in target.paths and bool(case.flags and case.flags & CloneFlag.CLONE_NEWUSER)
    strange = []
    for kind, path in target.paths.items():
        if kind == "user" or target.names[kind] == case.scene.get(f"ns/{kind}"):
            continue
        try:
            owner = _owner(path)
        except PermissionError:
            return known(True, f"{target.names[kind]} belongs to a user namespace outside of ours", "nsbox map")
        except OSError:
            return unknown(_GONE)
        if owner != case.scene.get("ns/user") and not (entering and owner == target.names["user"]):
            strange.append(f"{target.names[kind]} belongs to {owner}")
    if not strange:
        return known(False, "they belong to the user namespace that the process is in, or enters")
    if case.is_root_of_machine and case.has("SYS_ADMIN"):
        return known(False, "root of the machine has every right in all of them")
    return known(True, f"{strange[0]}, and the process is in {case.scene.get('ns/user', 'another')}")


def _owner(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner_fd = nsfs.owner(fd)
    finally:
        os.close(fd)
    try:
        return f"user:[{os.fstat(owner_fd).st_ino}]"
    finally:
        os.close(owner_fd)


def _stranger(case: Case) -> Seen:
    """Whether the process neither owns the user namespace, from its parent, nor has rights in it."""
    target = target_of(case)
    if target is None or "user" not in target.paths:
        return unknown(_GONE)
    fd = os.open(target.paths["user"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        uid = nsfs.owner_uid(fd)
    finally:
        os.close(fd)
    owns = uid == case.euid
    if case.has("SYS_ADMIN") and case.is_root_of_machine:
        return known(False, "root of the machine has every right in it")
    return known(not owns, f"uid {uid} made it, and the process is uid {case.euid}")


def _not_below(case: Case) -> Seen:
    """Whether the PID namespace is neither the process's own nor one below it."""
    target = target_of(case)
    if target is None or "pid" not in target.paths:
        return unknown(_GONE)
    own = case.scene.get("ns/pid", "")
    fd = os.open(target.paths["pid"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            if f"pid:[{os.fstat(fd).st_ino}]" == own:
                return known(False, f"{target.names['pid']} is {own} or below it")
            above = nsfs.parent(fd)
            os.close(fd)
            fd = above
    except OSError:
        return known(True, f"{target.names['pid']} is not below {own}", "nsbox map")
    finally:
        os.close(fd)


def _ended(case: Case) -> Seen:
    place = case.text(len(case.asked) - 1) if case.asked else ""
    if not place.startswith("pidfd:"):
        return known(True, "the kernel says so of a process that has ended, and of nothing else")
    pid = place.removeprefix("pidfd:")
    gone = pid in ("-1", "0") or not os.path.exists(f"/proc/{pid}/ns/mnt") or not _alive(pid)
    return known(gone, f"process {pid} {'has ended' if gone else 'is there'}", f"ps -p {pid}")


def _alive(pid: str) -> bool:
    try:
        return bool(os.listdir(f"/proc/{pid}/fdinfo")) or bool(namespaces.ids_of(int(pid)))
    except OSError:
        return False


def _root_elsewhere(case: Case) -> Seen:
    return unknown("whether another process shares root and work directory with it (CLONE_FS) is not to be seen")


_SYS_CHROOT = lacks("SYS_CHROOT")
RULES = (
    Rule(_SETNS, ("EPERM", "ENOSYS"), "a seccomp filter refuses the call", "seccomp(2)", machine.denied_by_filter,
         "grep Seccomp /proc/self/status"),
    Rule(_SETNS, ("ENOSYS",), "the kernel is too old", "setns(2)", machine.old_kernel, "uname -r"),
    Rule(_SETNS, ("ESRCH",), "the process whose namespaces these are has ended", "setns(2)", _ended,
         "nsbox ls; ps -p PID"),
    Rule(_SETNS, ("EINVAL",), "nobody enters the user namespace that he is in: that would give rights back that were "
         "given up", "user_namespaces(7)", _already_in, "nsbox why $$ TARGET",
         when=lambda case: case.wants(CloneFlag.CLONE_NEWUSER)),
    Rule(_SETNS, ("EINVAL", "EUSERS"), "a process with several threads cannot change its user or time namespace",
         "setns(2)",
         threads, "grep Threads /proc/self/status",
         when=lambda case: case.wants(CloneFlag.CLONE_NEWUSER, CloneFlag.CLONE_NEWTIME)),
    Rule(_SETNS, ("EINVAL",), "of PID namespaces only the own one and those below it can be entered",
         "pid_namespaces(7)", _not_below, "nsbox map", when=lambda case: case.wants(CloneFlag.CLONE_NEWPID)),
    Rule(_SETNS, ("EINVAL",),
         "who shares his root directory with another process cannot change his mount or user namespace",
         "setns(2)", _root_elsewhere, "ls -l /proc/self/task",
         when=lambda case: case.wants(CloneFlag.CLONE_NEWNS, CloneFlag.CLONE_NEWUSER)),
    Rule(_SETNS, ("EPERM",), "a user namespace is entered by who made it, or has CAP_SYS_ADMIN in it",
         "user_namespaces(7)", _stranger, "nsbox inspect TARGET",
         when=lambda case: case.wants(CloneFlag.CLONE_NEWUSER)),
    Rule(_SETNS, ("EPERM",), "each namespace belongs to a user namespace, and entering it needs CAP_SYS_ADMIN there",
         "setns(2)", _no_right_inside, "nsbox map TARGET; sudo nsbox join TARGET …"),
    Rule(_SETNS, ("EPERM",), "entering a namespace needs CAP_SYS_ADMIN in one's own user namespace too", "setns(2)",
         lacks("SYS_ADMIN"), "sudo nsbox join TARGET …",
         when=lambda case: case.flags is None or not case.flags & CloneFlag.CLONE_NEWUSER),
    Rule(_SETNS, ("EPERM",), "entering a mount namespace needs CAP_SYS_CHROOT as well", "setns(2)", _SYS_CHROOT,
         "grep CapEff /proc/self/status; sudo nsbox …", when=lambda case: case.wants(CloneFlag.CLONE_NEWNS)),
    Rule(_SETNS, ("EPERM", "EACCES"), "a security module refuses it", "apparmor(7), selinux(8)",
         machine.security_module,
         "cat /sys/kernel/security/lsm"),
)  # fmt: skip
