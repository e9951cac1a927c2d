"""What nsbox says to the kernel's network, and the programs it has speak for it, told to the listener
of linux/syscalls.py; see linux/doors.py.

    sendto    a message of netlink; its end is the kernel's answer, whenever that is read
    socket, bind, listen, sendmsg    of published ports, and of who asks the proxy
    vfork     a program that is started: nft(8), and the tools of a build

Sockets are Python's own: pyroute2 uses them too, and need not be loaded for this.
"""

import os
import resource
import socket
import struct
from typing import Any

from ..linux import syscalls
from ..linux.doors import Door, Said

_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr of linux/netlink.h
_NLMSG_ERROR, _NLM_F_ACK = 2, 0x004
_ALIGNED = 4
_DEFAULTS = (int(socket.AF_INET), int(socket.SOCK_STREAM), 0)

_asked: dict[int, Said] = {}  # requests whose answers have not been read yet, by their sockets
_input: list[bytes] = []  # what the program that is being started will read


# ---- netlink ----

def _is_netlink(sock: socket.socket) -> bool:
    return bool(sock.family == socket.AF_NETLINK)


def _sending(real: Any) -> Any:
    def through(sock: socket.socket, data: Any, *rest: Any) -> Any:
        listener = syscalls.listener()
        if listener is None or not _is_netlink(sock):
            return real(sock, data, *rest)
        said = "sendto", (sock.fileno(), bytes(data))
        listener.begin(*said)
        try:
            sent = real(sock, data, *rest)
        except OSError as err:
            listener.end(*said, -1, err.errno or 0)
            raise
        if _HEAD.unpack_from(data)[2] & _NLM_F_ACK:
            _asked[sock.fileno()] = said
        else:
            listener.end(*said, sent, 0)
        return sent

    return through


def _receiving(real: Any) -> Any:
    def through(sock: socket.socket, *args: Any) -> Any:
        got = real(sock, *args)
        if sock.fileno() in _asked:
            data = got[0] if isinstance(got, tuple) else got
            said = _asked[sock.fileno()]
            code = _answer(bytes(said[1][1]), bytes(data))  # type: ignore[call-overload]
            listener = syscalls.listener()
            if code is not None and listener is not None:
                del _asked[sock.fileno()]
                listener.end(*said, -1 if code else 0, code)
        return got

    return through


def _answer(request: bytes, data: bytes) -> int | None:
    """What the kernel answered to a request: 0, or an errno; None if it is not in `data`."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, kind, _, sequence, _ = _HEAD.unpack_from(data, at)
        if size < _HEAD.size:
            return None
        if kind == _NLMSG_ERROR and sequence == _HEAD.unpack_from(request)[3]:
            return -int(struct.unpack_from("=i", data, at + _HEAD.size)[0])
        at += size + -size % _ALIGNED
    return None


# ---- other sockets ----

def _making(real: Any) -> Any:
    def through(sock: Any, family: int = -1, kind: int = -1, proto: int = -1, fileno: Any = None) -> None:
        listener = syscalls.listener()
        if listener is None or fileno is not None:
            real(sock, family, kind, proto, fileno)
            return
        given = [default if word == -1 else int(word) for word, default in zip((family, kind, proto), _DEFAULTS)]
        said = "socket", (given[0], given[1] | socket.SOCK_CLOEXEC, given[2])
        listener.begin(*said)
        try:
            real(sock, family, kind, proto, fileno)
        except OSError as err:
            listener.end(*said, -1, err.errno or 0)
            raise
        listener.end(*said, sock.fileno(), 0)

    return through


def _bind(sock: socket.socket, address: Any) -> Said | None:
    return None if _is_netlink(sock) else ("bind", (sock.fileno(), int(sock.family), address))


def _listen(sock: socket.socket, backlog: int = 128) -> Said:
    return "listen", (sock.fileno(), backlog)


def _send_fds(sock: socket.socket, buffers: Any, fds: Any, *_rest: Any) -> Said:
    return "sendmsg", (sock.fileno(), b"".join(buffers), list(fds))


def _set_limit(what: int, limits: Any) -> Said:
    name = "RLIMIT_NOFILE" if what == resource.RLIMIT_NOFILE else str(what)
    return "prlimit64", (0, name, f"{{rlim_cur={limits[0]}, rlim_max={limits[1]}}}", None)


# ---- programs ----

def _running(real: Any) -> Any:
    def through(*args: Any, **named: Any) -> Any:
        _input.append(named.get("input") or b"")
        try:
            return real(*args, **named)
        finally:
            _input.pop()

    return through


def _starting(real: Any) -> Any:
    def through(process: Any, argv: Any, *args: Any, **named: Any) -> None:
        listener = syscalls.listener()
        env = named.get("env")
        words, variables = [os.fsdecode(word) for word in argv], os.environ if env is None else env
        said = "vfork", (words, variables, b"".join(_input[-1:]))
        if listener is not None:
            listener.begin(*said)
        try:
            real(process, argv, *args, **named)
        except OSError as err:
            if listener is not None:
                listener.end(*said, -1, err.errno or 0)
            raise
        if listener is not None:
            listener.end(*said, process.pid, 0)

    return through


def all_of() -> tuple[Door, ...]:
    """The doors, for :func:`nsbox.linux.doors.open_doors`."""
    import subprocess

    return (
        Door(socket.socket, "send", None, _sending),
        Door(socket.socket, "sendto", None, _sending),
        Door(socket.socket, "recv", None, _receiving),
        Door(socket.socket, "recvfrom", None, _receiving),
        Door(socket.socket, "__init__", None, _making),
        Door(socket.socket, "bind", _bind),
        Door(socket.socket, "listen", _listen),
        Door(socket, "send_fds", _send_fds),
        Door(resource, "setrlimit", _set_limit),
        Door(subprocess, "run", None, _running),
        Door(subprocess.Popen, "__init__", None, _starting),
    )
