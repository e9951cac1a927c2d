"""Links of the host: bridges, and the cables (veth pairs) that plug pods into them.

Every link of ours carries an alias that says whose it is. A link of the same name with another
alias belongs to somebody else and is never touched. The kernel takes the alias only after it
has made the link; until then the MAC address, which is made from the alias, says the same.
"""

import errno
import hashlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import NsboxError
from . import apart, inside, tunables
from .inside import End
from .surroundings import routes, uplink_mtu

__all__ = ["End", "alias_of", "bridges", "drop_inside", "make_bridge", "ours", "plug",
           "port_count", "remove", "routes", "tie", "unplug", "uplink_mtu"]  # fmt: skip

PORTS_MAX = 1023  # of a bridge: BR_MAX_PORTS of the kernel, and port 0 is none
_NO_STATS = 1 << 3  # RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: half the work of a dump
# The network namespace of a dead pod is taken apart in the kernel's own time, and the host's end
# of its cable with it. Until then the name is taken.
_DYING_S, _DYING_PAUSE_S = 5.0, 0.02


class _Found(NamedTuple):
    number: int  # the interface index
    alias: str
    mac: str


# ---- bridges ----

def make_bridge(ifname: str, alias: str, addresses: Sequence[str], mtu: int) -> None:
    """Make a bridge of ours, or finish one that is there: its addresses, up.

    Args:
        addresses: with the prefix length ("10.77.0.1/16"). A v6 one is left out where v6 is off.

    Raises:
        NsboxError: there is a foreign link of that name, or the kernel refuses.
    """
    def work() -> None:
        with inside.netlink() as nl:
            found = _find(nl, ifname)
            if found is None:
                # Nothing is learned about groups: a pod could fill the table, and few are many.
                nl.link("add", ifname=ifname, kind="bridge", address=_mac(ifname, alias), mtu=mtu,
                        br_mcast_snooping=0)  # fmt: skip
                found = _find(nl, ifname)
            if found is None or not _is_ours(found, ifname, alias):
                raise _foreign(ifname)
            nl.link("set", index=found.number, ifalias=alias)
            tunables.refuse_advertisements(ifname)
            inside.give_addresses(nl, found.number, addresses, mtu)
            nl.link("set", index=found.number, state="up")

    apart.run(f"make the bridge {ifname}", work)


def port_count(bridge: str) -> int:
    """How many links are plugged into `bridge`; 0 if there is none."""
    def work() -> int:
        with inside.netlink() as nl:
            found = _find(nl, bridge)
            if found is None:
                return 0
            every = apart.dumped(lambda: nl.link("dump", ext_mask=_NO_STATS))
            return sum(link.get_attr("IFLA_MASTER") == found.number for link in every)

    return int(apart.run(f"count the ports of {bridge}", work))


def bridges() -> list[str]:
    """The names of all bridges of this host, foreign ones too."""
    def work() -> list[str]:
        with inside.netlink() as nl:
            every = apart.dumped(lambda: nl.link("dump", kind="bridge", ext_mask=_NO_STATS))
            return sorted(link.get_attr("IFLA_IFNAME") for link in every if _kind(link) == "bridge")

    return [str(name) for name in apart.run("list the bridges", work)]


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND")) if info else ""


# ---- whose a link is ----

def alias_of(ifname: str) -> str | None:
    """What `ifname` says it belongs to: None if there is no such link, "" if it has no alias."""
    def work() -> str | None:
        with inside.netlink() as nl:
            found = _find(nl, ifname)
            return None if found is None else found.alias

    said = apart.run(f"look at {ifname}", work)
    return None if said is None else str(said)


def ours(prefix: str) -> dict[str, str]:
    """Name and alias of each link whose alias starts with `prefix`."""
    def work() -> dict[str, str]:
        with inside.netlink() as nl:
            every = apart.dumped(lambda: nl.link("dump", ext_mask=_NO_STATS))
            pairs = ((link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_IFALIAS") or "") for link in every)
            return {name: alias for name, alias in pairs if alias.startswith(prefix)}

    return dict(apart.run("list the links", work))


def remove(ifname: str, alias: str) -> bool:
    """Remove a link, and the other end of a cable with it. False: missing, or not `alias`'s."""
    def work() -> bool:
        with inside.netlink() as nl:
            found = _find(nl, ifname)
            return found is not None and _is_ours(found, ifname, alias) and inside.delete(nl, found.number)

    return bool(apart.run(f"remove the link {ifname}", work))


def unplug(host_ifname: str, alias: str) -> bool:
    """Remove a cable by its end on the host. False: missing, or not `alias`'s."""
    return remove(host_ifname, alias)


def _find(nl: Any, ifname: str) -> _Found | None:
    try:
        [link] = nl.link("get", ifname=ifname)
    except Exception as err:
        if apart.code_of(err) == errno.ENODEV:
            return None
        raise
    alias, mac = link.get_attr("IFLA_IFALIAS"), link.get_attr("IFLA_ADDRESS")
    return _Found(int(link["index"]), alias or "", mac or "")


def _is_ours(found: _Found, ifname: str, alias: str) -> bool:
    """By its alias; or it has none yet, because whoever made it was killed at that moment."""
    return found.alias == alias if found.alias else found.mac == _mac(ifname, alias)


def _mac(ifname: str, alias: str) -> str:
    """The MAC address of a link of ours: locally administered, for one receiver."""
    digest = hashlib.sha256(f"{ifname}\0{alias}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _foreign(ifname: str) -> NsboxError:
    return NsboxError(
        f"the link {ifname} belongs to somebody else", hint=f"nsbox leaves it alone: see `ip -d link show {ifname}`"
    )


# ---- cables ----

def plug(host_ifname: str, alias: str, bridge: str, pidfd: int, end: End) -> None:
    """Lay a cable from `bridge` into the network namespace of a process, and configure its end.

    All or nothing.

    Raises:
        NsboxError: the bridge is full or not there, there is a link of one of the names, or the
            process has ended.
    """
    def work() -> None:
        with inside.here() as host:
            master = _find(host.nl, bridge)
            if master is None:
                raise NsboxError(f"there is no bridge {bridge}")
            apart.join_net(pidfd)
            with inside.here() as pod:
                index, peer = _lay(host, host_ifname, alias, pod, end)
                try:
                    inside.settle(pod, peer, end)
                    host.enter()
                    _to_bridge(host.nl, index, host_ifname, alias, bridge, master.number)
                    inside.wait_for_carrier(pod, peer)
                except BaseException:
                    inside.delete(host.nl, index)
                    raise

    apart.run(f"plug {end.ifname} into {bridge}", work)


def _lay(host: inside.Net, ifname: str, alias: str, pod: inside.Net, end: End) -> tuple[int, int]:
    """Make the cable; wait while an end of ours has the name, for it may be a dead pod's."""
    deadline = time.monotonic() + _DYING_S
    while True:
        try:
            return inside.lay(host, ifname, _mac(ifname, alias), pod, inside.temporary_name(), end.mac, end.mtu)
        except Exception as err:
            found = _find(host.nl, ifname) if apart.code_of(err) == errno.EEXIST else None
            if apart.code_of(err) != errno.EEXIST or time.monotonic() > deadline:
                raise
            if found and not _is_ours(found, ifname, alias):
                raise _foreign(ifname) from None
        time.sleep(_DYING_PAUSE_S)


def _to_bridge(nl: Any, index: int, ifname: str, alias: str, bridge: str, master: int) -> None:
    nl.link("set", index=index, ifalias=alias)
    tunables.refuse_advertisements(ifname)
    try:
        nl.link("set", index=index, master=master)
    except Exception as err:
        if apart.code_of(err) == errno.EXFULL:
            raise NsboxError(f"bridge is full: {PORTS_MAX} ports", hint="make another network") from None
        raise
    nl.link("set", index=index, state="up")


def tie(pidfd_a: int, end_a: End, pidfd_b: int, end_b: End, alias: str) -> None:
    """Lay a cable between the network namespaces of two processes. All or nothing.

    Both ends carry `alias`, and MAC addresses that are made from it.
    """
    def work() -> None:
        apart.join_net(pidfd_a, "the first pod")
        with inside.here() as a:
            apart.join_net(pidfd_b, "the second pod")
            with inside.here() as b:
                index_a, index_b = inside.lay(
                    a, inside.temporary_name(), _mac("a", alias), b, inside.temporary_name(), _mac("b", alias),
                    end_a.mtu,
                )  # fmt: skip
                try:
                    inside.settle(a, index_a, end_a, alias)
                    inside.settle(b, index_b, end_b, alias)
                    inside.wait_for_carrier(a, index_a)
                except BaseException:
                    inside.delete(a.nl, index_a)
                    raise

    apart.run(f"tie {end_a.ifname} to {end_b.ifname}", work)


def drop_inside(pidfd: int, alias: str) -> bool:
    """Remove the cable between pods that carries `alias` by its end in the network of a process.

    Half made it does not carry it yet, and is known by its MAC address. False if there is none.
    """
    def work() -> bool:
        apart.join_net(pidfd)
        with inside.netlink() as nl:
            every = apart.dumped(lambda: nl.link("dump", ext_mask=_NO_STATS))
            numbers = [int(link["index"]) for link in every if _is_end(link, alias)]
            return any([inside.delete(nl, number) for number in numbers])

    return bool(apart.run("remove a link of the pod", work))


def _is_end(link: Any, alias: str) -> bool:
    said = link.get_attr("IFLA_IFALIAS") or ""
    return said == alias if said else link.get_attr("IFLA_ADDRESS") in (_mac("a", alias), _mac("b", alias))
