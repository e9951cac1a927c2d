"""Looks at what holds for the whole machine: filters, security modules, limits, programs, modules of the kernel."""

import errno
import os
import resource
from shlex import quote

from ...linux import policy, syscalls
from .case import Case, Probe, Seen, known, unknown

_NAMES = {"write gid_map": "write", "write uid_map": "write", "write setgroups": "write"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Calls without effect, with arguments that the kernel refuses itself, each with what it says to them.
# Not here: calls whose rights are looked at before their arguments.
_EMPTY: dict[str, tuple[tuple[object, ...], int]] = {
    "clone3": ((None, 0), errno.EINVAL),
    "unshare": ((1,), errno.EINVAL),
    "setns": ((-1, 0), errno.EBADF),
    "mount": ((None, None, None, 0, None), errno.EFAULT),
    "umount2": ((None, 0x4000_0000), errno.EINVAL),
    "open_tree": ((-1, None, 0x4000_0000), errno.EINVAL),
    "mount_setattr": ((-1, None, 0x4000_0000, None, 0), errno.EINVAL),
    "openat2": ((-1, None, None, 0), errno.EINVAL),
    "seccomp": ((0x4000_0000, 0, None), errno.EINVAL),
    "keyctl": ((0x4000_0000, 0), errno.EOPNOTSUPP),
    "close_range": ((2, 1, 0), errno.EINVAL),
    "memfd_create": ((None, 0x4000_0000), errno.EINVAL),
    "pidfd_send_signal": ((-1, 0, None, 0x4000_0000), errno.EINVAL),
    "fsopen": ((None, 0x4000_0000), errno.EINVAL),
    "fsmount": ((-1, 0x4000_0000, 0), errno.EINVAL),
    "fsconfig": ((-1, 0x4000_0000, None, None, 0), errno.EINVAL),
    "move_mount": ((-1, None, -1, None, 0x4000_0000), errno.EINVAL),
}
# Of these the kernel looks at the caller's rights first, and says EPERM itself.
_RIGHTS_FIRST = frozenset({"fsopen", "fsmount", "move_mount"})
SINCE = {
    "clone3": (5, 3), "pidfd_open": (5, 3), "pidfd_send_signal": (5, 1), "openat2": (5, 6), "close_range": (5, 9),
    "open_tree": (5, 2), "move_mount": (5, 2), "fsopen": (5, 2), "fsconfig": (5, 2), "fsmount": (5, 2),
    "mount_setattr": (5, 12), "seccomp": (3, 17), "memfd_create": (3, 17), "execveat": (3, 19), "setns": (3, 0),
}  # fmt: skip


def denied_by_filter(case: Case) -> Seen:
    """Whether a seccomp filter is what refuses: it does so before the kernel looks at the arguments."""
    mode = case.status.get("Seccomp")
    if mode is None:
        return unknown("Seccomp in /proc/PID/status could not be read")
    if mode == "0":
        return known(False, "no filter was on the process (Seccomp: 0)")
    own = policy.status("Seccomp_filters")
    if case.status.get("Seccomp_filters") != own:
        return unknown(f"filters were on the process: {case.status.get('Seccomp_filters')}, and {own} on this one")
    if case.call not in _EMPTY:
        return unknown("a filter is on the process, and there is no harmless way to try this call")
    said = tried(case)
    wanted = _EMPTY[case.call][1]
    if said == errno.EPERM and case.call in _RIGHTS_FIRST:
        return unknown(f"an empty {case.call} is refused, and that may be for want of rights over the mounts here")
    if said == case.code and said != wanted:
        return known(True, f"an empty {case.call} is refused with {errno.errorcode[said]} too, where the kernel itself "
                           f"says {errno.errorcode[wanted]}")  # fmt: skip
    if said != wanted:
        return unknown(f"an empty {case.call} is answered with {errno.errorcode.get(said, said)}")
    if case.call in ("clone3", "unshare", "setns", "mount", "keyctl"):
        return known(False, f"a filter is there, and lets an empty {case.call} through")
    return unknown(f"a filter is there, and lets an empty {case.call} through: it may look at arguments")


def tried(case: Case) -> int:
    """The errno of an empty call; of unshare(2) with the flags of the failed one and one that nobody knows."""
    args = _EMPTY[case.call][0]
    if case.call == "unshare" and case.flags is not None:
        args = (int(case.flags) | 1,)
    return syscalls.errno_of(case.call, *args)


def security_module(case: Case) -> Seen:
    """Whether there is a security module that can refuse at all."""
    listed = policy.read("/sys/kernel/security/lsm")
    if listed is not None:
        able = sorted({"apparmor", "selinux", "smack", "tomoyo", "bpf", "landlock"} & set(listed.split(",")))
        if not able:
            return known(False, f"no module that refuses is loaded: {listed}")
        return unknown(f"loaded: {', '.join(able)}", "sudo journalctl -k --since -5min | grep -i -e apparmor -e avc")
    if policy.read("/proc/self/attr/current") is None:
        return known(False, "no module gives this process a label (/proc/self/attr/current)")
    return unknown("a module gives this process a label: " + (policy.read("/proc/self/attr/current") or ""))


def old_kernel(case: Case) -> Seen:
    """Whether the running kernel is too old for the call."""
    release = os.uname().release
    need = SINCE.get(case.call)
    have = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in release.split(".")[:2])
    if need is None:
        return known(False, f"every Linux has {case.call}")
    return known(have < need, f"this is Linux {release}, and {case.call} is there since {need[0]}.{need[1]}")


_SPARE = 4  # of nsbox's own processes some have ended before this is looked at


def too_many_processes(case: Case) -> Seen:
    """Whether the user has as many threads as RLIMIT_NPROC. See getrlimit(2)."""
    if case.is_root_of_machine:
        return known(False, "root is not bound by RLIMIT_NPROC")
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if soft == resource.RLIM_INFINITY:
        return known(False, "RLIMIT_NPROC is unlimited")
    count = _tasks_of(case.euid)
    if count is None:
        return unknown(f"RLIMIT_NPROC = {soft}, and what is in use cannot be counted")
    return known(count >= soft - _SPARE, f"RLIMIT_NPROC = {soft}, in use in sight: {count}")


def too_many_files(_case: Case) -> Seen:
    """The limit on descriptors; nothing else gives EMFILE here, and those of the failed process are closed."""
    return known(True,
                 f"RLIMIT_NOFILE = {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}, and nothing else gives EMFILE")


def _tasks_of(uid: int) -> int | None:
    """Threads of one user, as far as /proc shows them."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count or None


def pids_controller(case: Case) -> Seen:
    """Whether the control group of this process has room for more. See cgroups(7)."""
    for line in (policy.read("/proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "pids" in controllers.split(","):
            for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"):
                most = policy.read(f"{top}{path}/pids.max")
                now = policy.read(f"{top}{path}/pids.current")
                if most is not None and now is not None:
                    full = most.isdigit() and int(now) >= int(most) - _SPARE
                    return known(full, f"{path}: pids.max = {most}, pids.current = {now}",
                                 f"cat {quote(top + path)}/pids.max {quote(top + path)}/pids.events")  # fmt: skip
    return known(False, "this process is in no control group with a limit on pids")


def without_program(*paths: str) -> Probe:
    """Whether programs are missing."""
    def probe(case: Case) -> Seen:
        missing = [path for path in paths if not os.access(path, os.X_OK)]
        return known(bool(missing), f"missing: {', '.join(missing)}" if missing else f"{', '.join(paths)} are there")

    return probe


def without_filesystem(case: Case) -> Seen:
    """Whether the kernel has no such type of file system. See filesystems(5)."""
    name = next((one for one in case.asked[::-1] if isinstance(one, str) and one.isidentifier()), "")
    types = {line.split()[-1] for line in (policy.read("/proc/filesystems") or "").splitlines() if line.strip()}
    if not types:
        return unknown("/proc/filesystems cannot be read")
    if not name:
        return unknown("which type it was is not known", "cat /proc/filesystems")
    there = name in types
    return known(not there, f"/proc/filesystems has {'' if there else 'no '}{name}",
                 f"grep -w {name} /proc/filesystems || sudo modprobe {name}")  # fmt: skip
