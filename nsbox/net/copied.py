"""A copy of this host's network, in a namespace of its own: for a rehearsal, which the host never notices.

Copied is what a new network has to fit in: links by their names, addresses, routes, whether packets
are forwarded. Not copied is the firewall, for nsbox replaces its own tables as a whole, nor what the
kernel remembers of connections. A link that is no bridge becomes an end of a cable that leads nowhere.

What stands in for a pod gets its links too, and those that are cables lead where they led.
"""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from ..linux import syscalls
from ..linux.flags import CloneFlag
from . import apart, inside, loopback, podlinks, surroundings, survey, tunables

HOST = 0  # among the networks that are looked at: the others are known by a process in them
_HERE = "/proc/self/ns/net"
_UNREACHABLE = 7  # RTN_UNREACHABLE of linux/rtnetlink.h: a route that is there and leads nowhere
_LO = "lo"
_OUT_OF_THE_WAY = 1 << 22  # the number of a link that the host does not have


class Seen(NamedTuple):
    """What there was when it was looked at.

    Attributes:
        links: of each network, as in :func:`survey.survey`.
        ways: the routes of each pod by which something else is reached.
    """

    links: dict[int, list[dict[str, Any]]]
    ways: dict[int, list[dict[str, Any]]]
    routes: list[str]
    mtu: int
    forwards: bool


def look(pids: Mapping[int, int] = {}) -> Seen:
    """Look at the network that the caller is in, and at those of pods.

    Args:
        pids: of each pod its PID 1, and a pidfd of that.

    Raises:
        NsboxError: they cannot be read.
    """
    openers = {pid: partial(_open, f"/proc/{pid}/ns/net") for pid in pids}
    rows = survey.survey({HOST: partial(_open, _HERE), **openers})
    ways = {pid: podlinks.ways(pidfd) for pid, pidfd in pids.items()}
    return Seen({number: row["links"] for number, row in rows.items()}, ways,
                surroundings.routes(), surroundings.uplink_mtu(), tunables.forwarding())  # fmt: skip


def enter(seen: Seen) -> int:
    """Take the caller into a copy of the network namespace that it was in. Only for a process with one thread.

    Returns:
        A descriptor of the network namespace in which the other ends of its cables lie; it goes with that.

    Raises:
        NsboxError: it cannot be copied. OSError: no right to make a namespace.
    """
    syscalls.unshare(CloneFlag.CLONE_NEWNET)
    loose_fd = _open(_HERE)
    syscalls.unshare(CloneFlag.CLONE_NEWNET)
    loopback.bring_up()
    apart.run("copy the network of this host", lambda: _build(seen, loose_fd))
    tunables.set_forwarding(seen.forwards)
    return loose_fd


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _build(seen: Seen, loose_fd: int) -> None:
    links = seen.links[HOST]
    with inside.netlink() as nl:
        numbers = {link["index"]: _make(nl, link, loose_fd) for link in links}
        for link in links:
            index = numbers[link["index"]]
            if link["master"] in numbers:
                nl.link("set", index=index, master=numbers[link["master"]])
            if link["up"]:
                nl.link("set", index=index, state="up")
            inside.give_addresses(nl, index, [word for word in link["addresses"] if _is_to_copy(word)], link["mtu"])
        known = set(surroundings.routes())
        for word in seen.routes:
            if word not in known:
                nl.route("add", dst=word, type=_UNREACHABLE, family=10 if inside.is_v6(word) else 2)
        _uplink(nl, seen.mtu, loose_fd)


def _make(nl: Any, link: dict[str, Any], loose_fd: int) -> int:
    """One link, down; its number here."""
    name = link["name"]
    if name != _LO:
        kind: dict[str, Any] = {"kind": "bridge"}
        if link["kind"] != "bridge":
            kind = podlinks.loose_end(loose_fd)
        mac = {"address": link["mac"]} if link["mac"].count(":") == 5 else {}
        nl.link("add", ifname=name, index=link["index"], **mac, **kind)
        if link["alias"]:
            nl.link("set", index=inside.index_of(nl, name), ifalias=link["alias"])
    return inside.index_of(nl, name)


def _is_to_copy(word: str) -> bool:
    """Whether the kernel does not give that address by itself."""
    return not word.startswith(("127.", "::1/", "fe80:"))


def _uplink(nl: Any, mtu: int, loose_fd: int) -> None:
    """A default route, by a link with the MTU of the host's."""
    name = inside.temporary_name()
    nl.link("add", ifname=name, index=_OUT_OF_THE_WAY, mtu=mtu, **podlinks.loose_end(loose_fd))
    nl.link("set", index=_OUT_OF_THE_WAY, state="up")
    nl.route("add", dst="default", oif=_OUT_OF_THE_WAY, scope=253, family=2)  # RT_SCOPE_LINK
