"""Messages between a program that uses the library and its spawner: JSON with descriptors.

    4 bytes   length of the body, network order; the descriptors travel with these
    body      a JSON object
"""

import array
import fcntl
import json
import os
import socket
import struct
from typing import Any, Sequence

ENVIRONMENT = ("NSBOX_STATE", "NSBOX_STORE", "XDG_RUNTIME_DIR")  # what a worker takes from the program
_MAX_FDS = 8
_LENGTH = struct.Struct("!I")


def above_stdio(fd: int) -> int:
    """`fd`, or a copy from 3 up in its place: a program may have closed its stdin or stdout.

    What we open would then get their numbers, and be taken for them.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of sockets, close-on-exec, neither of them in the place of stdio."""
    ours, theirs = socket.socketpair()
    return _moved(ours), _moved(theirs)


def _moved(end: socket.socket) -> socket.socket:
    return end if end.fileno() > 2 else socket.socket(fileno=above_stdio(end.detach()))


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError, as BrokenPipeError if nobody is there."""
    body = json.dumps(message).encode()
    with_fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    # A program may have given SIGPIPE its default action back, which would end it here.
    # socket.send_fds() takes flags too, but Python 3.11 forgets to pass them on.
    channel.sendmsg([_LENGTH.pack(len(body))], with_fds, socket.MSG_NOSIGNAL)
    channel.sendall(body, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors, close-on-exec; None at the end of file."""
    head, fds, _, _ = socket.recv_fds(channel, _LENGTH.size, _MAX_FDS, socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC)
    if len(head) < _LENGTH.size:
        return None
    (left,) = _LENGTH.unpack(head)
    parts = []
    while left:
        part = channel.recv(min(left, 1 << 16))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    message: dict[str, Any] = json.loads(b"".join(parts))
    return message, list(fds)
