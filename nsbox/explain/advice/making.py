"""Rules of unshare(2), clone3(2) and fork(2): making namespaces and processes."""

import os

from ...errors import NsboxError
from ...linux import apart, namespaces, policy, syscalls, trouble
from ...linux.flags import CloneFlag
from . import machine
from .case import Case, Rule, Seen, known, lacks, setting, unknown

_USER = CloneFlag.CLONE_NEWUSER
_OTHERS = tuple(kind.flag for kind in namespaces.KINDS if kind.name != "user")
_MAKING, _BEARING = ("unshare", "clone3"), ("clone3", "clone", "fork", "vfork")
# Who enters the mount namespace that he is in stands at its root.
_ROOTS = "nsenter --mount=/proc/self/ns/mnt findmnt -o ID,TARGET /; findmnt -o ID,TARGET /"
_DEPTH_MAX = 32  # MAX_PID_NS_LEVEL, linux/pid_namespace.h
_FIRST_PID = "pid:[4026531836]"  # PROC_PID_INIT_INO, linux/proc_ns.h
_SYSCTL = "/proc/sys/kernel/"


def _makes_user(case: Case) -> bool:
    return case.wants(_USER)


def _makes_others_alone(case: Case) -> bool:
    """A user namespace that is made by the same call brings the right to the others with it."""
    return case.flags is None or not case.flags & _USER and case.wants(*_OTHERS)


def chrooted(case: Case) -> Seen:
    """Whether the process's root directory is not the root of its mount namespace."""
    where = case.scene.get("root", "/")
    if case.mounts and case.mount_of("root") is None:
        return known(True, f"the root directory {where} is no mount of its own, so a chroot(2) went there", _ROOTS)
    if case.elsewhere:
        return unknown("that process is gone, and was in other namespaces than this one")
    try:
        real = apart.run("look", _real_root)
    except NsboxError:
        return unknown("only root can look where the root of this mount namespace is", f"sudo {_ROOTS}")
    same = trouble.mount_of("/") == real
    return known(not same, f"the root directory is {'' if same else 'not '}that of its mount namespace", _ROOTS)


def _real_root() -> str:
    """In a child: to enter the mount namespace that one is in leads to its root. See setns(2)."""
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, CloneFlag.CLONE_NEWNS)
    return trouble.mount_of("/")


def _unmapped(case: Case) -> Seen:
    """Whether the maker's ids are unknown to the user namespace it is in."""
    if not case.status:
        return unknown("what it was, and its maps, could not be read")
    for name, number in (("uid", case.euid), ("gid", case.egid)):
        rows = [list(map(int, line.split())) for line in case.scene.get(f"{name}_map", "").splitlines()]
        if not any(first <= number < first + count for first, _, count in rows):
            shown = "; ".join(" ".join(map(str, row)) for row in rows) or "which is empty"
            return known(True, f"{name} {number} is not in {name}_map: {shown}",
                         "cat /proc/self/uid_map /proc/self/gid_map")  # fmt: skip
    return known(False, f"uid {case.euid} and gid {case.egid} are in the maps of its user namespace")


def at_limit(case: Case) -> Seen:
    """Whether one of the limits that count for these flags is 0, or used up as far as that can be seen."""
    try:
        found = policy.limits()
    except OSError as err:
        return unknown(f"/proc/sys/user cannot be read: {err.strerror}")
    asked = [f"max_{kind.name}_namespaces" for kind in namespaces.KINDS if case.wants(kind.flag)]
    zero = [name for name in asked if found.get(name) == 0]
    if zero:
        return known(True, ", ".join(f"user.{name} = 0" for name in zero), f"sysctl user.{zero[0]}")
    shown = ", ".join(f"user.{name} = {found[name]}" for name in asked if name in found)
    low = [name for name in asked if 0 <= found.get(name, -1) <= _in_sight(name)]
    if low:
        return known(True, f"{shown}; as many are in use", f"lsns -t {low[0][4:-11]}; sysctl user.{low[0]}")
    return unknown(f"{shown}; a limit of an outer user namespace counts as well, and cannot be seen here")


def _in_sight(name: str) -> int:
    kind = name.removeprefix("max_").removesuffix("_namespaces")
    return len(_ids(kind))


def _ids(kind: str) -> set[int]:
    found = set()
    for pid in os.listdir("/proc"):
        try:
            found.add(os.stat(f"/proc/{pid}/ns/{kind}").st_ino if pid.isdigit() else 0)
        except OSError:
            continue
    return found - {0}


def _deepest(case: Case) -> Seen:
    """Whether 32 levels are used up: those above our own namespaces are not to be seen."""
    levels = max(len(case.status.get("NSpid", "").split()) - 1, 0)
    first = {"pid": policy.link("ns/pid") == _FIRST_PID, "user": bool(case.in_first_user_namespace)}
    if case.wants(CloneFlag.CLONE_NEWPID) and levels >= _DEPTH_MAX:
        return known(True, f"it is {levels} PID namespaces deep", "grep NSpid /proc/PID/status")
    if case.wants(CloneFlag.CLONE_NEWPID) and not first["pid"]:
        return unknown(f"{levels} PID namespaces below ours are used up; those outside count as well", "lsns -T -t pid")
    if case.wants(_USER) and not first["user"]:
        return unknown("the user namespaces outside of its own count as well, and cannot be seen", "lsns -T -t user")
    return known(False, f"it is {levels} PID namespaces deep, and in the first user namespace" if first["user"]
                 else f"it is {levels} PID namespaces deep")  # fmt: skip


def threads(case: Case) -> Seen:
    """Whether the process had several threads."""
    number = case.status.get("Threads")
    if number is None:
        return unknown("Threads in /proc/PID/status could not be read")
    return known(int(number) > 1, f"it had {number} thread{'s' if number != '1' else ''}")


def _unknown_kind(case: Case) -> Seen:
    missing = [kind.name for kind in namespaces.KINDS
               if case.wants(kind.flag) and not os.path.exists(f"/proc/self/ns/{kind.name}")]  # fmt: skip
    return known(bool(missing), f"/proc/self/ns lacks {', '.join(missing)}" if missing else
                 "/proc/self/ns has every kind that was asked for", "ls /proc/self/ns")  # fmt: skip


def _dead_pid_namespace(case: Case) -> Seen:
    """Whether children would be born in a PID namespace whose PID 1 has ended."""
    later, own = case.scene.get("ns/pid_for_children"), case.scene.get("ns/pid")
    if later is None or later == own:
        return known(False, "its children are born where it is itself" if later else "nobody was born there yet")
    there = int(later[5:-1]) in _ids("pid")
    return known(not there, f"in {later}, where its children are to be born, there is {'a' if there else 'no'} process",
                 f"lsns -t pid {later[5:-1]} || echo nobody")  # fmt: skip


def _number_limit(case: Case) -> Seen:
    top, most = policy.read(_SYSCTL + "pid_max"), policy.read(_SYSCTL + "threads-max")
    now = (policy.read("/proc/loadavg") or "").split()
    if not (top and most and len(now) > 3):
        return unknown("/proc/sys/kernel cannot be read")
    count = int(now[3].split("/")[1])
    return known(count >= min(int(top), int(most)) - 4,
                 f"kernel.pid_max = {top}, kernel.threads-max = {most}, in use: {count}")  # fmt: skip


_LIMIT = "a limit on namespaces is reached, one of /proc/sys/user/max_*_namespaces"
RULES = (
    # The order of the kernel's own checks, as far as they have one.
    Rule(_MAKING, ("EPERM", "EACCES"), "a seccomp filter refuses the call, as in a container", "seccomp(2)",
         machine.denied_by_filter, "grep Seccomp /proc/self/status"),
    Rule(_MAKING, ("ENOSYS",), "a seccomp filter hides the call, as in a container", "seccomp(2)",
         machine.denied_by_filter, "grep Seccomp /proc/self/status"),
    Rule(("unshare",), ("EINVAL",), "a process with several threads makes no user namespace", "unshare(2)", threads,
         "grep Threads /proc/self/status", when=_makes_user),
    Rule(_MAKING, ("EINVAL",), "this kernel is built without a kind of namespace", "namespaces(7)", _unknown_kind,
         "ls /proc/self/ns"),
    Rule(("unshare",), ("EINVAL",), "children are to be born in a PID namespace already, and its owner is another user "
         "namespace", "pid_namespaces(7)", lambda case: _born_elsewhere(case),
         "ls -l /proc/self/ns", when=lambda case: case.wants(CloneFlag.CLONE_NEWPID)),
    Rule(_MAKING, ("ENOSPC", "EUSERS"), _LIMIT, "namespaces(7)", at_limit, "sysctl -a -r '^user.max_.*_namespaces'"),
    Rule(_MAKING, ("ENOSPC", "EUSERS"), "32 of a kind are nested in each other, and no more can be",
         "user_namespaces(7)", _deepest, "lsns -T -t user",
         when=lambda case: case.wants(_USER, CloneFlag.CLONE_NEWPID)),
    Rule(_MAKING, ("EPERM",), "who is in a chroot makes no user namespace: it would be a way out", "unshare(2)",
         chrooted, _ROOTS, when=_makes_user),
    Rule(_MAKING, ("EPERM",), "its user or group has no number in the user namespace it is in", "user_namespaces(7)",
         _unmapped, "cat /proc/self/uid_map /proc/self/gid_map", when=_makes_user),
    Rule(_MAKING, ("EPERM",), "this machine has user namespaces for root alone (a switch of Debian)",
         "sysctl(8)", setting(_SYSCTL + "unprivileged_userns_clone", "0"),
         "sudo sysctl -w kernel.unprivileged_userns_clone=1", when=_makes_user),
    Rule(_MAKING, ("EPERM", "EACCES"), "AppArmor lets ordinary users do nothing in a user namespace", "apparmor(7)",
         setting(_SYSCTL + "apparmor_restrict_unprivileged_userns", "1"),
         "sysctl kernel.apparmor_restrict_unprivileged_userns; nsbox doctor", when=_makes_user),
    Rule(_MAKING, ("EPERM",), "without a new user namespace, a new namespace needs CAP_SYS_ADMIN",
         "capabilities(7)", lacks("SYS_ADMIN"), "grep CapEff /proc/self/status; sudo nsbox …",
         when=_makes_others_alone),
    Rule(_MAKING, ("EPERM", "EACCES"), "a security module refuses it", "apparmor(7), selinux(8)",
         machine.security_module, "cat /sys/kernel/security/lsm"),
    Rule((*_MAKING, *_BEARING), ("ENOSYS",), "the kernel is too old", "clone(2)", machine.old_kernel, "uname -r"),
    Rule(_BEARING, ("EAGAIN",), "the user has as many processes as RLIMIT_NPROC allows", "getrlimit(2)",
         machine.too_many_processes, "ulimit -u; ps -L -u $(id -u) | wc -l"),
    Rule(_BEARING, ("EAGAIN",), "the control group has as many processes as its pids.max allows", "cgroups(7)",
         machine.pids_controller, "cat /proc/self/cgroup"),
    Rule(_BEARING, ("EAGAIN",), "the machine has no number left for a process", "proc_sys_kernel(5)", _number_limit,
         "sysctl kernel.pid_max kernel.threads-max"),
    Rule((*_BEARING, "unshare"), ("ENOMEM",), "the PID namespace has no PID 1 any more, so nobody is born in it",
         "pid_namespaces(7)", _dead_pid_namespace, "readlink /proc/self/ns/pid_for_children"),
)  # fmt: skip


def _born_elsewhere(case: Case) -> Seen:
    if case.elsewhere:
        return unknown("the process that failed was in other namespaces, and is gone")
    try:
        here, later = (os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "pid_for_children"))
    except OSError:
        return unknown("/proc/self/ns cannot be read")
    return known(here != later, f"itself it is in {here}, its children go to {later}")
