"""Networks: bridges that pods are plugged into, by name. And the one lock for all of them.

The network `bridge` comes with its first pod and goes with its last one; the others are made and
removed by name. A network's bridge carries the network's id, so a link of somebody else's that
happens to have its name is known and left alone.
"""

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator, Sequence

from ..errors import NsboxError, SpecError
from ..spec import NET_MODES, name_fault
from ..words import quote
from . import netrecord, statedir, store
from .files import CorruptFile
from .netrecord import Network

if TYPE_CHECKING:
    from ipaddress import IPv4Network

DEFAULT = "bridge"
_PREFIX6 = "fd6e:7362:6f78"  # unique local: fd, then "nsbox"; the fourth group is the network's
_RESERVED = (*NET_MODES, "scope")
_PREFIX_MIN, _PREFIX_MAX = 8, 30
_TRIES = 100
_SUGGESTION = "choose another one, as in --subnet 10.99.0.0/24"


@contextmanager
def locked() -> Iterator[int]:
    """The directory of the networks, under the lock of all that is done about networks.

    Who holds a pod's lock may take this one, never the other way round.
    """
    fd = statedir.nets_fd()
    statedir.wait_for_lock(fd, "the networks", time.monotonic() + store.LOCK_TIMEOUT_S, fcntl.LOCK_EX)
    try:
        yield fd
    finally:
        os.close(fd)


def alias(network: Network) -> str:
    """What the network's bridge carries."""
    return f"nsbox:net:{network.id}"


def bridge_of(network_id: str) -> str:
    """The ifname of the bridge of a network."""
    return f"nsb{network_id[:8]}"


def every(nets_fd: int) -> list[Network]:
    """All networks that can be read, sorted by name."""
    return [found for found in (read_or_none(nets_fd, name) for name in names(nets_fd)) if found]


def names(nets_fd: int) -> list[str]:
    """The names that are taken, sorted; corrupt ones too."""
    found = (name.removesuffix(".json") for name in os.listdir(nets_fd)
             if name.endswith(".json") and not name.startswith(".") and name != netrecord.SCOPE_FILE)
    return sorted(name for name in found if not name_fault(name))


def read_or_none(nets_fd: int, name: str) -> Network | None:
    """The network, or None if there is none that can be read."""
    try:
        return netrecord.read_network(nets_fd, name)
    except CorruptFile:
        return None


def read(nets_fd: int, name: str) -> Network:
    """The network of that name. Raises NsboxError: there is none, or its record is corrupt."""
    try:
        found = None if name_fault(name) else netrecord.read_network(nets_fd, name)
    except CorruptFile as err:
        raise NsboxError(f"cannot use network {name!r}: its record is corrupt ({err})",
                         hint=f"remove it with: nsbox net rm --force {name}") from None  # fmt: skip
    if found is None:
        raise NsboxError(f"cannot find network {quote(name)}", hint="see what exists with: nsbox net ls; "
                         f"make it with: nsbox net create {name}")  # fmt: skip
    return found


def checked(name: str) -> Network:
    """The network of that name. Raises NsboxError as :func:`read` does."""
    fd = statedir.nets_fd()
    try:
        return read(fd, name)
    finally:
        os.close(fd)


def must_be_root() -> None:
    """Raises NsboxError for anybody else: a bridge is a link of the host."""
    if os.geteuid() != 0:
        raise NsboxError("cannot use networks: that needs root",
                         hint="--net user reaches out without root, and -p publishes without a bridge")  # fmt: skip


def create(name: str, subnet: str | None = None, internal: bool = False) -> Network:
    """Make a network and its bridge.

    Args:
        subnet: v4, as CIDR; one that is free if not given.

    Raises:
        SpecError: no such name or subnet can be. NsboxError: it is taken, or the kernel refuses.
    """
    must_be_root()
    if fault := name_fault(name):
        raise SpecError(f"cannot use network name {quote(name)}: {fault}")
    if name in _RESERVED:
        raise SpecError(f"cannot use network name {name!r}: it means something else to --net")
    with locked() as nets_fd:
        if name in names(nets_fd):
            raise NsboxError(f"cannot create network {name!r}: the name is taken", hint="see: nsbox net ls")
        return _make(nets_fd, name, [f"10.78.{number}.0/24" for number in range(256)], subnet, internal)


def ensure(nets_fd: int, name: str) -> Network:
    """The network, with its bridge in the kernel; `bridge` is made if there is none yet."""
    if name == DEFAULT and DEFAULT not in names(nets_fd):
        return _make(nets_fd, name, [f"10.{number}.0.0/16" for number in (77, *range(96, 128))], None, False)
    network = read(nets_fd, name)
    make_bridge(network)
    return network


def make_bridge(network: Network) -> None:
    """The network's bridge in the kernel, with its addresses: made, or found and completed."""
    from ..net import links

    addresses = [with_prefix(host_address(subnet, 1), subnet) for subnet in (network.subnet4, network.subnet6)]
    links.make_bridge(network.bridge, alias(network), addresses, links.uplink_mtu())


def _make(nets_fd: int, name: str, wishes: Sequence[str], subnet: str | None, internal: bool) -> Network:
    from ..net import links

    others = every(nets_fd)
    subnet4 = _asked(subnet, others) if subnet is not None else _free(wishes, others)
    for _ in range(_TRIES):
        new_id = store.new_id()
        bridge, subnet6 = bridge_of(new_id), f"{_PREFIX6}:{new_id[:4]}::/64"
        taken = new_id[:4] == "0000" or any(one.subnet6 == subnet6 for one in others)  # 0000: see podside.LO_V6
        if not taken and links.alias_of(bridge) is None:
            break
    network = Network(new_id, name, bridge, str(subnet4), _plain(subnet6), internal)
    netrecord.write_network(nets_fd, network)  # before the kernel has anything of it
    try:
        make_bridge(network)
    except BaseException:
        forget(nets_fd, network)
        raise
    return network


def _plain(subnet: str) -> str:
    import ipaddress

    return str(ipaddress.ip_network(subnet))


def _asked(text: str, others: Sequence[Network]) -> "IPv4Network":
    """The subnet that was asked for. Raises SpecError, NsboxError: it overlaps."""
    import ipaddress

    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as err:
        raise SpecError(f"cannot use subnet {quote(text)}: {err}", hint=_SUGGESTION) from None
    if not _PREFIX_MIN <= subnet.prefixlen <= _PREFIX_MAX or "/" not in text:
        raise SpecError(f"cannot use subnet {quote(text)}: its prefix length is not {_PREFIX_MIN} to {_PREFIX_MAX}",
                        hint=_SUGGESTION)  # fmt: skip
    if subnet.is_multicast or subnet.is_loopback or subnet.is_unspecified or subnet.is_link_local:
        raise SpecError(f"cannot use subnet {quote(text)}: no pod can have an address of it", hint=_SUGGESTION)
    for other in others:
        if subnet.overlaps(ipaddress.IPv4Network(other.subnet4)):
            raise NsboxError(f"cannot use subnet {text}: network {other.name!r} has {other.subnet4}", hint=_SUGGESTION)
    for route in _host_routes():
        if subnet.overlaps(route):
            raise NsboxError(f"cannot use subnet {text}: this host has a route to {route}", hint=_SUGGESTION)
    return subnet


def _free(wishes: Sequence[str], others: Sequence[Network]) -> "IPv4Network":
    import ipaddress

    taken = [ipaddress.IPv4Network(other.subnet4) for other in others] + _host_routes()
    for wish in map(ipaddress.IPv4Network, wishes):
        if not any(wish.overlaps(one) for one in taken):
            return wish
    raise NsboxError(f"cannot find a free subnet: all from {wishes[0]} to {wishes[-1]} are taken", hint=_SUGGESTION)


def _host_routes() -> "list[IPv4Network]":
    import ipaddress

    from ..net import links

    return [ipaddress.IPv4Network(word, strict=False) for word in links.routes() if ":" not in word]


def forget(nets_fd: int, network: Network) -> None:
    """Remove a network's bridge and its record. What is missing already is no error."""
    from ..net import links

    links.remove(network.bridge, alias(network))
    unlink(nets_fd, network.name)


def unlink(nets_fd: int, name: str) -> None:
    """Remove the record of a network alone, which may be corrupt."""
    try:
        os.unlink(f"{name}.json", dir_fd=nets_fd)
    except FileNotFoundError:
        pass


def host_address(subnet: str, number: int) -> str:
    """The address with that number in a subnet: 1 is the bridge's own."""
    import ipaddress

    return str(ipaddress.ip_network(subnet)[number])


def with_prefix(address: str, subnet: str) -> str:
    """'10.77.0.2' as '10.77.0.2/16'."""
    return f"{address}/{subnet.rpartition('/')[2]}"
