"""The host's side of a published port: what was asked for, and the socket that listens there.

The socket is bound in the caller's network namespace, exactly where it was asked to be: a
v4 address never opens v6 (IPV6_V6ONLY), and a port that somebody listens on is an error,
never shared (no SO_REUSEPORT). TCP has SO_REUSEADDR: connections of a dead pod that linger
in TIME_WAIT do not keep the port from the next one. UDP has not: there it would let
another program take the port over.
"""

import errno
import socket
from typing import NamedTuple

from ..errors import NsboxError
from ..linux import syscalls, trouble

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn
_UDP_BUFFER_BYTES = 1 << 20  # likewise net.core.rmem_max: a burst waits here for its turn
_IP_PKTINFO = 8  # linux/in.h

_HINTS = {
    errno.EADDRINUSE: "another program or pod listens there; with the host's port left empty, a free one is taken",
    errno.EACCES: "ports below 1024 need root, or a lower net.ipv4.ip_unprivileged_port_start",
    errno.EADDRNOTAVAIL: "no interface of this host has that address",
    errno.EAFNOSUPPORT: "this host has no IPv6",
    errno.EMFILE: "each port takes a descriptor: raise the limit, as with: ulimit -n 20000",
}


class Forward(NamedTuple):
    """One published port.

    Attributes:
        proto: "tcp" or "udp".
        host_address: numeric, v4 or v6; "0.0.0.0" and "::" are all addresses of their family.
        host_port: 0 for any free one.
        pod_port: where the member listens.
    """

    proto: str
    host_address: str
    host_port: int
    pod_port: int


class Listening(NamedTuple):
    """A forward with its real host port, and the socket that listens there."""

    forward: Forward
    socket: socket.socket


def place(forward: Forward) -> str:
    """Where it listens, as people write it: '127.0.0.1:8080', '[::1]:53/udp'."""
    v6 = ":" in forward.host_address
    address = f"[{forward.host_address}]" if v6 else forward.host_address
    return f"{address}:{forward.host_port}{'/udp' if forward.proto == 'udp' else ''}"


def is_wildcard(forward: Forward) -> bool:
    """Whether it listens on all addresses, so that the one a client used must be looked up."""
    family = socket.AF_INET6 if ":" in forward.host_address else socket.AF_INET
    raw = socket.inet_pton(family, forward.host_address.partition("%")[0])
    return not any(raw)


def listen(forward: Forward) -> Listening:
    """Bind the host's side of `forward` in the network namespace of the caller.

    The socket does not block and is close-on-exec. With port 0 the result tells which it is.

    Raises:
        NsboxError: the place is taken, forbidden or not there; the cause is the OSError.
    """
    step = "socket"
    sock = None
    syscalls.purpose = f"publish {place(forward)} -> {forward.pod_port}/{forward.proto}"
    try:
        family, address = _resolve(forward)
        kind = socket.SOCK_DGRAM if forward.proto == "udp" else socket.SOCK_STREAM
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        _set_options(sock, forward)
        step = "bind"
        sock.bind(address)
        if forward.proto == "tcp":
            step = "listen"
            sock.listen(BACKLOG)
    except OSError as err:
        if sock is not None:
            sock.close()
        failure = NsboxError(f"cannot publish {place(forward)}", hint=_HINTS.get(err.errno or 0, ""))
        raise failure from trouble.failed(step, err.errno, forward.proto, forward.host_address, forward.host_port)
    finally:
        syscalls.purpose = ""
    return Listening(forward._replace(host_port=sock.getsockname()[1]), sock)


def _resolve(forward: Forward) -> tuple[int, tuple[object, ...]]:
    """Address family and socket address; a v6 zone ('fe80::1%eth0') becomes its number."""
    found = socket.getaddrinfo(
        forward.host_address, forward.host_port, type=socket.SOCK_STREAM,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV | socket.AI_PASSIVE,
    )  # fmt: skip
    return int(found[0][0]), found[0][4]


def _set_options(sock: socket.socket, forward: Forward) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if forward.proto == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
    if not is_wildcard(forward):
        return
    # Each datagram then says which address it came to: the reply must leave from that one.
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
