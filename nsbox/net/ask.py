"""Questions to the kernel by netlink: dumps of links, addresses and sockets. See netlink(7), sock_diag(7).

For looking only. pyroute2, which does all that changes something, takes a quarter of a second to
import and a millisecond for each socket; a map of a hundred networks is to take less in all.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# linux/netlink.h, linux/rtnetlink.h, linux/sock_diag.h
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x300, 0x10
_GETLINK, _GETADDR, _GETNSID, _BY_FAMILY = 18, 22, 90, 20
NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4

_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDR = struct.Struct("=BBBBi")  # struct ifaddrmsg
_DIAG = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2, its id all zero
_ATTR = struct.Struct("=HH")  # struct rtattr
_EXT_MASK, _SKIP_STATS = 29, 1 << 3  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS: half the work of a dump

_TRIES = 10
_RECEIVE_MAX = 1 << 17
_LISTENING = {"tcp": (socket.IPPROTO_TCP, 1 << 10), "udp": (socket.IPPROTO_UDP, 1 << 7)}  # net/tcp_states.h
TABLES = tuple((proto, family) for family in (socket.AF_INET, socket.AF_INET6) for proto in _LISTENING)


class Link(NamedTuple):
    """One network interface.

    Attributes:
        number: its index.
        kind: as `ip -d link` shows it; "" for hardware and lo.
        link: of a cable the index of the other end.
        nsid: what this namespace calls the one where the other end is; None for this one itself.
        master: the index of its bridge.
    """

    number: int
    name: str
    kind: str
    up: bool
    mac: str
    mtu: int
    alias: str
    link: int | None
    nsid: int | None
    master: int | None


class Listener(NamedTuple):
    """One socket that waits for clients."""

    proto: str
    address: str
    port: int
    inode: int


def open_socket(family: int = NETLINK_ROUTE) -> socket.socket:
    """A socket of the network namespace that this process is in."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)


def links(sock: socket.socket) -> list[Link]:
    """All interfaces. Raises OSError."""
    body = _LINK.pack(0, 0, 0, 0, 0) + _ATTR.pack(8, _EXT_MASK) + _SKIP_STATS.to_bytes(4, "little")
    return [_link(part) for part in _dump(sock, _GETLINK, body)]


def _link(part: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(part)
    said = _attributes(part[_LINK.size :])

    def number(key: int) -> int | None:
        return struct.unpack("=i", said[key])[0] if key in said else None

    return Link(
        number=index,
        name=_text(said.get(3, b"")),
        kind=_text(_attributes(said[18]).get(1, b"")) if 18 in said else "",
        up=bool(flags & 1),
        mac=said.get(1, b"").hex(":"),
        mtu=number(4) or 0,
        alias=_text(said.get(20, b"")),
        link=number(5),
        nsid=number(37),
        master=number(10),
    )


def addresses(sock: socket.socket) -> Iterator[tuple[int, str]]:
    """(index of the interface, "10.9.0.2/24") of each address. Raises OSError."""
    for part in _dump(sock, _GETADDR, _ADDR.pack(0, 0, 0, 0, 0)):
        family, prefix, _, _, index = _ADDR.unpack_from(part)
        said = _attributes(part[_ADDR.size :])
        if family in (socket.AF_INET, socket.AF_INET6):
            yield index, f"{socket.inet_ntop(family, said.get(2) or said[1])}/{prefix}"  # IFA_LOCAL, IFA_ADDRESS


def nsid(sock: socket.socket, net_fd: int) -> int | None:
    """What this namespace calls another one, if it has a name for it. See RTM_GETNSID in rtnetlink(7)."""
    body = b"\0\0\0\0" + _ATTR.pack(8, 3) + net_fd.to_bytes(4, "little")
    said = [_attributes(part[4:]) for part in _asked(sock, _GETNSID, _REQUEST, body)]
    number: int = struct.unpack("=i", said[0][1])[0]
    return number if number >= 0 else None


def listeners(tables: Iterable[tuple[str, int]] = TABLES) -> Iterator[Listener]:
    """Who listens in the network namespace that this process is in. Raises OSError: no sock_diag here.

    Args:
        tables: which to look at, as ("tcp", socket.AF_INET).
    """
    with open_socket(NETLINK_SOCK_DIAG) as sock:
        for proto, family in tables:
            number, states = _LISTENING[proto]
            for part in _dump(sock, _BY_FAMILY, _DIAG.pack(family, number, 0, states)):
                [port], [inode] = struct.unpack_from(">H", part, 4), struct.unpack_from("=I", part, 68)
                size = 4 if family == socket.AF_INET else 16
                if port:
                    yield Listener(proto, socket.inet_ntop(family, part[8 : 8 + size]), port, inode)


# ---- messages ----

def _dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """The bodies of all answers. A dump that was disturbed (NLM_F_DUMP_INTR) is done again."""
    for _ in range(_TRIES):
        try:
            return list(_asked(sock, kind, _REQUEST | _DUMP, body))
        except InterruptedError:
            continue
    raise InterruptedError(4, "netlink: it changes all the time")


def _asked(sock: socket.socket, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    sock.send(_HEAD.pack(_HEAD.size + len(body), kind, flags, 0, 0) + body)
    disturbed = False
    while True:
        said = sock.recv(_RECEIVE_MAX)
        start = 0
        while start < len(said):
            length, answer, marks, _, _ = _HEAD.unpack_from(said, start)
            part = said[start + _HEAD.size : start + length]
            start += (length + 3) & ~3
            disturbed |= bool(marks & _DUMP_INTERRUPTED)
            if answer == _ERROR:
                code = -struct.unpack_from("=i", part)[0]
                raise OSError(code, f"netlink: {os.strerror(code)}")
            if answer == _DONE:
                if disturbed:
                    raise InterruptedError(4, "netlink: disturbed")
                return
            yield part
        if not flags & _DUMP:
            return


def _attributes(part: bytes) -> dict[int, bytes]:
    found, start = {}, 0
    while start + _ATTR.size <= len(part):
        length, key = _ATTR.unpack_from(part, start)
        if length < _ATTR.size:
            break
        found[key & 0x3FFF] = part[start + _ATTR.size : start + length]  # without NLA_F_NESTED and its like
        start += (length + 3) & ~3
    return found


def _text(raw: bytes) -> str:
    return os.fsdecode(raw.rstrip(b"\0"))
