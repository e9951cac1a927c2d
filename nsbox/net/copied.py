"""A copy of this host's network, in a namespace of its own: for a rehearsal, which the host never notices.

Copied is what a new network has to fit in: links by their names, addresses, routes, whether packets
are forwarded. Not copied is the firewall, for nsbox replaces its own tables as a whole. A link that
is no bridge becomes an end of a cable that leads nowhere.
"""

import os
from typing import Any

from ..linux import syscalls
from ..linux.flags import CloneFlag
from . import apart, inside, loopback, surroundings, survey, tunables

_HERE = "/proc/self/ns/net"
_UNREACHABLE = 7  # RTN_UNREACHABLE of linux/rtnetlink.h: a route that is there and leads nowhere
_LO = "lo"


def enter() -> None:
    """Take the caller into a copy of the network namespace that it is in. Only for a process with one thread.

    Raises:
        NsboxError: it cannot be copied. OSError: no right to make a namespace.
    """
    links = survey.survey({0: _open_here})[0]["links"]
    routes, mtu, forwards = surroundings.routes(), surroundings.uplink_mtu(), tunables.forwarding()
    syscalls.unshare(CloneFlag.CLONE_NEWNET)
    loopback.bring_up()
    apart.run("copy the network of this host", lambda: _build(links, routes, mtu))
    tunables.set_forwarding(forwards)


def _open_here() -> int:
    return os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)


def _build(links: list[dict[str, Any]], routes: list[str], mtu: int) -> None:
    with inside.netlink() as nl:
        numbers = {link["index"]: _make(nl, link) for link in links}
        for link in links:
            index = numbers[link["index"]]
            if link["master"] in numbers:
                nl.link("set", index=index, master=numbers[link["master"]])
            if link["up"]:
                nl.link("set", index=index, state="up")
            inside.give_addresses(nl, index, [word for word in link["addresses"] if _is_to_copy(word)], link["mtu"])
        known = set(surroundings.routes())
        for word in routes:
            if word not in known:
                nl.route("add", dst=word, type=_UNREACHABLE, family=10 if inside.is_v6(word) else 2)
        _uplink(nl, mtu)


def _make(nl: Any, link: dict[str, Any]) -> int:
    """One link, down; its number here."""
    name = link["name"]
    if name != _LO:
        kind: dict[str, Any] = {"kind": "bridge"}
        if link["kind"] != "bridge":
            kind = {"kind": "veth", "peer": {"ifname": inside.temporary_name()}}
        mac = {"address": link["mac"]} if link["mac"].count(":") == 5 else {}
        nl.link("add", ifname=name, **mac, **kind)
        if link["alias"]:
            nl.link("set", index=inside.index_of(nl, name), ifalias=link["alias"])
    return inside.index_of(nl, name)


def _is_to_copy(word: str) -> bool:
    """Whether the kernel does not give that address by itself."""
    return not word.startswith(("127.", "::1/", "fe80:"))


def _uplink(nl: Any, mtu: int) -> None:
    """A default route, by a link with the MTU of the host's."""
    name = inside.temporary_name()
    nl.link("add", ifname=name, kind="veth", mtu=mtu, peer={"ifname": inside.temporary_name()})
    index = inside.index_of(nl, name)
    nl.link("set", index=index, state="up")
    nl.route("add", dst="default", oif=index, scope=253, family=2)  # RT_SCOPE_LINK
