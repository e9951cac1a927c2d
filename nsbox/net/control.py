"""How other commands talk to a running proxy: add, remove and list its ports.

A socket with a path, in a directory that only its owner may enter; never an abstract one,
which any process of the network namespace could reach. A connection is one request and its
answer, in packets (SOCK_SEQPACKET) of JSON; new ports come with the sockets that listen for
them (SCM_RIGHTS, see unix(7)), bound by whoever asks, since the proxy has left the host's network.

    {"do": "add", "forwards": [...]}     with as many descriptors     {"result": null}
    {"do": "remove", "forwards": [...]}                               {"result": null}
    {"do": "list"}             {"result": [...], "more": true} ... {"result": [...]}
    anything                                                          {"error": ...}

A packet is no larger than a socket may send (net.core.wmem_default): it holds ROWS_MAX ports at
most. A longer list comes in several packets, as it was at one moment; longer requests are several.

The proxy answers nobody but its own user and, where it is in the user namespace of the host
still, root (SO_PEERCRED): the number 0 of another user namespace is not root.

That a caller goes away means nothing to the proxy. It ends with the pod or by a signal, and
then its socket refuses connections: that is how one sees that it has died.
"""

import json
import os
import socket
import struct
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from ..errors import NsboxError
from ..linux import trouble
from .listen import Forward, Listening
from .loop import IN, OUT, Loop

_MESSAGE_BYTES = 1 << 17
ROWS_MAX = 250  # at about 100 bytes each; and the kernel passes 253 descriptors at a time
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
    for part in _parts(listeners):
        request = {"do": "add", "forwards": [listening.forward for listening in part]}
        _ask(dir_fd, name, request, [listening.socket.fileno() for listening in part])


def remove(dir_fd: int, name: str, forwards: Sequence[Forward]) -> None:
    """Close ports of the proxy and reset their clients. Of ROWS_MAX ports all are there, or none is closed.

    Raises:
        NsboxError: one of them is not published, or the proxy is gone.
    """
    for part in _parts(forwards):
        _ask(dir_fd, name, {"do": "remove", "forwards": list(part)})


def status(dir_fd: int, name: str) -> list[Status]:
    """The ports of the proxy. Raises NsboxError if it is gone."""
    pages = _ask(dir_fd, name, {"do": "list"})
    try:
        return [Status(Forward(*forward), int(clients)) for page in pages for forward, clients in page]
    except (TypeError, ValueError):
        raise _not_understood() from None


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), ROWS_MAX):
        yield rows[start : start + ROWS_MAX]


def _ask(dir_fd: int, name: str, request: dict[str, Any], fds: Sequence[int] = ()) -> list[Any]:
    """One request; the results in the packets of its answer. Raises NsboxError, which may be the proxy's."""
    pages = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(f"/proc/self/fd/{dir_fd}/{name}")
            socket.send_fds(sock, [json.dumps(request).encode()], list(fds))
            more = True
            while more:
                raw = sock.recv(_MESSAGE_BYTES)
                if not raw:
                    raise ConnectionResetError("no answer")
                result, more = _read(raw)
                pages.append(result)
    except OSError as err:
        hint = "it was killed, or belongs to another user; create the pod again to publish its ports"
        raise NsboxError("cannot reach the proxy of the pod's ports", hint=hint) from err
    return pages


def _read(raw: bytes) -> tuple[Any, bool]:
    """The result in one packet, and whether there are more."""
    try:
        answer = json.loads(raw)
        failure = trouble.decode(answer["error"].encode()) if "error" in answer else None
        result = None if failure else answer["result"]
        more = bool(answer.get("more"))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise _not_understood() from None
    if failure is not None:
        raise failure
    return result, more


def _not_understood() -> NsboxError:
    hint = "it may be of another version of nsbox; create the pod again to publish its ports"
    return NsboxError("cannot understand the proxy of the pod's ports", hint=hint)


class Desk:
    """The proxy's end. `answer` gets a request and its descriptors, and takes out of the list what it keeps."""

    def __init__(self, loop: Loop, fd: int, answer: Answer, uids: frozenset[int]) -> None:
        self.loop, self.answer, self._uids = loop, answer, uids
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._calls: set[_Call] = set()
        loop.add(fd, IN, self._ready, self._pause)

    def _ready(self, _events: int) -> None:
        try:
            caller = self._sock.accept()[0]
        except BlockingIOError:
            return
        except OSError:  # no descriptors: who is asked again at once is busy with that alone
            return self._pause()
        self.loop.room -= 1
        raw = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = struct.unpack("iII", raw)[1]  # struct ucred
        if uid not in self._uids or len(self._calls) >= _CALLERS_MAX:
            return self.loop.close(caller)
        caller.setblocking(False)
        call = _Call(self.loop, caller, self.answer, self._calls.discard)
        self._calls.add(call)
        self.loop.attempt(call.end, call.begin)

    def _pause(self) -> None:
        self.loop.change(self._sock.fileno(), 0)
        self.loop.starve(self)

    def resume(self) -> None:
        """Take callers again."""
        self.loop.change(self._sock.fileno(), IN)


class _Call:
    """One caller: his request, then the packets of its answer, as fast as he reads them."""

    def __init__(
        self, loop: Loop, caller: socket.socket, answer: Answer, over: "Callable[[_Call], None]"
    ) -> None:  # fmt: skip
        self._loop, self._caller, self._answer, self._over = loop, caller, answer, over
        self._packets: list[bytes] = []
        self._open = True

    def begin(self) -> None:
        """Wait for the request."""
        self._loop.add(self._caller.fileno(), IN, self._serve, self.end)

    def _serve(self, _events: int) -> None:
        try:
            raw, fds, _flags, _ = socket.recv_fds(self._caller, _MESSAGE_BYTES, ROWS_MAX)
            self._packets = self._reply(raw, fds) if raw else []
        except OSError:
            pass
        self._loop.forget(self._caller.fileno())
        # In the next round: sockets are closed at the end of this one, and the port must be free then.
        self._loop.soon(self._begin_answer, self.end)

    def _begin_answer(self) -> None:
        self._loop.add(self._caller.fileno(), OUT, self._send, self.end)

    def _send(self, _events: int) -> None:
        try:
            while self._packets:
                self._caller.send(self._packets[0])
                del self._packets[0]
        except BlockingIOError:  # he has yet to read the ones before
            return
        except OSError:
            pass
        self.end()

    def end(self) -> None:
        """Close the connection, answered or not."""
        if self._open:
            self._open = False
            self._over(self)
            self._loop.close(self._caller)

    def _reply(self, raw: bytes, fds: list[int]) -> list[bytes]:
        try:
            result = self._answer(json.loads(raw), fds)
        except NsboxError as err:
            return [_refusal(err)]
        except OSError as err:
            failure = NsboxError("cannot do what was asked of the proxy")
            failure.__cause__ = err
            return [_refusal(failure)]
        except (ValueError, TypeError, LookupError) as err:  # a caller's mistake must not end us
            return [_refusal(NsboxError(f"cannot understand the request: {err!r}"))]
        finally:
            for fd in fds:  # what was taken over has been taken out of the list
                os.close(fd)
        pages = list(_parts(result)) or [[]] if isinstance(result, list) else [result]
        last = len(pages) - 1
        return [json.dumps({"result": page, "more": number < last}).encode() for number, page in enumerate(pages)]


def _refusal(err: NsboxError) -> bytes:
    return json.dumps({"error": trouble.encode(err).decode()}).encode()
