"""Why something is done to a network, and where to read about it: as reasons.py, which has the others.

Runs in processes that have another root already: nothing is imported or opened here later.
"""

from collections.abc import Callable, Sequence
from typing import Any

from . import netlink
from .netlink import Message

_LINK, _ADDRESS, _ROUTE = "ip-link(8), rtnetlink(7)", "ip-address(8), rtnetlink(7)", "ip-route(8), rtnetlink(7)"
_MAN = {
    netlink.RTM_NEWLINK: _LINK, netlink.RTM_DELLINK: _LINK, netlink.RTM_NEWADDR: _ADDRESS,
    netlink.RTM_NEWROUTE: _ROUTE, netlink.RTM_NEWQDISC: "tc(8), rtnetlink(7)", netlink.RTM_DELQDISC: "tc(8)",
    netlink.CT_DELETE: "conntrack(8)",
}  # fmt: skip
_MAN_OF_KINDS = {"veth": "veth(4), ip-link(8)", "bridge": "bridge(8), ip-link(8)", "netem": "tc-netem(8)",
                 "tbf": "tc-tbf(8)"}  # fmt: skip
_KINDS = {
    "bridge": "a switch in the kernel, into which the pods of one network are plugged",
    "veth": "a cable: what goes in at one end comes out at the other, and each is in a network namespace of its own",
}
_SETTINGS = (
    ("IFLA_IFNAME", "its own name; until now it had one that no link has"),
    ("IFLA_MASTER", "plug the host's end into the bridge"),
    ("IFLA_IFALIAS", "whose it is, for whoever meets it: nsbox touches no link that does not say so"),
    ("ifi_flags", "up: from here on it carries packets"),
)
_QDISCS = {
    "netem": "a bad link: what leaves by it comes later, or not at all",
    "tbf": "a slow link: what leaves by it waits until there are tokens",
}
_IFA_F_NODAD, _LO_SCOPE = 0x02, 254
_PROGRAMS = {
    "nft": ("nft(8)", "replace nsbox's own tables of the firewall as a whole, and no others: all or nothing"),
    "pasta": ("pasta(1)", "a way out without root and without rules: it copies between the pod and sockets of its own"),
}


def _message(args: Sequence[Any]) -> Message | None:
    return netlink.parse(args[1])


def man_of_message(args: Sequence[Any], _place: str) -> str:
    """Where to read about a message of netlink."""
    message = _message(args)
    if message is None:
        return "netlink(7)"
    return _MAN_OF_KINDS.get(netlink.kind_of(message), _MAN.get(message.kind, "rtnetlink(7)"))


def why_message(args: Sequence[Any], doing: str) -> str:
    """What a message of netlink is for."""
    message = _message(args)
    why = _WHY.get(message.kind) if message is not None else None
    return doing if why is None or message is None else why(message)


def _why_link(message: Message) -> str:
    if made := netlink.kind_of(message):
        return _KINDS.get(made, "a new link")
    known = {**message.fields, **message.attributes}
    return next((why for name, why in _SETTINGS if known.get(name)), "a setting of the link")


def _why_address(message: Message) -> str:
    if message.fields["ifa_scope"] == _LO_SCOPE or message.attributes.get("IFA_CACHEINFO"):
        return "an address of the pod that is not loopback: whom a member sees when somebody comes by a published port"
    if message.attributes.get("IFA_FLAGS", 0) & _IFA_F_NODAD:
        return "its v6 address, usable at once: nobody else is asked whether he has it"
    return "its address, and with it a route to its subnet"


def _why_route(_message: Message) -> str:
    return "a default route: whatever is not in the subnet goes by the bridge of the host"


_WHY: dict[int, Callable[[Message], str]] = {
    netlink.RTM_NEWLINK: _why_link,
    netlink.RTM_DELLINK: lambda _: "away with it; of a cable the other end goes too",
    netlink.RTM_NEWADDR: _why_address,
    netlink.RTM_NEWROUTE: _why_route,
    netlink.RTM_NEWQDISC: lambda message: _QDISCS.get(netlink.kind_of(message), "how packets wait for their turn"),
    netlink.RTM_DELQDISC: lambda _: "what shaped the link before goes; mostly nothing is there",
    netlink.CT_DELETE: lambda _: "forget the flow: its next packet is looked up in the rules anew",
}


def why_bind(args: Sequence[Any], doing: str) -> str:
    if isinstance(args[2], str):
        return "where the proxy is asked for ports later, in a directory that only its owner may enter"
    return f"{doing}: take the port on the host, where nobody else has it" if doing else "take the port on the host"


def why_sendmsg(args: Sequence[Any], _doing: str) -> str:
    if b'"add"' in args[1]:
        return "hand the listening sockets to the pod's proxy, which cannot make any on the host itself"
    return "ask the pod's proxy to close its listening sockets and to reset their clients"


def _program(args: Sequence[Any]) -> str:
    return str(args[0]).rpartition("/")[2]


def man_of_program(args: Sequence[Any], _place: str) -> str:
    """Where to read about an execve."""
    return _PROGRAMS.get(_program(args), ("execve(2)",))[0]


def why_execve(args: Sequence[Any], doing: str) -> str:
    """What a program is executed for."""
    if (known := _PROGRAMS.get(_program(args))) is not None:
        return known[1]
    # A program of nsbox's own choice has a fourth argument: what it will read.
    return doing if len(args) > 3 else "become the user's program; descriptors marked close-on-exec are closed"
