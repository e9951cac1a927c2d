"""The pod's side of a published port: which address to connect to, and from which.

The member must not see its peer as 127.0.0.1: many programs trust that one. So both ends of
the inner connection are an address of the pod that is not loopback:

- A pod with a link: each of its own addresses is tried, the source being that same address.
  What listens only on the pod's 127.0.0.1 is then not reached, as in a pod of Kubernetes or
  podman: such a program chose not to be seen from outside, and it is better known here than
  on the cluster.
- A pod with `lo` alone: one more address on `lo` for each family (LO_V4, LO_V6). There a
  program may only ever have heard of localhost, so what listens on 127.0.0.1 or ::1 is
  reached too, after the other address has refused; its peer is still LO_V4 or LO_V6.

Every pod with published ports gets LO_V4 and LO_V6, while the proxy has the right to give them:
the link of today may be gone tomorrow. They are of no use outside, so the kernel is told never to
choose them by itself where there is another (v4: scope host; v6: deprecated).

A client that came by v6 is first tried on v6, then on v4, and the other way round.
Everything here is about the network namespace of the calling process.
"""

import array
import errno
import fcntl
import os
import socket
import struct
from typing import Iterator, NamedTuple

LO_V4 = "169.254.110.115"  # link-local: routed nowhere; "ns" in ASCII
LO_V6 = "fd6e:7362:6f78::1"  # unique local: fd, then "nsbox"
_LO_LABEL = b"lo:nsbox\0"

_SIOCGIFCONF, _SIOCGIFINDEX = 0x8912, 0x8933
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: the port is chosen when the address is known
_IFREQ_BYTES = 40  # struct ifreq of linux/if.h
_IFREQS_MAX = 256
_UNUSABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED of linux/if_addr.h
_SCOPE_GLOBAL, _SCOPE_HOST = 0, 254
_NETLINK_ROUTE, _RTM_NEWADDR, _NLMSG_ERROR = 0, 20, 2  # linux/netlink.h, linux/rtnetlink.h
_REQUEST = 0x001 | 0x004 | 0x200 | 0x400  # NLM_F_REQUEST, _ACK, _EXCL, _CREATE
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO = 1, 2, 3, 6
_DEPRECATED = struct.pack("IIII", 0, 0xFFFFFFFF, 0, 0)  # struct ifa_cacheinfo: valid for ever, never preferred


class Target(NamedTuple):
    """Connect to `address` with `source` as our own."""

    family: int
    address: str
    source: str


def targets(client_family: int) -> list[Target]:
    """What to try for one client, best first. Empty: it cannot be found out, for want of descriptors, say."""
    found = [*addresses_v4(), *addresses_v6()]
    linked = [address for address in found if address not in (LO_V4, LO_V6)]
    result = [Target(_family(address), address, address) for address in linked or found]
    if not linked:
        result += [
            Target(_family(spare), loopback, spare)
            for spare, loopback in ((LO_V4, "127.0.0.1"), (LO_V6, "::1"))
            if spare in found
        ]
    result.sort(key=lambda target: target.family != client_family)  # stable: else as found
    return result


def _family(address: str) -> int:
    return int(socket.AF_INET6 if ":" in address else socket.AF_INET)


def addresses_v4() -> Iterator[str]:
    """The v4 addresses that are not loopback; none where they cannot be read. See netdevice(7), SIOCGIFCONF."""
    buffer = array.array("B", bytes(_IFREQ_BYTES * _IFREQS_MAX))
    request = struct.pack("iP", len(buffer), buffer.buffer_info()[0])  # struct ifconf
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            used_bytes: int = struct.unpack("iP", fcntl.ioctl(sock, _SIOCGIFCONF, request))[0]
    except OSError:
        return
    for start in range(0, used_bytes, _IFREQ_BYTES):
        raw = buffer[start + 20 : start + 24].tobytes()  # after the name, the family, the port
        if raw[0] != 127:
            yield socket.inet_ntoa(raw)


def addresses_v6() -> Iterator[str]:
    """The v6 addresses of global scope, ours on `lo` too; none where v6 is off, or as above. See if_inet6."""
    try:
        with open("/proc/self/net/if_inet6", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return
    for number, _index, _prefix, scope, flags, _name in lines:
        if int(scope, 16) == _SCOPE_GLOBAL and not int(flags, 16) & _UNUSABLE:
            yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number))


def ensure_address() -> None:
    """Give `lo` the addresses LO_V4 and LO_V6.

    Needs CAP_NET_ADMIN over the network namespace, and may be repeated.

    Raises:
        OSError: the v4 address cannot be given. Without v6 the pod is reached by v4 alone.
    """
    _give(LO_V4, _SCOPE_HOST, (_IFA_LABEL, _LO_LABEL))
    try:
        _give(LO_V6, _SCOPE_GLOBAL, (_IFA_CACHEINFO, _DEPRECATED))
    except OSError:
        pass  # no v6 here, or switched off


def _give(address: str, scope: int, extra: tuple[int, bytes]) -> None:
    """Give `lo` one address, that and no more: a wider mask would be a route. See rtnetlink(7)."""
    family = _family(address)
    raw = socket.inet_pton(family, address)
    # struct ifaddrmsg; see also struct rtattr and struct nlmsghdr
    body = struct.pack("BBBBI", family, len(raw) * 8, 0, scope, _index_of_lo())
    for kind, value in ((_IFA_LOCAL, raw), (_IFA_ADDRESS, raw), extra):
        body += struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    head = struct.pack("IHHII", 16 + len(body), _RTM_NEWADDR, _REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as sock:
        sock.sendto(head + body, (0, 0))
        answer = sock.recv(4096)
    kind, code = struct.unpack("4xH10xi", answer[:20])
    if kind == _NLMSG_ERROR and code not in (0, -errno.EEXIST):
        raise OSError(-code, f"netlink: {os.strerror(-code)}")


def _index_of_lo() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFINDEX, struct.pack("16si20x", b"lo", 0))
    return int(struct.unpack("16si20x", answer)[1])


def connect(
    target: Target, port: int, kind: int = socket.SOCK_STREAM
) -> tuple[socket.socket, bool]:
    """A socket on its way to a member, and whether it has arrived. Raises OSError if refused."""
    sock = socket.socket(target.family, kind | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((target.source, 0))
        code = sock.connect_ex((target.address, port))
        if code == errno.EINPROGRESS:  # inside one machine the answer is mostly there by now
            code = sock.connect_ex((target.address, port))
        if code == errno.EALREADY:
            return sock, False
        if not code and is_itself(sock, port):
            code = errno.ECONNREFUSED
        if code:
            raise OSError(code, f"connect: {os.strerror(code)}")
    except BaseException:
        sock.close()
        raise
    return sock, True


def is_itself(sock: socket.socket, port: int) -> bool:
    """Whether a socket has reached itself: by chance its own port is the one it asked for.

    TCP allows that (a simultaneous open) where nobody listens. RFC 9293, 3.5.
    """
    return bool(sock.getsockname()[1] == port)
