"""How other commands talk to a running proxy: add, remove and list its ports.

A socket with a path, in a directory that only its owner may enter; never an abstract one,
which any process of the network namespace could reach. Each request and each answer is one
packet (SOCK_SEQPACKET) of JSON; new ports come with the sockets that listen for them
(SCM_RIGHTS, see unix(7)), bound by whoever asks, since the proxy has left the host's network.
The proxy answers nobody but its own user and, where it is in the user namespace of the host
still, root (SO_PEERCRED): the number 0 of another user namespace is not root.

That a caller goes away means nothing to the proxy. It ends with the pod or by a signal, and
then its socket refuses connections: that is how one sees that it has died.
"""

import json
import os
import socket
import struct
from typing import Any, Callable, NamedTuple, Sequence

from ..errors import NsboxError
from ..linux import trouble
from .listen import Forward, Listening
from .loop import IN, Loop

_MESSAGE_BYTES = 1 << 17
FDS_MAX = 250  # the kernel passes 253 at a time
_CALLERS_MAX = 16
_TIMEOUT_S = 5.0

Answer = Callable[[dict[str, Any], list[int]], object]


class Status(NamedTuple):
    """One published port of a running proxy, and how many clients it has now."""

    forward: Forward
    clients: int


def bind(dir_fd: int, name: str) -> socket.socket:
    """The listening end: a socket `name` in a directory of mode 0700; a stale one is replaced."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        # A socket's path may have 107 bytes only, and ours may be longer.
        sock.bind(f"/proc/self/fd/{dir_fd}/{name}")
        sock.listen(_CALLERS_MAX)
    except BaseException:
        sock.close()
        raise
    return sock


def add(dir_fd: int, name: str, listeners: Sequence[Listening]) -> None:
    """Give the proxy more ports. The caller may close its own copies of the sockets then.

    Raises:
        NsboxError: the proxy is gone.
    """
    for start in range(0, len(listeners), FDS_MAX):
        part = listeners[start : start + FDS_MAX]
        request = {"do": "add", "forwards": [listening.forward for listening in part]}
        _ask(dir_fd, name, request, [listening.socket.fileno() for listening in part])


def remove(dir_fd: int, name: str, forwards: Sequence[Forward]) -> None:
    """Close ports of the proxy and reset their clients. All of them are there, or none is closed.

    Raises:
        NsboxError: one of them is not published, or the proxy is gone.
    """
    _ask(dir_fd, name, {"do": "remove", "forwards": list(forwards)})


def status(dir_fd: int, name: str) -> list[Status]:
    """The ports of the proxy. Raises NsboxError if it is gone."""
    answer = _ask(dir_fd, name, {"do": "list"})
    return [Status(Forward(*forward), clients) for forward, clients in answer]


def _ask(dir_fd: int, name: str, request: dict[str, Any], fds: Sequence[int] = ()) -> Any:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(f"/proc/self/fd/{dir_fd}/{name}")
            socket.send_fds(sock, [json.dumps(request).encode()], list(fds))
            raw = sock.recv(_MESSAGE_BYTES)
        if not raw:
            raise ConnectionResetError("no answer")
    except OSError as err:
        hint = "it was killed, or belongs to another user; create the pod again to publish its ports"
        raise NsboxError("cannot reach the proxy of the pod's ports", hint=hint) from err
    answer = json.loads(raw)
    if "error" in answer:
        raise trouble.decode(answer["error"].encode())
    return answer["result"]


class Desk:
    """The proxy's end."""

    def __init__(self, loop: Loop, fd: int, answer: Answer, uids: frozenset[int]) -> None:
        self._loop, self._answer, self._uids = loop, answer, uids
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._callers = 0
        loop.add(fd, IN, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            caller = self._sock.accept()[0]
        except OSError:
            return
        self._loop.room -= 1
        raw = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = struct.unpack("iII", raw)[1]  # struct ucred
        if uid not in self._uids or self._callers >= _CALLERS_MAX:
            return self._loop.close(caller)
        caller.setblocking(False)
        self._callers += 1
        self._loop.add(caller.fileno(), IN, lambda _events: self._serve(caller))

    def _serve(self, caller: socket.socket) -> None:
        reply = b""
        try:
            raw, fds, _flags, _ = socket.recv_fds(caller, _MESSAGE_BYTES, FDS_MAX)
            reply = self._reply(raw, fds) if raw else b""
        except OSError:
            pass
        # In the next round: sockets are closed at the end of this one, and the port must be free then.
        self._loop.forget(caller.fileno())
        self._loop.soon(lambda: self._finish(caller, reply))

    def _finish(self, caller: socket.socket, reply: bytes) -> None:
        try:
            if reply:
                caller.send(reply)
        except OSError:
            pass
        self._callers -= 1
        self._loop.close(caller)

    def _reply(self, raw: bytes, fds: list[int]) -> bytes:
        try:
            return json.dumps({"result": self._answer(json.loads(raw), fds)}).encode()
        except NsboxError as err:
            return json.dumps({"error": trouble.encode(err).decode()}).encode()
        except (ValueError, TypeError, LookupError) as err:  # a caller's mistake must not end us
            failure = NsboxError(f"cannot understand the request: {err!r}")
            return json.dumps({"error": trouble.encode(failure).decode()}).encode()
        finally:
            for fd in fds:  # what was taken over has been taken out of the list
                os.close(fd)
