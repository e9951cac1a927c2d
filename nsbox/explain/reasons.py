"""Why a system call is made: sentences for those whose reason lies in their arguments.

Each function is given the arguments, and what the caller said that it is doing; for a write that is
the file, for a clone who is born. No full stop. Runs in processes that have another root already:
nothing is imported or opened here later.
"""

import signal
from collections.abc import Sequence
from typing import Any

from ..linux import flags as fl
from . import symbols as sym

_KINDS = {
    "CLONE_NEWNS": "mount", "CLONE_NEWUTS": "UTS", "CLONE_NEWIPC": "IPC", "CLONE_NEWPID": "PID",
    "CLONE_NEWNET": "network", "CLONE_NEWUSER": "user", "CLONE_NEWCGROUP": "cgroup", "CLONE_NEWTIME": "time",
}  # fmt: skip
_PIDFD = "by a pidfd, which no other process with a recycled number can be behind"


def _kinds(flags: int) -> str:
    """'network and PID namespaces', of the CLONE_NEW* flags."""
    words = [_KINDS[name] for name in sym.names(sym.CLONE, flags).split("|") if name in _KINDS]
    return f"{listed(words)} namespace{'s' if len(words) > 1 else ''}"


def listed(words: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


_CHILDREN = {
    "middle": "a process with one thread: only in such a one is a raw clone3 or a setns safe",
    "member": "a process with one thread, which sets the member up outside of the PID namespace, where nobody in "
              "the pod sees it",
    "supervisor": "the member's parent, which outlives this command: it keeps the log and the exit status",
    "netlink": "a child enters the network namespace to be changed; this process stays where it is",
    "proxy": "the proxy of the pod's ports, which lives as long as the pod",
}


def why_clone(_args: Sequence[Any], who: str) -> str:
    return _CHILDREN.get(who, "a process of its own for what follows")


def why_clone3(args: Sequence[Any], _doing: str) -> str:
    flags = int(args[0])
    if flags & fl.CloneFlag.CLONE_FILES:
        return "a child that shares our descriptors: what it opens in the pod is open here"
    words = ["a child"]
    if flags & ~fl.CloneFlag.CLONE_PARENT:
        words.append(f"in new {_kinds(flags)}")
    first = ", where it is PID 1" if flags & fl.CloneFlag.CLONE_NEWPID else ""
    return f"{' '.join(words)}{first}; CLONE_PARENT makes it a child of nsbox, which can wait for it"


def why_setns(args: Sequence[Any], _doing: str) -> str:
    later = "; for PID that counts for children, so a clone follows" if args[1] & fl.CloneFlag.CLONE_NEWPID else ""
    return f"enter the {_kinds(int(args[1]))} behind the descriptor, all or none{later}"


def why_unshare(args: Sequence[Any], _doing: str) -> str:
    later = "; it counts for children, and its clocks can be shifted until there is one"
    return f"new {_kinds(int(args[0]))}{later if args[0] & fl.CloneFlag.CLONE_NEWTIME else ''}"


_FILE_SYSTEMS = {
    "proc": "a /proc of the new PID namespace, so that ps shows the pod and not the host",
    "sysfs": "a /sys of the new network namespace, so that it shows the pod's links",
    "tmpfs": "a file system in memory, which is gone with the namespace",
    "devpts": "terminals of the pod's own: the host's are not handed in",
    "mqueue": "shows the POSIX message queues of the IPC namespace",
    "overlay": "copy on write: what is written goes to the upper directory, the rootfs stays as it is",
    "cgroup2": "shows the cgroup tree",
}


def why_fsopen(args: Sequence[Any], _doing: str) -> str:
    fstype = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    return _FILE_SYSTEMS.get(fstype, "a new file system, attached nowhere yet")


def why_fsconfig(args: Sequence[Any], _doing: str) -> str:
    return "make it as configured" if args[1] == fl.FSCONFIG_CMD_CREATE else "an option of the new file system"


def why_fsmount(args: Sequence[Any], _doing: str) -> str:
    return f"a mount of it, attached nowhere yet: {_means(args[2]) or 'with no restriction'}"


def why_move_mount(_args: Sequence[Any], doing: str) -> str:
    return f"attach it: {doing}" if doing else "attach it where the second descriptor leads"


def why_mount(args: Sequence[Any], doing: str) -> str:
    if args[3] & fl.MountFlag.MS_PRIVATE:
        return "cut propagation first: on a systemd host all that is mounted here would appear there too"
    if args[3] & fl.MountFlag.MS_SLAVE:
        return "the host's mounts still arrive here, ours do not go back"
    return doing


_ATTRIBUTES = {
    fl.MountAttr.MOUNT_ATTR_RDONLY: "nothing can be written",
    fl.MountAttr.MOUNT_ATTR_NOSUID: "setuid bits give nothing",
    fl.MountAttr.MOUNT_ATTR_NODEV: "device nodes do not work",
    fl.MountAttr.MOUNT_ATTR_NOEXEC: "nothing can be executed",
}


def _means(attributes: int) -> str:
    return listed([word for bit, word in _ATTRIBUTES.items() if attributes & bit])


def why_setattr(args: Sequence[Any], doing: str) -> str:
    below = "with all below it" if args[2] & fl.OpenTreeFlag.AT_RECURSIVE else "for this mount alone"
    said = _means(args[3])
    return f"{said}, {below}" if said else doing


_PRCTLS = {
    "PR_SET_PDEATHSIG": "the kernel ends this process when its parent ends, kill -9 included",
    "PR_SET_DUMPABLE": "nobody in the pod can look into this process through /proc until it is the program",
    "PR_SET_NAME": "the name that ps shows",
    "PR_CAPBSET_DROP": "this capability comes back by no execve(2)",
    "PR_SET_NO_NEW_PRIVS": "no execve(2) gives more rights: setuid bits and file capabilities do nothing",
    "PR_CAP_AMBIENT": "no capability is handed over an execve(2) by itself",
    "PR_SET_SECCOMP": "system calls that the filter forbids fail from here on",
    "PR_SET_KEEPCAPS": "capabilities are kept over a change of user",
    "PR_SET_SECUREBITS": "root's user id gives no capabilities by itself",
}


def why_prctl(args: Sequence[Any], doing: str) -> str:
    return _PRCTLS.get(str(args[0]), doing)


# What privilege/limits.py says that it is doing: raising ours early, setting the program's last of all.
ALLOWING, LIMITING = "allow a hard limit", "limit the program"


def why_limit(args: Sequence[Any], doing: str) -> str:
    if doing == ALLOWING:
        return "the program is to have a higher one: here, where nsbox still has its rights, and outside of the pod"
    if doing == LIMITING:
        return "what the program may use, by --ulimit: last of all, so that it holds back none of nsbox's own steps"
    if args[1] == "RLIMIT_NOFILE":
        return "a descriptor for each client that may come"
    return "no core file, which would hold the program's memory"


def man_of_limit(args: Sequence[Any], _place: str) -> str:
    """Where to read about a limit."""
    return "prlimit(2), core(5)" if args[1] == "RLIMIT_CORE" else "prlimit(2)"


_ONCE = "as INSIDE OUTSIDE COUNT; can be written once"
_FILES = {
    "uid_map": f"which users the new user namespace knows, {_ONCE}",
    "gid_map": f"which groups the new user namespace knows, {_ONCE}",
    "setgroups": "needed before an ordinary user may write gid_map: a group may be what denies him something",
    "timens_offsets": "how far the clocks are shifted; only while nobody is in the namespace",
    "accept_ra": "believe no router advertisement that comes by this link: who sends one would become the router",
    "ip_forward": "whether this host forwards packets between its links: without it no pod reaches out",
}


def why_write(_args: Sequence[Any], path: str) -> str:
    return _FILES.get(path.rpartition("/")[2], "a setting of the kernel")


def man_of_file(_args: Sequence[Any], path: str) -> str:
    """Where to read about a file of the kernel's."""
    if path.startswith("/proc/sys/"):
        return "sysctl(8), ip(7)" if path.startswith("/proc/sys/net/") else "sysctl(8), proc(5)"
    return "user_namespaces(7), proc(5)"


_SIGNALS = {
    int(signal.SIGTERM): "ask it to end",
    int(signal.SIGKILL): "end it; a PID 1 takes its whole PID namespace along",
    int(signal.SIGCONT): "wake it, if it was stopped: who is stopped collects no child",
}


def why_signal(args: Sequence[Any], _doing: str) -> str:
    return f"{_SIGNALS.get(int(args[1]), 'a signal')}, {_PIDFD}"


MEMBER = "make the member"  # what execute.become() says that it is doing


def why_execveat(args: Sequence[Any], doing: str) -> str:
    sealed = "from a sealed file in memory: no file of the host is behind /proc/PID/exe"
    if list(args[2]) == [b"pause"]:
        return f"become the pause, {sealed}"
    if doing == MEMBER:
        return (f"become the launcher, {sealed}. It makes the member, by clone(CLONE_PARENT), in the PID namespace: "
                "there it is the first that can be seen, and executes the command, tried in each directory of its "
                "PATH")
    return f"become the launcher, which executes the command (tried in each directory of its PATH), {sealed}"


def why_close_range(args: Sequence[Any], _doing: str) -> str:
    if args[2]:
        return "no descriptor of ours goes into the program: execve(2) closes them"
    return "no descriptor of the caller stays open"


_IOCTLS = {
    "SIOCSIFFLAGS": "lo is there in a new network namespace, but down: until now nobody reaches 127.0.0.1",
    "TIOCSPTLCK": "unlock the new terminal",
    "TIOCGPTPEER": "the other end of the new terminal, asked of the kernel and not by a path of the pod",
    "TIOCSCTTY": "the new terminal becomes that of this session, so that Ctrl-C reaches the member",
}


def why_ioctl(args: Sequence[Any], doing: str) -> str:
    return _IOCTLS.get(sym.IOCTLS.get(int(args[1]), ""), doing)
