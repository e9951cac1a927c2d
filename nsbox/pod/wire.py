"""Messages between a program that uses the library and its spawner: JSON with descriptors.

    4 bytes   length of the body, network order; the descriptors travel with these
    body      a JSON object
"""

import json
import socket
import struct
from typing import Any, Sequence

ENVIRONMENT = ("NSBOX_STATE", "NSBOX_STORE", "XDG_RUNTIME_DIR")  # what a worker takes from the program
_MAX_FDS = 8
_LENGTH = struct.Struct("!I")


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError, as BrokenPipeError if nobody is there."""
    body = json.dumps(message).encode()
    socket.send_fds(channel, [_LENGTH.pack(len(body))], fds)
    channel.sendall(body)


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
