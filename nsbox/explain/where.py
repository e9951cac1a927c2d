"""Where a call leads: what is behind a descriptor, and which namespaces a process is in.

Nothing is imported here after the start, and nothing opened but links of /proc read: see teller.py.
"""

import fcntl
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ..linux import namespaces
from . import catalogue, netlink

_FD_PATH = b"/proc/self/fd/"
_PIDFD, _A_PIDFD = "anon_inode:[pidfd]", "pidfd:"
_SYSCTLS, _A_NET = "/proc/sys/net/", "net:["
_OF_SOCKETS = frozenset({"sendto", "socket", "bind", "listen"})
_SIOCGIFNAME, _SIOCGSKNS = 0x8910, 0x894C  # linux/sockios.h
_readlink, _open = os.readlink, os.open
proc_fd = -1  # the /proc that the command is in: one that came later may not know us
_ioctl = fcntl.ioctl
# In a rehearsal: processes and namespaces that play a part, and those whose part it is.
_pids: dict[int, int] = {}
_ids: dict[int, int] = {}


def cast(pids: Mapping[int, int], ids: Mapping[int, int]) -> None:
    """Tell of these processes and namespaces as if they were those that they stand in for."""
    _pids.update(pids)
    _ids.update(ids)


def meant(ids: Mapping[str, int]) -> dict[str, int]:
    """The namespaces of a process, as they are told: those that are stood in for."""
    return {kind: _ids.get(number, number) for kind, number in ids.items()}


def meant_args(call: str, args: tuple[object, ...]) -> tuple[object, ...]:
    """The arguments of a call, as they are told."""
    if call == "pidfd_open" and isinstance(args[0], int):
        return (_pids.get(args[0], args[0]), *args[1:])
    return args


class Networks:
    """Which network namespace something is done in.

    A socket belongs to the one in which it was made, a file of /proc/sys/net to that of who opens it.
    """

    def __init__(self, own: int) -> None:
        self._who: dict[int, int] = {own: 0}

    def entered(self, inode: int, place: str) -> None:
        """A process went there, by a pidfd or by a file."""
        if place.startswith(_A_PIDFD):
            self._who.setdefault(inode, int(place.removeprefix(_A_PIDFD)))

    def links(self, args: Sequence[Any]) -> dict[str, str]:
        """Of a message of netlink: the names of the links that it has by number, and of its other namespace.

        "link 5" is a name, "netns" a process that is in the namespace of a peer, as :attr:`Told.net` has it.
        """
        message = netlink.parse(args[1])
        if message is None:
            return {}
        found = {f"link {number}": _name_of(args[0], number) for number in netlink.links_of(message)}
        if (fd := netlink.peer_fd(message)) is not None:
            found["netns"] = str(self._who.get(_id_of(fd), -1))
        return {key: value for key, value in found.items() if value}

    def of(self, call: str, args: Sequence[Any], places: Mapping[str, str], here: int) -> list[int]:
        """What :attr:`Told.net` says; `here` is where the process is."""
        place = places.get("0", "")
        if call in _OF_SOCKETS:
            inode = here if call == "socket" else _namespace_of(args[0]) or here
        elif call == "write" and place.startswith(_SYSCTLS):
            inode = here
        elif call == "setns" and place.startswith(_A_NET):
            inode = int(place.removeprefix(_A_NET).rstrip("]"))
        else:
            return []
        return [inode, self._who.get(inode, 0)]


def _namespace_of(fd: int) -> int:
    """The inode number of the network namespace that a socket belongs to; 0: we have no right to know."""
    try:
        ns_fd: int = _ioctl(fd, _SIOCGSKNS)
    except OSError:
        return 0
    try:
        return _id_of(ns_fd)
    finally:
        os.close(ns_fd)


def _id_of(ns_fd: int) -> int:
    number = os.fstat(ns_fd).st_ino
    return _ids.get(number, number)


def _name_of(fd: int, index: int) -> str:
    """What a link is called in the network namespace that a socket belongs to. See netdevice(7)."""
    try:
        answer: bytes = _ioctl(fd, _SIOCGIFNAME, struct.pack("16si20x", b"", index))
        return answer[:16].rstrip(b"\0").decode("utf-8", "replace")
    except OSError:
        return ""


def here() -> dict[str, int]:
    """Where this process is; for PID and time where its next child will be. Empty where there is no /proc."""
    found = {}
    for kind in namespaces.KINDS:
        for name in (f"{kind.name}_for_children", kind.name):
            try:
                found[kind.name] = os.stat(f"self/ns/{name}", dir_fd=proc_fd).st_ino
                break
            except OSError:
                continue
    return meant(found)


def goal(fd: Any, flags: Any) -> dict[str, int]:
    """Where setns(2) leads to: of a pidfd the namespaces of that process, else that of the file."""
    names = {kind.name for kind in namespaces.KINDS if kind.flag & flags}
    try:
        place = behind(fd)
        if not place.startswith("pidfd:"):
            return {name: _id_of(fd) for name in names}
        found = namespaces.ids_of(place.removeprefix("pidfd:"))
        return meant({name: number for name, number in found.items() if name in names})
    except (OSError, ValueError):
        return {}


def places(call: str, args: Sequence[Any], opened: Mapping[int, str]) -> dict[str, str]:
    """What is behind the descriptors among the arguments, by position."""
    known = catalogue.CALLS.get(call)
    found = {str(at): behind(args[at]) or opened.get(args[at], "") for at in (known.fds if known else ())}
    if call == "fsconfig" and isinstance(args[3], bytes) and args[3].startswith(_FD_PATH):
        found["3"] = behind(int(args[3].removeprefix(_FD_PATH)))
    return found


def behind(fd: object) -> str:
    """The path that the kernel has for a descriptor, "pidfd:4711" for a pidfd, or ""."""
    try:
        place = _readlink(f"self/fd/{fd}", dir_fd=proc_fd)
        if place.startswith(_A_NET):
            number = int(place.removeprefix(_A_NET).rstrip("]"))
            return f"{_A_NET}{_ids.get(number, number)}]"
        if place != _PIDFD:
            return place
        with open(_open(f"self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd), "rb") as file:
            pid = next(int(line.split()[1]) for line in file if line.startswith(b"Pid:"))
            return f"{_A_PIDFD}{_pids.get(pid, pid)}"
    except (OSError, StopIteration):
        return ""
