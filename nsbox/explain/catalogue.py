"""What explain knows of each system call: how its arguments are written, what it is for, where to read.

To add a call: a row here; a row in linux/doors.py too, where Python makes the call (os.something)
and not linux/syscalls.py. A call without a row is told with its arguments as they are and without
a reason. tests/test_explain_oracle.py fails for a call that changes something and is not told.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..linux import flags as fl
from . import netlink, netreasons
from . import reasons as why_
from . import symbols as sym

Why = Callable[[Sequence[Any], str], str]


class Call(NamedTuple):
    """One system call.

    Attributes:
        args: how each argument is written.
        man: where to read, as "setns(2)", or who can say that.
        why: what it is for, or who can say that; see reasons.py.
        form: the arguments, where they are not simply in a row.
        plumbing: a step on the way to another call: --step does not wait for it.
        fds: which arguments are descriptors; what is behind them is told too.
    """

    args: tuple[sym.Show, ...]
    man: str | Why
    why: str | Why
    form: str = ""
    plumbing: bool = False
    fds: tuple[int, ...] = ()


def _bits(**named: int) -> sym.Show:
    return sym.flags({value: name for name, value in named.items()})


def _enum(enum: Any) -> sym.Show:
    return sym.flags({int(flag): str(flag.name) for flag in enum})


def _signal_or_none(value: int) -> str:
    return sym.signal_name(value) if value else "0"


_FD, _TEXT, _NUMBER, _MODE = sym.fd, sym.text, sym.number, sym.mode
_CLONE, _ATTRS = sym.flags(sym.CLONE), sym.flags(sym.MOUNT_ATTR)
_AT = _bits(AT_EMPTY_PATH=fl.AT_EMPTY_PATH, AT_RECURSIVE=int(fl.OpenTreeFlag.AT_RECURSIVE))
_COMMAND = sym.choice({fl.FSCONFIG_SET_FLAG: "FSCONFIG_SET_FLAG", fl.FSCONFIG_SET_STRING: "FSCONFIG_SET_STRING",
                       fl.FSCONFIG_CMD_CREATE: "FSCONFIG_CMD_CREATE"})  # fmt: skip
_SEALS = _bits(F_SEAL_SEAL=1, F_SEAL_SHRINK=2, F_SEAL_GROW=4, F_SEAL_WRITE=8)
_SOCKET = _bits(SOCK_STREAM=1, SOCK_DGRAM=2, SOCK_CLOEXEC=0o2000000, SOCK_NONBLOCK=0o4000)

_PROCESSES = {
    "clone": Call((_TEXT, sym.flags({**sym.CLONE, 17: "SIGCHLD"})), "clone(2), fork(2)", why_.why_clone,
                  form="child_stack={}, flags={}"),
    "clone3": Call((_CLONE, _signal_or_none), "clone3(2), namespaces(7)", why_.why_clone3,
                   form="{{flags={}, exit_signal={}}}, 88"),
    "unshare": Call((_CLONE,), "unshare(2), namespaces(7)", why_.why_unshare),
    "setns": Call((_FD, _CLONE), "setns(2), namespaces(7)", why_.why_setns, fds=(0,)),
    "setsid": Call((), "setsid(2)",
                   "a session of its own: no signal and no hang-up of the caller's terminal reaches it"),
    "sethostname": Call((_TEXT, _NUMBER), "sethostname(2), uts_namespaces(7)",
                        "the hostname of the new UTS namespace; the host's stays"),
    "setdomainname": Call((_TEXT, _NUMBER), "setdomainname(2), uts_namespaces(7)",
                          "the domain name of the new UTS namespace, of --sysctl; the host's stays"),
    "execve": Call((_TEXT, sym.words, sym.environment), netreasons.man_of_program, netreasons.why_execve),
    "execveat": Call((_FD, _TEXT, sym.words, sym.environment, _AT), "execveat(2)",
                     why_.why_execveat),
    "pidfd_open": Call((_NUMBER, _NUMBER), "pidfd_open(2)",
                       "a descriptor of this very process: its number may be another's one day", plumbing=True),
    "pidfd_send_signal": Call((_FD, sym.signal_name, _TEXT, _NUMBER), "pidfd_send_signal(2), signal(7)",
                              why_.why_signal, fds=(0,)),
    "kill": Call((_NUMBER, sym.signal_name), "kill(2), signal(7)",
                 "to a child of ours that nobody has waited for, so the number is still its own"),
}  # fmt: skip

_IDS = "who the process is from here on"
_RIGHTS = {
    "setgroups": Call((_NUMBER, sym.integers), "setgroups(2)", "leave the caller's supplementary groups behind"),
    "setresuid": Call((_NUMBER,) * 3, "setresuid(2), credentials(7)", _IDS),
    "setresgid": Call((_NUMBER,) * 3, "setresgid(2), credentials(7)", _IDS),
    "setreuid": Call((_NUMBER,) * 2, "setreuid(2), credentials(7)", _IDS),
    "setregid": Call((_NUMBER,) * 2, "setregid(2), credentials(7)", _IDS),
    "setuid": Call((_NUMBER,), "setuid(2), credentials(7)", _IDS),
    "setgid": Call((_NUMBER,), "setgid(2), credentials(7)", _IDS),
    "prctl": Call((str,) * 5, "prctl(2)", why_.why_prctl),
    "capset": Call((sym.capabilities,) * 3, "capset(2), capabilities(7)",
                   "the capabilities that the process has from here on",
                   form="{{version=_LINUX_CAPABILITY_VERSION_3, pid=0}}, "
                        "{{effective={}, permitted={}, inheritable={}}}"),
    "prlimit64": Call((_NUMBER, str, str, _TEXT), why_.man_of_limit, why_.why_limit),
    "keyctl": Call((str, _TEXT), "keyctl(2), session-keyring(7)",
                   "a session keyring of its own: the keys of who called nsbox stay outside"),
    "seccomp": Call((sym.choice({fl.SECCOMP_SET_MODE_FILTER: "SECCOMP_SET_MODE_FILTER"}), _NUMBER, _NUMBER),
                    "seccomp(2)", "from here on the kernel asks this program about every system call, for good",
                    form="{}, {}, {{len={}}}"),
    "write": Call((_FD, _TEXT, _NUMBER), why_.man_of_file, why_.why_write, fds=(0,)),
}  # fmt: skip

_NAMES = {
    "pwrite64": Call((_FD, _TEXT, _NUMBER, _NUMBER), "pwrite(2), hosts(5), resolv.conf(5)",
                     "the names that a pod finds: a file that is mounted into it, rewritten in place", fds=(0,)),
}
_MOUNTS = {
    "mount": Call((_TEXT, _TEXT, _TEXT, sym.flags(sym.MOUNT), _TEXT), "mount(2), mount_namespaces(7)", why_.why_mount),
    "umount2": Call((_TEXT, _bits(MNT_DETACH=fl.MNT_DETACH)), "umount2(2), pivot_root(2)",
                    "take the old root off the top of the new one: then nothing of the host is in the tree"),
    "fsopen": Call((_TEXT, _bits(FSOPEN_CLOEXEC=fl.FSOPEN_CLOEXEC)), "fsopen(2)", why_.why_fsopen, plumbing=True),
    "fsconfig": Call((_FD, _COMMAND, _TEXT, _TEXT, _NUMBER), "fsconfig(2)", why_.why_fsconfig, plumbing=True,
                     fds=(0,)),
    "fsmount": Call((_FD, _bits(FSMOUNT_CLOEXEC=fl.FSMOUNT_CLOEXEC), _ATTRS), "fsmount(2)", why_.why_fsmount,
                    plumbing=True, fds=(0,)),
    "move_mount": Call((_FD, _TEXT, _FD, _TEXT, _enum(fl.MoveMountFlag)), "move_mount(2)", why_.why_move_mount,
                       fds=(0, 2)),
    "open_tree": Call((_FD, _TEXT, _enum(fl.OpenTreeFlag)), "open_tree(2)",
                      "a copy of the mount, attached nowhere: what a bind mount attaches", fds=(0,)),
    "mount_setattr": Call((_FD, _TEXT, _AT, _ATTRS, _NUMBER), "mount_setattr(2)", why_.why_setattr,
                          form="{}, {}, {}, {{attr_set={}}}, {}", fds=(0,)),
    "openat2": Call((_FD, _TEXT, sym.open_flags, _MODE, _enum(fl.Resolve), _NUMBER), "openat2(2)",
                    "find the place as if the descriptor were /: no symlink of the rootfs leads out of it",
                    form="{0}, {1}, {{flags={2}, resolve={4}}}, {5}", plumbing=True, fds=(0,)),
    "pivot_root": Call((_TEXT, _TEXT), "pivot_root(2)",
                       "swap the root of this mount namespace; the old one lands on top of the new one"),
    "chroot": Call((_TEXT,), "chroot(2)", "another root directory for this process, nothing more"),
    "chdir": Call((_TEXT,), "chdir(2)", "a work directory inside the new root", plumbing=True),
    "fchdir": Call((_FD,), "fchdir(2)", "stand where the descriptor leads", plumbing=True, fds=(0,)),
}  # fmt: skip

_FILES = {
    "mknodat": Call((_FD, _TEXT, sym.node_mode, sym.device), "mknod(2), null(4)",
                    "a node of our own: the host's would let pod root change the host's permissions of it", fds=(0,)),
    "symlinkat": Call((_TEXT, _FD, _TEXT), "symlink(2)", "what programs expect in /dev", fds=(1,)),
    "mkdirat": Call((_FD, _TEXT, _MODE), "mkdir(2)", "a place for what comes next", plumbing=True, fds=(0,)),
    "fchmodat": Call((_FD, _TEXT, _MODE), "chmod(2)", "the mode of the original", plumbing=True, fds=(0,)),
    "fchownat": Call((_FD, _TEXT, _NUMBER, _NUMBER, _NUMBER), "chown(2)", "the owner of the original", plumbing=True,
                     fds=(0,)),
    "openat": Call((_FD, _TEXT, sym.open_flags, _MODE), "open(2)", "an empty file to mount on", plumbing=True,
                   fds=(0,)),
    "memfd_create": Call((_TEXT, _bits(MFD_CLOEXEC=fl.MFD_CLOEXEC, MFD_ALLOW_SEALING=fl.MFD_ALLOW_SEALING)),
                         "memfd_create(2)",
                         "a file in memory for a program: no file of the host is executed in the pod"),
    "rename": Call((_TEXT, _TEXT), "rename(2)", "put it in its place, or aside: whole or not at all"),
    "fchmod": Call((_FD, _MODE), "chmod(2)", "it can be executed, and its bytes be read by nobody", plumbing=True,
                   fds=(0,)),
    "fcntl": Call((_FD, sym.choice(sym.FCNTLS), _SEALS), "fcntl(2)",
                  "seal the file: nobody can change these bytes any more", plumbing=True, fds=(0,)),
    "close_range": Call((_NUMBER, _NUMBER, _bits(CLOSE_RANGE_CLOEXEC=fl.CLOSE_RANGE_CLOEXEC)), "close_range(2)",
                        why_.why_close_range, plumbing=True),
    "ioctl": Call((_FD, sym.choice(sym.IOCTLS), str), "netdevice(7), ioctl_tty(2)", why_.why_ioctl, fds=(0,)),
}  # fmt: skip

_NETWORK = {
    "socket": Call((sym.choice(sym.FAMILIES), _SOCKET, sym.protocol), "socket(2), netdevice(7)",
                   "a socket to ask the network namespace by", plumbing=True),
    "bind": Call((_FD, _NUMBER, sym.socket_address), "bind(2), ip(7)", netreasons.why_bind, form="{0}, {2}"),
    "listen": Call((_FD, _NUMBER), "listen(2)", "from here on clients can connect; they wait to be accepted"),
    "sendmsg": Call((_FD, sym.io_vector, sym.integers), "sendmsg(2), unix(7)", netreasons.why_sendmsg,
                    form="{0}, {{msg_iov={1}, SCM_RIGHTS={2}}}, 0"),
    "sendto": Call((_FD, netlink.written), netreasons.man_of_message, netreasons.why_message),
    "vfork": Call((), "vfork(2)", "a child that becomes a program at once", plumbing=True),
}  # fmt: skip

CALLS: Mapping[str, Call] = {**_PROCESSES, **_RIGHTS, **_MOUNTS, **_FILES, **_NAMES, **_NETWORK}
_READING = ("PR_GET", "PR_CAPBSET_READ")


def is_told(call: str, args: Sequence[Any]) -> bool:
    """Whether a call changes something; those that only ask are not told."""
    if call == "ioctl":
        return int(args[1]) in sym.IOCTLS
    if call == "fcntl":
        return int(args[1]) in sym.FCNTLS
    if call == "socket":
        return args[0] in sym.FAMILIES
    if call == "bind":
        return bool(args[1] != sym.AF_NETLINK)
    if call == "sendto":
        return netlink.parse(args[1]) is not None
    if call == "sendmsg":
        return bytes(args[1]).startswith((b'{"do": "add"', b'{"do": "remove"'))
    return not (call == "capget" or call == "prctl" and str(args[0]).startswith(_READING))


def written(call: str, args: Sequence[Any]) -> str:
    """The call as strace(1) writes it, without its result."""
    known = CALLS.get(call)
    try:
        if known is not None:
            return _written(call, known, args)
    except (AttributeError, IndexError, TypeError, ValueError):
        pass  # told badly is better than not done: what listens must never be in the way
    return f"{call}({', '.join(sym.anything(arg) for arg in args)})"


def _written(call: str, known: Call, args: Sequence[Any]) -> str:
    shown = [show(arg) for show, arg in zip(known.args, args)]
    if call == "ioctl":
        shown[2] = sym.ioctl_argument(int(args[1]), args[2])
    if call == "prctl":
        shown[1:2] = [sym.prctl_argument(shown[0], arg) for arg in args[1:2]]
    return f"{call}({known.form.format(*shown) if known.form else ', '.join(shown)})"


def man(call: str, args: Sequence[Any], place: str) -> str:
    """Where to read about it; of a write to a file, `place`."""
    known = CALLS.get(call)
    if known is None:
        return f"{call}(2)"
    return known.man if isinstance(known.man, str) else known.man(args, place)


def why(call: str, args: Sequence[Any], doing: str) -> str:
    """What the call is for.

    Args:
        doing: what the caller said that it does; for a write the file.
    """
    known = CALLS.get(call)
    if known is None:
        return doing
    try:
        return known.why if isinstance(known.why, str) else known.why(args, doing)
    except (AttributeError, IndexError, TypeError, ValueError):
        return doing
