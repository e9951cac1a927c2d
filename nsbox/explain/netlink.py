"""Messages to the kernel's network, taken apart: what strace(1) shows of a netlink message, and a little more.

Only what nsbox itself sends: links, addresses, routes, queueing disciplines, flows that are to be
forgotten. See rtnetlink(7), and linux/rtnetlink.h, if_link.h, if_addr.h, pkt_sched.h for the numbers.

Data and formatting only: it runs in processes that are in another root already, so nothing is
imported or opened here once it is loaded.
"""

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from . import symbols as sym

RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWQDISC, RTM_DELQDISC = 16, 17, 20, 24, 36, 37
CT_DELETE = 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
TYPES = {
    RTM_NEWLINK: "RTM_NEWLINK", RTM_DELLINK: "RTM_DELLINK", RTM_NEWADDR: "RTM_NEWADDR", RTM_NEWROUTE: "RTM_NEWROUTE",
    RTM_NEWQDISC: "RTM_NEWQDISC", RTM_DELQDISC: "RTM_DELQDISC",
    CT_DELETE: "NFNL_SUBSYS_CTNETLINK<<8|IPCTNL_MSG_CT_DELETE",
}  # fmt: skip
FLAGS = {0x001: "NLM_F_REQUEST", 0x004: "NLM_F_ACK", 0x100: "NLM_F_REPLACE", 0x200: "NLM_F_EXCL", 0x400: "NLM_F_CREATE"}
_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr
_NESTED = 0x3FFF  # the bits of nla_type that are a type
_ALIGNED = 4

Show = Callable[[bytes], Any]
Attributes = dict[str, Any]


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: nlmsg_type.
        fields: those of the struct behind the header, by their names in C.
        attributes: of netlink, by their names in C; those with attributes of their own are a dict again.
    """

    size_bytes: int
    kind: int
    flags: int
    sequence: int
    fields: dict[str, int]
    attributes: Attributes

    @property
    def link(self) -> int:
        """The number of the link that it is about; 0: one that is not there yet."""
        return next((self.fields[name] for name in ("ifi_index", "ifa_index", "tcm_ifindex") if name in self.fields), 0)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little" if struct.pack("=H", 1)[0] else "big")


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _address(raw: bytes) -> str:
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, raw) if len(raw) in (4, 16) else raw.hex()


def _port(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _lifetimes(raw: bytes) -> dict[str, int]:
    return dict(zip(("ifa_prefered", "ifa_valid"), struct.unpack_from("=II", raw)))


def _netem(raw: bytes) -> dict[str, int]:
    """struct tc_netem_qopt: latency in ticks, loss as a part of 2^32."""
    return dict(zip(("latency", "limit", "loss"), struct.unpack_from("=III", raw)))


def _tbf(raw: bytes) -> dict[str, int]:
    """TCA_TBF_PARMS: struct tc_tbf_qopt, whose rate is the last field of a struct tc_ratespec."""
    return {"rate": struct.unpack_from("=I", raw, 8)[0], "limit": struct.unpack_from("=I", raw, 24)[0],
            "buffer": struct.unpack_from("=I", raw, 28)[0]}  # fmt: skip


Known = Mapping[int, tuple[str, Show]]
_BRIDGE: Known = {23: ("IFLA_BR_MCAST_SNOOPING", _number)}
_TUPLE_IP: Known = {1: ("CTA_IP_V4_SRC", _address), 2: ("CTA_IP_V4_DST", _address), 3: ("CTA_IP_V6_SRC", _address),
                    4: ("CTA_IP_V6_DST", _address)}  # fmt: skip
_TUPLE_PROTO: Known = {1: ("CTA_PROTO_NUM", _number), 2: ("CTA_PROTO_SRC_PORT", _port),
                       3: ("CTA_PROTO_DST_PORT", _port)}  # fmt: skip
_TUPLE: Known = {1: ("CTA_TUPLE_IP", lambda raw: _parsed(raw, _TUPLE_IP)),
                 2: ("CTA_TUPLE_PROTO", lambda raw: _parsed(raw, _TUPLE_PROTO))}  # fmt: skip
_TBF: Known = {1: ("TCA_TBF_PARMS", _tbf)}


def _peer(raw: bytes) -> Attributes:
    """VETH_INFO_PEER: the other end, as a message of its own about a link."""
    return {**_parsed(raw[_LINK.struct.size :], _LINK_ATTRIBUTES)}


def _info(raw: bytes) -> Attributes:
    """IFLA_LINKINFO: what is in IFLA_INFO_DATA depends on the kind before it."""
    plain: Known = {1: ("IFLA_INFO_KIND", _text), 2: ("IFLA_INFO_DATA", lambda data: data)}
    found = _parsed(raw, plain)
    below = {"bridge": _BRIDGE, "veth": {1: ("VETH_INFO_PEER", _peer)}}.get(found.get("IFLA_INFO_KIND", ""))
    if below and "IFLA_INFO_DATA" in found:
        found["IFLA_INFO_DATA"] = _parsed(found["IFLA_INFO_DATA"], below)
    return found


_LINK_ATTRIBUTES: Known = {
    1: ("IFLA_ADDRESS", _mac), 3: ("IFLA_IFNAME", _text), 4: ("IFLA_MTU", _number), 10: ("IFLA_MASTER", _number),
    18: ("IFLA_LINKINFO", _info), 20: ("IFLA_IFALIAS", _text), 28: ("IFLA_NET_NS_FD", _number),
}  # fmt: skip
_ADDRESS_ATTRIBUTES: Known = {
    1: ("IFA_ADDRESS", _address), 2: ("IFA_LOCAL", _address), 3: ("IFA_LABEL", _text), 6: ("IFA_CACHEINFO", _lifetimes),
    8: ("IFA_FLAGS", _number),
}  # fmt: skip
_ROUTE_ATTRIBUTES: Known = {
    1: ("RTA_DST", _address), 4: ("RTA_OIF", _number), 5: ("RTA_GATEWAY", _address), 6: ("RTA_PRIORITY", _number),
}  # fmt: skip


class _Form(NamedTuple):
    """What stands behind the header: a struct, then attributes."""

    struct: struct.Struct
    fields: tuple[str, ...]
    attributes: Known


_LINK = _Form(struct.Struct("=BxHiII"), ("ifi_family", "ifi_type", "ifi_index", "ifi_flags", "ifi_change"),
              _LINK_ATTRIBUTES)
_QDISC_ATTRIBUTES: Known = {1: ("TCA_KIND", _text), 2: ("TCA_OPTIONS", lambda raw: raw)}
_QDISC = _Form(struct.Struct("=BxxxiIIxxxx"), ("tcm_family", "tcm_ifindex", "tcm_handle", "tcm_parent"),
               _QDISC_ATTRIBUTES)
_FORMS = {
    RTM_NEWLINK: _LINK, RTM_DELLINK: _LINK, RTM_NEWQDISC: _QDISC, RTM_DELQDISC: _QDISC,
    RTM_NEWADDR: _Form(struct.Struct("=BBBBI"), ("ifa_family", "ifa_prefixlen", "ifa_flags", "ifa_scope", "ifa_index"),
                       _ADDRESS_ATTRIBUTES),
    RTM_NEWROUTE: _Form(struct.Struct("=BBBBBBBBI"), ("rtm_family", "rtm_dst_len", "rtm_src_len", "rtm_tos",
                        "rtm_table", "rtm_protocol", "rtm_scope", "rtm_type", "rtm_flags"), _ROUTE_ATTRIBUTES),
    CT_DELETE: _Form(struct.Struct("=BBH"), ("nfgen_family", "version", "res_id"),
                     {1: ("CTA_TUPLE_ORIG", lambda raw: _parsed(raw, _TUPLE))}),
}  # fmt: skip


def parse(data: bytes) -> Message | None:
    """The message, or None if it is none that changes something."""
    if len(data) < _HEAD.size:
        return None
    size, kind, flags, sequence, _ = _HEAD.unpack_from(data)
    form = _FORMS.get(kind)
    if form is None:
        return None
    rest = data[_HEAD.size : size]
    fields = dict(zip(form.fields, form.struct.unpack_from(rest)))
    found = _parsed(rest[form.struct.size :], form.attributes)
    if isinstance(options := found.get("TCA_OPTIONS"), bytes):
        found["TCA_OPTIONS"] = _netem(options) if found.get("TCA_KIND") == "netem" else _parsed(options, _TBF)
    return Message(size, kind, flags, sequence, fields, found)


def _parsed(raw: bytes, known: Known) -> Attributes:
    found: Attributes = {}
    for kind, value in _attributes(raw):
        name, show = known.get(kind, (f"{kind:#x}", bytes.hex))
        found[name] = show(value)
    return found


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each struct nlattr in a row."""
    at = 0
    while at + _ALIGNED <= len(raw):
        size, kind = struct.unpack_from("=HH", raw, at)
        if size < _ALIGNED:
            return
        yield kind & _NESTED, raw[at + _ALIGNED : at + size]
        at += size + -size % _ALIGNED


def kind_of(message: Message) -> str:
    """What is made, if that is what the message is for: "veth", "bridge", "netem" ... or ""."""
    found: str = message.attributes.get("IFLA_LINKINFO", {}).get("IFLA_INFO_KIND", "")
    return found or str(message.attributes.get("TCA_KIND", ""))


def links_of(message: Message) -> list[int]:
    """The numbers of links in a message, but for that of one that is to be made."""
    more = [message.attributes[name] for name in ("IFLA_MASTER", "RTA_OIF") if name in message.attributes]
    is_new = "IFLA_LINKINFO" in message.attributes
    return [number for number in (0 if is_new else message.link, *more) if number]


def peer_of(message: Message) -> Attributes:
    """The other end of a cable that is to be made; empty for other messages."""
    found: Attributes = message.attributes.get("IFLA_LINKINFO", {}).get("IFLA_INFO_DATA", {})
    peer: Attributes = found.get("VETH_INFO_PEER", {}) if isinstance(found, dict) else {}
    return peer


def peer_fd(message: Message) -> int | None:
    """The descriptor of the network namespace in which that end is to be."""
    return peer_of(message).get("IFLA_NET_NS_FD")


# ---- in words ----

def written(data: object) -> str:
    """The message as strace(1) would write it, without what is zero."""
    found = parse(data) if isinstance(data, bytes) else None
    if found is None:
        return sym.anything(data)
    kind, flags = TYPES.get(found.kind, hex(found.kind)), sym.names(FLAGS, found.flags)
    head = f"{{nlmsg_len={found.size_bytes}, nlmsg_type={kind}, nlmsg_flags={flags}}}"
    fields = {name: value for name, value in found.fields.items() if value}
    return f"[{head}, {_braced({**fields, **found.attributes})}]"


def _braced(attributes: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{name}={_value(value)}" for name, value in attributes.items()) + "}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _braced(value)
    return str(value) if isinstance(value, int) else sym.text(value)
