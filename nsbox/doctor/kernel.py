"""Namespaces and mounts: what the kernel, and the machine's policy, let us do. Each by doing it."""

import os
import signal

from ..errors import NsboxError
from ..idranges import IdRange
from ..linux import apart, mounts, namespaces, policy, process, syscalls
from ..linux.flags import CloneFlag, MountAttr, MountFlag, Resolve
from ..privilege import seccomp, userns
from . import finding
from .finding import MISSING, NOTE, OK, Outcome, in_new, tried

_SCRATCH = "/tmp"  # on every machine; covered in the child's own mount namespace only
_NO_ATTRS = MountAttr(0)
_SOME_IDS = (IdRange(0, 100000, 65536),)


def own_proc() -> Outcome:
    """Whether /proc is there and knows us: most other looks begin there."""
    try:
        process.require_own_proc()
    except NsboxError as err:
        return Outcome(MISSING, str(err))
    return Outcome(OK, "it is that of our PID namespace")


# ---- user namespaces ----

def own_user_namespace() -> Outcome:
    """Make one, map a user, mount in it: Ubuntu lets the first pass, and refuses the rest."""
    return tried(_user_namespace, "made, mapped and mounted in", why_no_user_namespace)


def user_namespace_of_others() -> Outcome:
    """The same as an ordinary user would, if we are root."""
    if os.geteuid() != 0:
        return Outcome(NOTE, "you are an ordinary user: see the line above")
    if not _is_first_user_namespace():
        return Outcome(NOTE, "we are in a user namespace: its other users are not tried")

    def work() -> None:
        finding.as_ordinary_user()
        _user_namespace()

    return tried(work, "made, mapped and mounted in", why_no_user_namespace)


def _user_namespace() -> None:
    in_new(frozenset({"user"}))
    syscalls.unshare(CloneFlag.CLONE_NEWNS)
    os.close(mounts.new_filesystem("tmpfs", {}, _NO_ATTRS))


def _is_first_user_namespace() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", str(2**32 - 1)]


def why_no_user_namespace(_said: str = "") -> str:
    """Which rule of this machine it is most likely, and how it is changed; "" if none is known."""
    rule = policy.against_user_namespaces()
    return rule.mend if rule else ""


# ---- the other kinds, and limits ----

def all_kinds() -> Outcome:
    """Make one of each of the five kinds that every pod has, and of cgroup."""
    refused = {}
    for kind in ("uts", "ipc", "net", "pid", "mnt", "cgroup"):
        outcome = tried(lambda kind=kind: in_new(frozenset({kind})), "")  # type: ignore[misc]
        if outcome.status != OK:
            refused[kind] = outcome.seen
    if not refused:
        return Outcome(OK, "uts, ipc, net, pid, mnt and cgroup can be made")
    return Outcome(MISSING, "; ".join(f"{kind}: {said}" for kind, said in refused.items()),
                   why_no_user_namespace() if len(refused) > 5 else "")  # fmt: skip


def time_namespace() -> Outcome:
    """Make one, and shift its clocks."""
    def work() -> None:
        in_new(frozenset({"time"}))
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"boottime 1 0\n")
        os.close(fd)

    return tried(work, "made, and its clocks shifted")


def limits() -> Outcome:
    """The limits of this user namespace on new ones. See namespaces(7)."""
    try:
        found = policy.limits()
    except OSError as err:
        return Outcome(NOTE, f"/proc/sys/user cannot be read: {err.strerror}")
    zero = [name for name, value in found.items() if value == 0]
    if zero:
        more = "; ".join(f"sysctl -w user.{name}=15000" for name in zero)
        return Outcome(MISSING, f"{', '.join(zero)}: 0", more)
    name = min(found, key=lambda name: found[name], default="")
    return Outcome(OK, f"the lowest is {name} = {found[name]}" if name else "none")


def filter_on_us() -> Outcome:
    """Whether a seccomp filter is on this very process: then this is a container, or a service."""
    if policy.has_filter():
        return Outcome(NOTE, "a filter is on this shell, as in a container: single calls may be refused")
    return Outcome(OK, "no filter on this shell")


def filters() -> Outcome:
    """Live under the filter that members get."""
    program = seccomp.built(seccomp.Variant())
    if program is None:
        return Outcome(NOTE, "there is no built one for this machine: each is compiled")

    def work() -> None:
        syscalls.set_no_new_privs()
        syscalls.seccomp_filter(program, 0)

    return tried(work, "the kernel takes that of members")


# ---- calls and file systems ----

def calls() -> Outcome:
    """The newer system calls, each used once. A filter that does not know them says ENOSYS or EPERM."""
    refused = [f"{name}: {outcome.seen}" for name, work in _CALLS
               if (outcome := tried(work, "")).status != OK]  # fmt: skip
    if refused:
        return Outcome(MISSING, "; ".join(refused))
    return Outcome(OK, ", ".join(name for name, _ in _CALLS))


def _clone3() -> None:
    pid = syscalls.clone3(CloneFlag(0), signal.SIGCHLD)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _pidfd() -> None:
    fd = os.pidfd_open(os.getpid())
    process.send_signal(fd, 0)
    in_new(frozenset({"uts"}))
    namespaces.join(fd, frozenset({"uts"}))


def _openat2() -> None:
    os.close(syscalls.openat2(os.open("/", os.O_PATH | os.O_CLOEXEC), "proc", os.O_PATH, Resolve.RESOLVE_IN_ROOT))


def _mount_calls() -> None:
    in_new(frozenset({"mnt"}))
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
    tree_fd = mounts.clone_tree(mounts.open_host_path(_SCRATCH), recursive=True)
    syscalls.mount_setattr(tree_fd, MountAttr.MOUNT_ATTR_RDONLY, recursive=True)
    mounts.attach(tree_fd, mounts.open_host_path(_SCRATCH))


def _close_range() -> None:
    syscalls.close_range(1 << 20, cloexec_only=True)


_CALLS = (
    ("clone3", _clone3), ("pidfd_open and setns by it", _pidfd), ("openat2", _openat2),
    ("open_tree, mount_setattr, move_mount", _mount_calls), ("close_range", _close_range),
    ("memfd_create", lambda: os.close(syscalls.memfd_create("nsbox"))),
)  # fmt: skip


def fresh_proc() -> Outcome:
    """Mount a /proc for a new PID namespace; what a machine masks in its own forbids it in user namespaces."""
    def work() -> None:
        in_new(frozenset({"pid", "mnt"}))
        apart.run("mount proc", lambda: os.close(mounts.new_filesystem("proc", {}, _NO_ATTRS)))

    def mend(_said: str) -> str:
        masked = policy.over_proc(mounts.read_mountinfo())
        if not masked:
            return ""
        return (f"mounts lie over parts of /proc ({', '.join(masked[:3])}{' ...' if masked[3:] else ''}), as in a "
                "container: start that with an unmasked /proc "
                "(docker: --security-opt systempaths=unconfined)")  # fmt: skip

    return tried(work, "a new one can be mounted", mend)


def filesystems() -> Outcome:
    """What a pod's root is made of: overlay on tmpfs, mqueue, sysfs, devpts."""
    def overlay() -> None:
        in_new(frozenset({"mnt"}))
        syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
        scratch_fd = mounts.new_filesystem("tmpfs", {}, _NO_ATTRS)
        mounts.attach(scratch_fd, mounts.open_host_path(_SCRATCH))
        os.close(mounts.overlay(os.open("/usr", os.O_RDONLY | os.O_CLOEXEC), mounts.directory_of(scratch_fd)))

    def plain(fstype: str, kind: str) -> None:
        in_new(frozenset({"mnt", kind}))
        os.close(mounts.new_filesystem(fstype, {}, _NO_ATTRS))

    works = {
        "overlay": overlay,
        "mqueue": lambda: plain("mqueue", "ipc"),
        "sysfs": lambda: plain("sysfs", "net"),
        "devpts": lambda: plain("devpts", "mnt"),
    }
    refused = [f"{name}: {outcome.seen}" for name, work in works.items()
               if (outcome := tried(work, "")).status != OK]  # fmt: skip
    if refused:
        return Outcome(MISSING, "; ".join(refused))
    return Outcome(OK, ", ".join(works))


def idmapped_mounts() -> Outcome:
    """Show the files of a directory with the ids of a user namespace, as create --userns does as root."""
    if os.geteuid() != 0:
        return Outcome(NOTE, "only root needs them: your own files are yours in your pods")

    def work() -> None:
        userns_fd = userns.make(_SOME_IDS, _SOME_IDS)
        in_new(frozenset({"mnt"}))
        os.close(mounts.clone_apart(mounts.open_host_path("/usr"), recursive=False, userns_fd=userns_fd))

    return tried(work, f"{mounts.filesystem_of(mounts.open_host_path('/usr'))} can be mounted so")


def root_propagation() -> Outcome:
    """How mounts travel from here: nothing is lost by any of them, and old recipes trip over "shared"."""
    try:
        shared = any(one.target == "/" and "shared:" in one.optional for one in mounts.read_mountinfo())
    except (OSError, NsboxError) as err:
        return Outcome(NOTE, f"/proc/self/mountinfo cannot be read: {err}")
    if shared:
        return Outcome(OK, "shared: nsbox makes its own private; an unshare --mount by hand does too")
    return Outcome(OK, "private")
