"""What is remembered of networks, and of what connects a pod to them: plain data and its JSON form.

    STATE/nets/NAME.json     a network
    STATE/nets/scope.json    what nsbox changed on this host for all of them
    pods/NAME/net.json       the links of one pod, written before the kernel has them

All of these are written under the lock of STATE/nets alone; see networks.py. Which addresses are
in use is kept nowhere: it follows from the pods that live.
"""

import os
from typing import Any, Callable, NamedTuple, Sequence, TypeVar

from .. import decode
from ..errors import NsboxError, SpecError
from ..spec import name_fault
from .files import CorruptFile, check_version, read_json, unknown_keys, write_json

POD_FILE = "net.json"
SCOPE_FILE = "scope.json"

T = TypeVar("T")


class Network(NamedTuple):
    """A network: a bridge and its subnets.

    Attributes:
        id: 16 random hexadecimal digits.
        bridge: its ifname.
        subnet4, subnet6: as CIDR. The first address of each is the bridge's.
        internal: it leads to nowhere but its pods and the host.
    """

    id: str
    name: str
    bridge: str
    subnet4: str
    subnet6: str
    internal: bool = False


class Plug(NamedTuple):
    """A pod's cable to a bridge. Addresses are bare; the prefix length is the network's.

    Attributes:
        shape: as net.shape.Shape: milliseconds, percent, bits in a second.
    """

    network: str
    network_id: str
    host_ifname: str
    ifname: str
    mac: str
    v4: str
    v6: str
    shape: tuple[float, float, int] = (0.0, 0.0, 0)


class Tie(NamedTuple):
    """A pod's end of a cable to another pod.

    Attributes:
        id: of the cable, the same at both ends.
        peer, peer_id: the other pod.
        address, peer_address: v4, of this end and of the other.
    """

    id: str
    peer: str
    peer_id: str
    ifname: str
    address: str
    peer_address: str


class Nat(NamedTuple):
    """A published port that the kernel forwards itself."""

    proto: str
    host_address: str
    host_port: int
    pod_port: int


class PodNet(NamedTuple):
    """All that connects one pod."""

    plugs: tuple[Plug, ...] = ()
    ties: tuple[Tie, ...] = ()
    nats: tuple[Nat, ...] = ()


class Scope(NamedTuple):
    """What is common to the networks of this state directory.

    Attributes:
        id: 8 random hexadecimal digits: part of the names of the firewall's tables.
        forward_before: net.ipv4.ip_forward before nsbox switched it on; "" if it did not.
        conf_before: what else of net.ipv4.conf the kernel changes with it, as (LINK/NAME, value).
    """

    id: str
    forward_before: str = ""
    conf_before: tuple[tuple[str, str], ...] = ()


def _hex_fault(digits: int) -> Callable[[str], str]:
    def law(word: str) -> str:
        return "" if len(word) == digits and set(word) <= set("0123456789abcdef") else "it is no id of nsbox"
    return law


def _ifname_fault(word: str) -> str:
    good = 0 < len(word) < 16 and word.isascii() and word.isalnum()
    return "" if good else "it is no name of a link of nsbox"


def _address_fault(word: str) -> str:
    return "" if 1 < len(word) < 50 and set(word) <= set("0123456789abcdef.:/") else "it is no address"


def _conf_fault(word: str) -> str:
    link, slash, name = word.partition("/")
    good = slash and 0 < len(link) < 16 and link not in (".", "..") and name in ("accept_redirects", "forwarding")
    return "" if good else "it is no setting of a link"


def _value_fault(word: str) -> str:
    return "" if len(word) < 12 and word.removeprefix("-").isdigit() else "it is no value of a setting"


def _shape(value: Any, where: str) -> tuple[float, float, int]:
    numbers = decode.sequence(decode.number(float, 0, 1e12), tuple, 3)(value, where)
    return numbers[0], numbers[1], int(numbers[2])


_ID, _NAME, _LINK = decode.text(_hex_fault(16)), decode.text(name_fault), decode.text(_ifname_fault)
_ADDRESS, _PORT = decode.text(_address_fault), decode.number(int, 1, 65535)
_NETWORK = decode.record(Network, {
    "id": _ID, "name": _NAME, "bridge": _LINK, "subnet4": _ADDRESS, "subnet6": _ADDRESS,
    "internal": decode.exactly(bool),
})
_PLUG = decode.record(Plug, {
    "network": _NAME, "network_id": _ID, "host_ifname": _LINK, "ifname": _LINK, "mac": _ADDRESS,
    "v4": _ADDRESS, "v6": _ADDRESS, "shape": _shape,
})
_TIE = decode.record(Tie, {
    "id": _ID, "peer": _NAME, "peer_id": _ID, "ifname": _LINK, "address": _ADDRESS, "peer_address": _ADDRESS,
})
_NAT = decode.record(Nat, {
    "proto": decode.text(lambda word: "" if word in ("tcp", "udp") else "no such protocol"),
    "host_address": _ADDRESS, "host_port": _PORT, "pod_port": _PORT,
})
_POD_NET = decode.record(PodNet, {
    "plugs": decode.sequence(_PLUG, tuple), "ties": decode.sequence(_TIE, tuple),
    "nats": decode.sequence(_NAT, tuple),
})
_SCOPE = decode.record(Scope, {
    "id": decode.text(_hex_fault(8)),
    "forward_before": decode.text(lambda word: "" if word in ("", "0") else "it is no such setting"),
    "conf_before": decode.sequence(decode.pair(decode.text(_conf_fault), decode.text(_value_fault)), tuple),
})


def _read(dir_fd: int, name: str, decoder: Callable[[Any, str], T], known: Sequence[str]) -> T | None:
    """What the file holds, or None without one. Raises CorruptFile.

    Keys that are not known are passed over, and kept by :func:`_write`; within a plug or a tie they are not.
    """
    try:
        data = read_json(dir_fd, name)
        check_version(data)
        return decoder({key: value for key, value in data.items() if key in known}, name)
    except FileNotFoundError:
        return None
    except SpecError as err:
        raise CorruptFile(str(err)) from None


def _write(dir_fd: int, name: str, record: NamedTuple, decoder: Callable[[Any, str], Any], what: str) -> None:
    plain = decode.plain_record(record)
    decoder(plain, name)  # what we could not read again would take the pod out of the picture
    try:
        write_json(dir_fd, name, {**unknown_keys(dir_fd, name, record._fields), **plain})
    except OSError as err:
        raise NsboxError(f"cannot write the record of {what}") from err


def read_network(nets_fd: int, name: str) -> Network | None:
    """The network of that name. Raises CorruptFile."""
    found = _read(nets_fd, f"{name}.json", _NETWORK, Network._fields)
    if found is not None and found.name != name:
        raise CorruptFile(f"{name}.json: it is of another network")
    return found


def write_network(nets_fd: int, network: Network) -> None:
    """Replace the record of a network."""
    _write(nets_fd, f"{network.name}.json", network, _NETWORK, f"network {network.name!r}")


def read_scope(nets_fd: int) -> Scope:
    """What is common; made up where nothing is written. Raises NsboxError: it is corrupt."""
    try:
        return _read(nets_fd, SCOPE_FILE, _SCOPE, Scope._fields) or Scope(os.urandom(4).hex())
    except CorruptFile as err:
        raise NsboxError(f"cannot read what nsbox changed for its networks: {err}",
                         hint="look at net.ipv4.ip_forward and `nft list tables`, then remove nets/scope.json "
                         "in the state directory") from None  # fmt: skip


def write_scope(nets_fd: int, scope: Scope) -> None:
    """Replace it."""
    _write(nets_fd, SCOPE_FILE, scope, _SCOPE, "the networks")


def read_pod(dir_fd: int) -> PodNet:
    """What connects a pod. Raises NsboxError: the file is corrupt."""
    try:
        return _read(dir_fd, POD_FILE, _POD_NET, PodNet._fields) or PodNet()
    except CorruptFile as err:
        raise NsboxError(f"cannot read which networks the pod is on: {err}",
                         hint="the pod still runs; remove it with: nsbox rm --force") from None  # fmt: skip


def write_pod(dir_fd: int, links: PodNet) -> None:
    """Replace what connects a pod; without links there is no file, and the pod is looked at no more."""
    if links != PodNet() or unknown_keys(dir_fd, POD_FILE, PodNet._fields):
        return _write(dir_fd, POD_FILE, links, _POD_NET, "the pod's links")
    try:
        os.unlink(POD_FILE, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


def pod_alias(pod_id: str) -> str:
    """What the host's end of a pod's cable carries."""
    return f"nsbox:pod:{pod_id}"


def tie_alias(tie_id: str) -> str:
    """What both ends of a cable between pods carry."""
    return f"nsbox:tie:{tie_id}"
