"""What was told, as commands for a shell: unshare, nsenter, mount, ip, nft and their kin.

One Hand follows one process. A system call is seldom one command: fsopen, fsconfig, fsmount and
move_mount together are one mount(8), so a Hand remembers the beginnings and speaks at the end.
What no command can do is said in a comment, "# ...".

Used in the processes that are told about, inside other roots: nothing is imported or opened later.
"""

import os
import shlex
import signal
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from ..linux import flags as fl
from . import iproute
from .reasons import LIMITING
from .teller import Told

_ATTRIBUTES = {
    fl.MountAttr.MOUNT_ATTR_RDONLY: "ro", fl.MountAttr.MOUNT_ATTR_NOSUID: "nosuid",
    fl.MountAttr.MOUNT_ATTR_NODEV: "nodev", fl.MountAttr.MOUNT_ATTR_NOEXEC: "noexec",
}  # fmt: skip
UNSHARE = {
    fl.CloneFlag.CLONE_NEWUSER: "--user", fl.CloneFlag.CLONE_NEWPID: "--pid", fl.CloneFlag.CLONE_NEWUTS: "--uts",
    fl.CloneFlag.CLONE_NEWIPC: "--ipc", fl.CloneFlag.CLONE_NEWNET: "--net", fl.CloneFlag.CLONE_NEWCGROUP: "--cgroup",
    fl.CloneFlag.CLONE_NEWTIME: "--time", fl.CloneFlag.CLONE_NEWNS: "--mount",
}  # fmt: skip
_END = "END_OF_RULES"
_IN_A_ROOT = frozenset({"pause", "member"})  # where there may be no sysctl(8)
_LOWER_FD = 9  # the largest number that every shell can redirect


class Mount(NamedTuple):
    """One that is being made: a new file system, or a copy of what is mounted somewhere."""

    fstype: str = ""
    options: tuple[str, ...] = ()
    attributes: int = 0
    source: str = ""
    recursive: bool = False
    attached: str = ""


class Hand:
    """Follows the calls of one process.

    Args:
        name_of: how a PID is written.
        place_of: how a path is written.

    Attributes:
        chrooted: the directory that chroot(2) was called for; a shell cannot follow there.
    """

    def __init__(self, name_of: Callable[[int], str] = str, place_of: Callable[[str], str] = shlex.quote) -> None:
        self.chrooted = ""
        self._new: dict[int, Mount] = {}
        self._lower_fd = -1
        self._stands_in = ""
        self._name_of, self._place_of = name_of, place_of

    def lines(self, told: Told) -> list[str]:
        """The commands that stand for this call, after what was told before; often none yet."""
        speak = _SPEAK.get(told.call)
        return [] if speak is None or told.error else speak(self, told)

    # ---- mounts ----

    def fsopen(self, told: Told) -> list[str]:
        self._new[told.result] = Mount(fstype=told.values[0])
        return []

    def fsconfig(self, told: Told) -> list[str]:
        fd, command, key, value = told.values[:4]
        if key == "pidns":  # by hand one is in that namespace already, and it is its own
            return []
        if command == fl.FSCONFIG_CMD_CREATE or fd not in self._new:
            return []
        place = told.places.get("3", "")
        if key == "lowerdir" and value == f"/proc/self/fd/{self._lower_fd}":
            value = f"/proc/self/fd/{_LOWER_FD}"
        elif place:
            value = place
        option = key if command == fl.FSCONFIG_SET_FLAG else f"{key}={value}"
        self._new[fd] = self._new[fd]._replace(options=(*self._new[fd].options, option))
        return []

    def fsmount(self, told: Told) -> list[str]:
        fd, _, attributes = told.values
        self._new[told.result] = self._new.pop(fd, Mount())._replace(attributes=attributes)
        return []

    def open_tree(self, told: Told) -> list[str]:
        recursive = bool(told.values[2] & fl.OpenTreeFlag.AT_RECURSIVE)
        self._new[told.result] = Mount(source=told.places.get("0", "?"), recursive=recursive)
        return []

    def mount_setattr(self, told: Told) -> list[str]:
        fd, attributes = told.values[0], told.values[3]
        below = bool(told.values[2] & fl.OpenTreeFlag.AT_RECURSIVE)
        made = self._new.get(fd)
        if made is None:  # a mount that was there before; what it has else stays
            return [_remount(Mount(attributes=attributes, recursive=below), told.places.get("0", "?"))]
        self._new[fd] = made = made._replace(attributes=made.attributes | attributes)
        return [_remount(made._replace(recursive=below), made.attached)] if made.attached else []

    def move_mount(self, told: Told) -> list[str]:
        fd, target_fd = told.values[0], told.values[2]
        target = told.places.get("2", "?")
        made = self._new.get(fd)
        if made is None:  # made by another process: a descriptor cannot be handed to mount(8)
            return ["# the mount was handed over as a descriptor; by hand it is a new one",
                    f"mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=64m tmpfs {shlex.quote(target)}"]
        self._new[fd] = made._replace(attached=target)
        before: list[str] = []
        if told.doing.startswith("use rootfs"):
            if made.fstype == "tmpfs":  # about to cover the rootfs, which the overlay needs below it
                self._lower_fd = target_fd
                before = [f"exec {_LOWER_FD}< {shlex.quote(target)}"]
        return [*before, *_mount(made, target, self._place_of)]

    def mount(self, told: Told) -> list[str]:
        target, flags = told.values[1], told.values[3]
        kind = "private" if flags & fl.MountFlag.MS_PRIVATE else "slave" if flags & fl.MountFlag.MS_SLAVE else "?"
        every = "r" if flags & fl.MountFlag.MS_REC else ""
        return [f"mount --make-{every}{kind} {shlex.quote(target)}"]

    def fchdir(self, told: Told) -> list[str]:
        made = self._new.get(told.values[0])
        self._stands_in = "" if made is not None and not made.attached else told.places.get("0", "?")
        return [f"cd {shlex.quote(self._stands_in)}"] if self._stands_in else []

    def chdir(self, told: Told) -> list[str]:
        return [f"cd {shlex.quote(told.values[0])}"]

    def pivot_root(self, _told: Told) -> list[str]:
        return ["pivot_root . ."]

    def umount2(self, told: Told) -> list[str]:
        return [f"umount -l {shlex.quote(told.values[0])}"]

    def chroot(self, _told: Told) -> list[str]:
        if not self._stands_in:
            return ["# here it goes into an empty root, of a mount that is attached nowhere: no command can do that"]
        self.chrooted = self._stands_in
        return []

    # ---- files ----

    def mknodat(self, told: Told) -> list[str]:
        place, mode, device = _path(told, 0, 1), told.values[2], told.values[3]
        kind = "c" if stat.S_ISCHR(mode) else "b"
        return [f"mknod -m {stat.S_IMODE(mode):o} {place} {kind} {os.major(device)} {os.minor(device)}"]

    def symlinkat(self, told: Told) -> list[str]:
        return [f"ln -s {shlex.quote(told.values[0])} {_path(told, 1, 2)}"]

    def mkdirat(self, told: Told) -> list[str]:
        return [f"mkdir -m {told.values[2]:o} {_path(told, 0, 1)}"]

    def openat(self, told: Told) -> list[str]:
        return [f": > {_path(told, 0, 1)}"]

    def fchmodat(self, told: Told) -> list[str]:
        return [f"chmod {told.values[2]:o} {_path(told, 0, 1)}"]

    def fchownat(self, told: Told) -> list[str]:
        return [f"chown {told.values[2]}:{told.values[3]} {_path(told, 0, 1)}"]

    def rename(self, told: Told) -> list[str]:
        return [f"mv {shlex.join(told.values[:2])}"]

    # ---- processes ----

    def clone3(self, told: Told) -> list[str]:
        words = [word for flag, word in UNSHARE.items() if told.values[0] & flag]
        return [f"unshare {' '.join(words)} --propagation unchanged --fork ..."] if words else []

    def unshare(self, told: Told) -> list[str]:
        return [f"unshare {' '.join(word for flag, word in UNSHARE.items() if told.values[0] & flag)} ..."]

    def setns(self, told: Told) -> list[str]:
        if told.net:  # by a file that has no name: back to where the command is, or again to where somebody is
            return [f"nsenter --target {self._name_of(told.net[1])} --net ..."] if told.net[1] else []
        return [f"{nsenter(told, self._name_of)} ..."]

    def sethostname(self, told: Told) -> list[str]:
        return [f"hostname {shlex.quote(told.values[0])}"]

    def setdomainname(self, told: Told) -> list[str]:
        return [f"domainname {shlex.quote(told.values[0])}"]

    def ioctl(self, told: Told) -> list[str]:
        return ["ip link set lo up"] if "SIOCSIFFLAGS" in told.text else []

    # ---- networks ----

    def sendto(self, told: Told) -> list[str]:
        return [self._within(told, line) for line in iproute.lines(self._with_names(told))]

    def _with_names(self, told: Told) -> Told:
        """The same, and the process whose network gets the other end of a cable by its name."""
        netns = int(told.places.get("netns", 0))
        return told._replace(places={**told.places, "netns": self._name_of(netns)}) if netns > 0 else told

    def _within(self, told: Told, line: str) -> str:
        """A command in the network namespace in which it was done."""
        pid = told.net[1] if told.net else 0
        return f"nsenter --target {self._name_of(pid)} --net {line}" if pid > 0 else line

    def execve(self, told: Told) -> list[str]:
        if told.is_of_nsbox:
            return [_program(*told.values)]
        _, argv, env = told.values
        root = f"chroot {shlex.quote(self.chrooted)} " if self.chrooted else ""
        return [f"exec {root}env -i {' '.join(map(shlex.quote, (*env, *argv)))}"]

    def execveat(self, told: Told) -> list[str]:
        _, _, argv, env, _ = told.values
        return [] if argv == ["pause"] else self.execve(told._replace(values=["", argv, env]))

    def write(self, told: Told) -> list[str]:
        place = told.places.get("0", "")
        if told.net and told.who not in _IN_A_ROOT:
            key = place.removeprefix("/proc/sys/")
            return [self._within(told, f"sysctl -qw {shlex.quote(f'{key}={told.values[1]}')}")]
        return [f"{printf(told.values[1])} > {shlex.quote(told.places.get('0', '?'))}"]

    def pwrite64(self, told: Told) -> list[str]:
        appends = ">>" if told.values[3] else ">"
        return [f"{printf(told.values[1])} {appends} {self._place_of(told.places['0'])}"]

    def sendmsg(self, told: Told) -> list[str]:
        return ["# the pod's proxy is asked by its socket, which no command speaks to"]

    def prlimit64(self, told: Told) -> list[str]:
        return [f"prlimit --pid $$ {option}"] if (option := limit(told)) else []

    def pidfd_send_signal(self, told: Told) -> list[str]:
        return [f"kill -{_signal(told.values[1])} {self._name_of(pid_of(told.places['0']))}"]

    def kill(self, told: Told) -> list[str]:
        return [f"kill -{_signal(told.values[1])} -- {told.values[0]}"]


def _program(_path: str, argv: list[str], _env: list[str], given: str) -> str:
    """A program that nsbox runs, and what it reads."""
    line = shlex.join([os.path.basename(argv[0]), *argv[1:]])
    return f"{line} <<'{_END}'\n{given}{_END}" if given else line


def limit(told: Told) -> str:
    """The option of prlimit(1) that stands for a limit of --ulimit; "" if it is none."""
    if told.call != "prlimit64" or told.doing != LIMITING:
        return ""
    soft, hard = (word.partition("=")[2] for word in told.values[2].strip("{}").split(", "))
    return f"--{told.values[1].removeprefix('RLIMIT_').lower()}={_bound(soft)}:{_bound(hard)}"


def _bound(word: str) -> str:
    """A number as strace(1) writes it, for prlimit(1)."""
    number, _, times = word.partition("*")
    return "unlimited" if word == "RLIM64_INFINITY" else str(int(number) * int(times or 1))


def pid_of(place: str) -> int:
    """Whom a pidfd is of, as Told.places has it."""
    return int(place.removeprefix("pidfd:")) if place.startswith("pidfd:") else 0


def nsenter(told: Told, name_of: Callable[[int], str] = str) -> str:
    """What stands for a setns(2)."""
    words = [word for flag, word in UNSHARE.items() if told.values[1] & flag]
    if pid := pid_of(told.places["0"]):
        return f"nsenter --target {name_of(pid)} {' '.join(words)}"
    return f"nsenter {words[0]}={shlex.quote(told.places['0'])}"


def printf(text: str) -> str:
    """A command that prints `text`."""
    lines = text.rstrip("\n").split("\n")
    return f"printf '%s\\n' {' '.join(map(shlex.quote, lines))}"


def _mount(made: Mount, target: str, place_of: Callable[[str], str]) -> list[str]:
    where = shlex.quote(target)
    if not made.fstype:
        bound = [f"mount --{'r' * made.recursive}bind {place_of(made.source)} {where}"]
        return bound + ([_remount(made, target)] if made.attributes else [])
    # "ro" in the options would make the file system read-only, and not this mount of it.
    options = [word for bit, word in _ATTRIBUTES.items() if made.attributes & bit and word != "ro"]
    words = ",".join([*options, *made.options])
    lines = [f"mount -t {made.fstype} {f'-o {shlex.quote(words)} ' if words else ''}{made.fstype} {where}"]
    return lines + ([_remount(made, target)] if made.attributes & fl.MountAttr.MOUNT_ATTR_RDONLY else [])


def _remount(made: Mount, target: str) -> str:
    words = [word for bit, word in _ATTRIBUTES.items() if made.attributes & bit]
    change = f"mount -o remount,bind,{','.join(words)}"
    if made.recursive:
        return f'findmnt -lRno TARGET {shlex.quote(target)} | while read -r place; do {change} "$place"; done'
    return f"{change} {shlex.quote(target)}"


def _path(told: Told, fd_at: int, name_at: int) -> str:
    return shlex.quote(os.path.join(told.places.get(str(fd_at), "?"), told.values[name_at]))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


_SPEAK: dict[str, Callable[[Hand, Told], list[str]]] = {
    name: getattr(Hand, name) for name in vars(Hand) if not name.startswith("_") and name != "lines"
}
