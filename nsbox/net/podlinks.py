"""The links of pods, made once more for those who stand in for them in a copy of the host's network.

See copied.py. A cable to the host is the one that is in the copy already: its other end, which is
loose so far, is carried over. Links have the numbers that they have in the pods.
"""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from ..linux import syscalls
from ..linux.flags import CloneFlag
from . import apart, inside

_LO = "lo"
_UNICAST, _MAIN = 1, 254  # RTN_UNICAST, RT_TABLE_MAIN of linux/rtnetlink.h
_BY_KERNEL = 2  # RTPROT_KERNEL: it comes with an address
_Row = dict[str, Any]
_Links = Mapping[int, list[_Row]]
_ATTRIBUTES = {"RTA_DST": "dst", "RTA_GATEWAY": "gateway", "RTA_PRIORITY": "priority"}


def ways(pidfd: int) -> list[dict[str, Any]]:
    """The routes of a pod that do not come by themselves, as :func:`furnish` takes them."""
    def work() -> list[dict[str, Any]]:
        apart.join_net(pidfd)
        with inside.netlink() as nl:
            names = {int(link["index"]): link.get_attr("IFLA_IFNAME") for link in apart.dumped(lambda: nl.link("dump"))}
            found = []
            for family in (2, 10):
                for route in apart.dumped(lambda: nl.route("dump", family=family)):
                    known = route["type"] == _UNICAST and (route.get_attr("RTA_TABLE") or route["table"]) == _MAIN
                    name = names.get(route.get_attr("RTA_OIF") or 0, _LO)
                    if known and route["proto"] != _BY_KERNEL and name != _LO:
                        found.append(_way(route, name))
            return found

    return list(apart.run("list the routes of a pod", work))


def _way(route: Any, ifname: str) -> dict[str, Any]:
    said = {word: value for key, word in _ATTRIBUTES.items() if (value := route.get_attr(key)) is not None}
    said["dst"] = f"{said['dst']}/{route['dst_len']}" if route["dst_len"] else "default"
    return {"ifname": ifname, "family": route["family"], "scope": route["scope"], "proto": route["proto"], **said}


def loose_end(loose_fd: int) -> dict[str, Any]:
    """What a new cable is whose other end lies in another network namespace and leads nowhere."""
    return {"kind": "veth", "peer": {"ifname": inside.temporary_name(), "net_ns_fd": loose_fd}}


class Copies:
    """Of the networks of pods, for those who stand in for them. The caller is in the copy of the host's.

    Args:
        links, ways: of the pods, by their PIDs; and the links of the host.
        host: what that is called among `links`.
        loose_fd: the network namespace with the loose ends of its cables.
    """

    def __init__(self, links: _Links, ways: _Links, host: int, loose_fd: int) -> None:
        self._links, self._ways, self._host, self._loose_fd = links, ways, host, loose_fd
        self._nets: dict[int, inside.Net] = {}

    def furnish(self, doubles: Mapping[int, int]) -> None:
        """Give them what the pods have.

        Args:
            doubles: of each pod's PID, a pidfd of who stands in for it.

        Raises:
            NsboxError: something cannot be made.
        """
        apart.run("copy the networks of pods", lambda: self._furnish(doubles))

    def _furnish(self, doubles: Mapping[int, int]) -> None:
        with ExitStack() as opened:
            here = opened.enter_context(inside.here())
            syscalls.setns(self._loose_fd, CloneFlag.CLONE_NEWNET)
            loose = opened.enter_context(inside.here())
            for pid, pidfd in doubles.items():
                apart.join_net(pidfd)
                self._nets[pid] = opened.enter_context(inside.here())
            for pid, net in self._nets.items():
                for link in self._links.get(pid, ()):
                    self._make(pid, link, here.nl, loose.nl)
                for link in self._links.get(pid, ()):
                    net.enter()
                    _settle(net, link)
                _lead(net, self._ways.get(pid, ()))

    def _make(self, pid: int, link: _Row, here: Any, loose: Any) -> None:
        """A link by its name; one that came with the other end of its cable is there already."""
        nl, name, peer = self._nets[pid].nl, link["name"], link["peer"] or {"net": None}
        if name == _LO or _index(nl, name) is not None:
            return
        if peer["net"] == self._host and (outer := self._find(self._host, peer["index"])):
            self._carry(loose, _other_end(here, outer["name"]), pid, link)
        elif link["kind"] == "bridge":
            nl.link("add", ifname=name, index=link["index"], kind="bridge")
        else:
            nl.link("add", ifname=name, index=link["index"], **_mac(link), **loose_end(self._loose_fd))
            other = peer["net"]
            if other in self._nets and other != pid and (far := self._find(other, peer["index"])):
                self._carry(loose, _other_end(nl, name), other, far)

    def _find(self, net: int, index: int) -> _Row | None:
        return next((one for one in self._links.get(net, ()) if one["index"] == index), None)

    def _carry(self, loose: Any, index: int, pid: int, link: _Row) -> None:
        """Take a loose end to where somebody has it, and make it that."""
        net = self._nets[pid]
        loose.link("set", index=index, net_ns_fd=net.fd, ifname=link["name"], new_ifindex=link["index"])
        if _mac(link):
            net.nl.link("set", index=inside.index_of(net.nl, link["name"]), **_mac(link))


def _other_end(nl: Any, name: str) -> int:
    [found] = nl.link("get", index=inside.index_of(nl, name))
    return int(found.get_attr("IFLA_LINK"))


def _mac(link: _Row) -> dict[str, str]:
    return {"address": link["mac"]} if link["mac"].count(":") == 5 else {}


def _index(nl: Any, name: str) -> int | None:
    found: list[int] = []
    with suppress(Exception):
        found = [inside.index_of(nl, name)]
    return found[0] if found else None


def _settle(net: inside.Net, link: dict[str, Any]) -> None:
    index = inside.index_of(net.nl, link["name"])
    if link["alias"]:
        net.nl.link("set", index=index, ifalias=link["alias"])
    own = [word for word in link["addresses"] if not word.startswith(("127.", "::1/", "fe80:"))]
    inside.give_addresses(net.nl, index, own, link["mtu"])
    if link["up"]:
        net.nl.link("set", index=index, state="up")


def _lead(net: inside.Net, ways: "list[dict[str, Any]] | tuple[()]") -> None:
    for way in ways:
        index = inside.index_of(net.nl, way["ifname"])
        with suppress(Exception):  # by a gateway that only a link we do not have leads to
            net.nl.route("add", oif=index, **{key: value for key, value in way.items() if key != "ifname"})
