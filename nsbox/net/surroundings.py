"""What the host's network is like, for a new network to fit in: its routes and its MTU."""

from typing import Any

from . import apart, inside

_DEFAULT_MTU = 1500
_RT_TABLE_LOCAL = 255  # the host's own addresses and broadcasts: they lie in the connected networks
_RTN_LIKE_UNICAST = (1, 6, 7, 8)  # unicast, blackhole, unreachable, prohibit: linux/rtnetlink.h
_RTM_F_CLONED = 0x200  # a cached entry, and no route
_FAMILIES = {2: "0.0.0.0", 10: "::"}  # AF_INET, AF_INET6


def routes() -> list[str]:
    """Where this host has a route to, as CIDR, sorted; the default routes are left out."""
    def work() -> list[str]:
        with inside.netlink() as nl:
            found = set()
            for family in _FAMILIES:
                for route in apart.dumped(lambda: nl.route("dump", family=family)):
                    found.add(_destination(route, family))
            return sorted(found - {""})

    return [str(word) for word in apart.run("list the routes of this host", work)]


def _destination(route: Any, family: int) -> str:
    """'10.77.0.0/16'; "" for the default route, and for what is no route to a network."""
    table = route.get_attr("RTA_TABLE") or route["table"]
    if table == _RT_TABLE_LOCAL or route["type"] not in _RTN_LIKE_UNICAST or route["flags"] & _RTM_F_CLONED:
        return ""
    return f"{route.get_attr('RTA_DST') or _FAMILIES[family]}/{route['dst_len']}" if route["dst_len"] else ""


def uplink_mtu() -> int:
    """The MTU of the link by which the default route goes, v4 before v6; 1500 without one."""
    def work() -> int:
        with inside.netlink() as nl:
            for family in _FAMILIES:
                every = apart.dumped(lambda: nl.route("dump", family=family))
                default = [route for route in every if not route["dst_len"] and _link_of(route)
                           and route["type"] == _RTN_LIKE_UNICAST[0]]  # fmt: skip
                if default:
                    first = min(default, key=lambda route: route.get_attr("RTA_PRIORITY") or 0)
                    [link] = nl.link("get", index=_link_of(first))
                    return int(link.get_attr("IFLA_MTU") or _DEFAULT_MTU)
        return _DEFAULT_MTU

    return int(apart.run("find the MTU of this host's uplink", work))


def _link_of(route: Any) -> int:
    """The index of the link by which a route goes; the first one if there are several."""
    hops = route.get_attr("RTA_MULTIPATH")
    return int(route.get_attr("RTA_OIF") or (hops[0]["oif"] if hops else 0))
