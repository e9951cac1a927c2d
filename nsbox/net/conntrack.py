"""Connections that the kernel remembers, and forgetting those of a port that changes its owner.

The kernel looks at its address translation rules for the first packet of a flow only. So the
flows of a port outlive the rule: a UDP client that goes on sending is led to a pod that is gone,
or, where there was no rule at first, never to the pod. See conntrack(8).
"""

import errno
import socket
from typing import Any, NamedTuple

from . import apart, inside

_PROTO = {"tcp": 6, "udp": 17}
_IPS_DST_NAT = 1 << 5  # linux/netfilter/nf_conntrack_common.h
_WILDCARDS = ("0.0.0.0", "::")


class _Flow(NamedTuple):
    """The way of a flow's first packet."""

    saddr: str
    daddr: str
    sport: int
    dport: int


def forget(proto: str, host_address: str, host_port: int) -> int:
    """Make the kernel forget the flows to a port of this host; how many there were.

    These are the flows to exactly that address and port that were led to somewhere else, and for
    UDP also those that were not. A TCP connection to a program of the host itself stays. With a
    wildcard address the flows to all of the host's own addresses of that family are meant, and
    not those that go from here to the same port elsewhere.

    Args:
        proto: "tcp" or "udp".
    """
    def work() -> int:
        family = socket.AF_INET6 if ":" in host_address else socket.AF_INET
        wanted = {_plain(host_address, family)}
        if host_address in _WILDCARDS:
            wanted = _own_addresses(family)
        from pyroute2 import Conntrack  # type: ignore[import-untyped]

        with Conntrack(nfgen_family=int(family)) as table:
            found = apart.dumped(lambda: table.dump(tuple_orig=_tuple(family, proto, dport=host_port)))
            flows = {flow for flow in map(_flow(family, proto, host_port), found) if flow}
            return sum(_delete(table, family, proto, flow) for flow in flows if flow.daddr in wanted)

    return int(apart.run(f"forget the flows of port {host_port}/{proto}", work))


def _plain(address: str, family: int) -> str:
    """The one spelling of an address."""
    return socket.inet_ntop(family, socket.inet_pton(family, address))


def _own_addresses(family: int) -> set[str]:
    with inside.netlink() as nl:
        every = apart.dumped(lambda: nl.addr("dump", family=int(family)))
    words = (one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS") for one in every)
    return {_plain(str(word), family) for word in words}


def _tuple(family: int, proto: str, **parts: object) -> Any:
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple  # type: ignore[import-untyped]

    return NFCTAttrTuple(family=family, proto=_PROTO[proto], **parts)


def _flow(family: int, proto: str, port: int) -> Any:
    """A function that makes a _Flow of a message, or None: kernels before 5.8 do not filter."""
    ip = "CTA_IP_V6" if family == socket.AF_INET6 else "CTA_IP_V4"

    def of(message: Any) -> _Flow | None:
        way = message.get_attr("CTA_TUPLE_ORIG")
        address, ends = way.get_attr("CTA_TUPLE_IP"), way.get_attr("CTA_TUPLE_PROTO")
        if ends.get_attr("CTA_PROTO_NUM") != _PROTO[proto] or ends.get_attr("CTA_PROTO_DST_PORT") != port:
            return None
        if message.get_attr("CTA_ZONE") or address.get_attr(f"{ip}_DST") is None:
            return None  # somebody else's zone, or the other family
        translated = (message.get_attr("CTA_STATUS") or 0) & _IPS_DST_NAT
        if proto == "tcp" and not translated:
            return None
        return _Flow(
            _plain(address.get_attr(f"{ip}_SRC"), family), _plain(address.get_attr(f"{ip}_DST"), family),
            ends.get_attr("CTA_PROTO_SRC_PORT"), port,
        )  # fmt: skip

    return of


def _delete(table: Any, family: int, proto: str, flow: _Flow) -> bool:
    """Forget one flow, named in full: an incomplete name would mean others too."""
    try:
        table.entry("del", tuple_orig=_tuple(family, proto, **flow._asdict()))
    except Exception as err:
        if apart.code_of(err) == errno.ENOENT:  # it has ended meanwhile
            return False
        raise
    return True
