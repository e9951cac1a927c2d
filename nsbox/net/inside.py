"""One end of a cable, and what is done to it in the network namespace where it is.

All of this runs in a child of :mod:`.apart`, which may go from one namespace to another.
"""

import errno
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import NsboxError
from ..linux import syscalls
from ..linux.flags import CloneFlag
from . import apart, tunables

_IFA_F_NODAD = 0x02  # linux/if_addr.h: usable at once, nobody else is asked whether he has it
_V6_MTU_MIN = 1280  # RFC 8200, 5: with less the kernel has no v6 on a link
_NO_V6 = (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)  # disable_ipv6=1, or no v6 in the kernel
_AF_INET, _AF_INET6 = 2, 10
_HIGH_INDEX = 1 << 20  # no kernel counts that far by itself
_CARRIER_S, _CARRIER_PAUSE_S = 2.0, 0.001


class End(NamedTuple):
    """The end of a cable in a pod.

    Attributes:
        ifname: what it is called in there.
        mac: "" lets the kernel choose.
        addresses: with the prefix length, v4 and v6.
        gateways: at most one of each family; a default route goes by it.
        mtu: bytes of one packet.
    """

    ifname: str
    mac: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    mtu: int


class Net(NamedTuple):
    """A network namespace: a netlink socket that belongs to it, and a descriptor to go there."""

    nl: Any
    fd: int

    def enter(self) -> None:
        """Make it that of this process: for the files under /proc/sys/net."""
        syscalls.setns(self.fd, CloneFlag.CLONE_NEWNET)


@contextmanager
def netlink() -> Iterator[Any]:
    """A netlink socket of the network namespace that this process is in. See rtnetlink(7)."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    with IPRoute() as nl:
        yield nl


@contextmanager
def here() -> Iterator[Net]:
    """The network namespace that this process is in. Its descriptor is not kept longer than this."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netlink() as nl:
            yield Net(nl, fd)
    finally:
        os.close(fd)


def temporary_name() -> str:
    """A name that no link has: an end keeps it until it gets its own."""
    return f"nst{secrets.token_hex(6)}"


def lay(a: Net, name_a: str, mac_a: str, b: Net, name_b: str, mac_b: str, mtu: int) -> tuple[int, int]:
    """Make a cable between two namespaces, both ends down; the interface index of each end.

    The two numbers differ: the kernel takes an end whose number is that of the other one for a
    plain card, and may then wait a second before v6 hears that there is a carrier.

    Raises:
        NetlinkError: EEXIST if there is a link of one of the names.
    """
    peer: dict[str, object] = {"ifname": name_b, "mtu": mtu, "net_ns_fd": b.fd}
    peer |= {"address": mac_b} if mac_b else {}
    more: dict[str, object] = {"address": mac_a} if mac_a else {}
    while True:
        a.nl.link("add", ifname=name_a, kind="veth", mtu=mtu, peer=peer, **more)
        index_a = index_of(a.nl, name_a)
        try:
            index_b = index_of(b.nl, name_b)
        except BaseException:
            delete(a.nl, index_a)
            raise
        if index_a != index_b:
            return index_a, index_b
        delete(a.nl, index_a)
        more["index"] = _HIGH_INDEX + secrets.randbelow(_HIGH_INDEX)


def wait_for_carrier(net: Net, index: int) -> None:
    """Return when an end that is up can carry, for then v6 can too; or after a while."""
    deadline = time.monotonic() + _CARRIER_S
    while time.monotonic() < deadline:
        [link] = net.nl.link("get", index=index)
        if link.get_attr("IFLA_OPERSTATE") == "UP":
            return
        time.sleep(_CARRIER_PAUSE_S)


def settle(net: Net, index: int, end: End, alias: str = "") -> None:
    """Make of a new link in `net` the end that was asked for: its name, addresses, routes, up."""
    net.enter()
    try:
        net.nl.link("set", index=index, ifname=end.ifname, **({"ifalias": alias} if alias else {}))
    except Exception as err:
        if apart.code_of(err) == errno.EEXIST:
            raise NsboxError(f"the pod has a link {end.ifname} already") from None
        raise
    tunables.refuse_advertisements(end.ifname)
    given = give_addresses(net.nl, index, end.addresses, end.mtu)
    net.nl.link("set", index=index, state="up")
    for gateway in end.gateways:
        if is_v6(gateway) in {is_v6(address) for address in given}:
            _route(net.nl, index, gateway, end.ifname)


def give_addresses(nl: Any, index: int, addresses: Sequence[str], mtu: int) -> list[str]:
    """Give a link its addresses; those that it has now. A v6 one is left out where v6 is off."""
    given = []
    for word in addresses:
        address, _, prefix = word.partition("/")
        try:
            nl.addr("add", index=index, address=address, prefixlen=int(prefix),
                    **({"flags": _IFA_F_NODAD} if is_v6(address) else {}))  # fmt: skip
        except Exception as err:
            code = apart.code_of(err)
            no_v6 = is_v6(address) and (code in _NO_V6 or mtu < _V6_MTU_MIN)
            if no_v6:
                continue
            if code != errno.EEXIST:
                raise
        given.append(address)
    return given


def _route(nl: Any, index: int, gateway: str, ifname: str) -> None:
    """A default route. Of several links the one with the lowest number comes first."""
    number = int("0" + "".join(filter(str.isdigit, ifname)))
    v6 = is_v6(gateway)
    metric = number + (1024 if v6 else 0)  # IP6_RT_PRIO_USER of the kernel; v4 starts at 0
    nl.route("add", family=_AF_INET6 if v6 else _AF_INET, dst="default", gateway=gateway, oif=index,
             **({"priority": metric} if metric else {}))  # fmt: skip


def is_v6(address: str) -> bool:
    return ":" in address


def index_of(nl: Any, ifname: str) -> int:
    """The interface index of a link that is there."""
    [link] = nl.link("get", ifname=ifname)
    return int(link["index"])


def delete(nl: Any, index: int) -> bool:
    """Remove a link; False if it is gone already."""
    try:
        nl.link("del", index=index)
    except Exception as err:
        if apart.code_of(err) == errno.ENODEV:
            return False
        raise
    return True
