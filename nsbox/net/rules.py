"""The firewall rules of nsbox: two tables of nftables, which are only ever replaced as a whole.

The tables `inet nsbox_SCOPE` and `bridge nsbox_SCOPE` belong to one state directory; nothing else
is named or flushed, and one transaction of nft(8) is all or nothing. A verdict "accept" of ours
lets a packet pass this table only: other tables of the host may drop it still.

The second table holds a port of a bridge to its own addresses. Where the kernel has no tables
of that family the first one is installed alone: pods of one network can then forge addresses
towards each other, but still not reach other networks.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import NsboxError

_PROGRAMS = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft")
_DEADLINE_S = 30.0
_BRIDGE_PART = "# ---- bridge ----\n"
_WILDCARDS = ("0.0.0.0", "::")


class Pin(NamedTuple):
    """A port of a bridge, and what may come in by it: `addresses` without a prefix length."""

    ifname: str
    mac: str
    addresses: tuple[str, ...]


class Guarded(NamedTuple):
    """A network.

    Attributes:
        bridge: its ifname.
        subnets: as CIDR, v4 and v6.
        internal: nothing is forwarded to it or from it.
        ports: where pods are plugged in.
    """

    bridge: str
    subnets: tuple[str, ...]
    internal: bool
    ports: tuple[Pin, ...]


class Dnat(NamedTuple):
    """A published port that the kernel forwards itself. `proto` is "tcp" or "udp"."""

    proto: str
    host_address: str
    host_port: int
    pod_address: str
    pod_port: int


# ---- text ----

def render(
    scope: str, networks: Sequence[Guarded], *, router: bool, dnats: Sequence[Dnat] = (), bridges: Sequence[str] = ()
) -> str:
    """What nft(8) is to be given. Equal networks give equal text, in whatever order they are.

    Args:
        router: nsbox switched forwarding on, so what is not its own is not forwarded.
        bridges: foreign bridges of the host. Where br_netfilter shows the packets inside a bridge
            to this table as if they were forwarded, they pass even so.
    """
    networks = sorted(networks)
    lines = [
        *_anew("inet", scope),
        *_chain("raw_prerouting", "filter hook prerouting priority raw", _only_from_its_bridge(networks)),
        *_chain("forward", "filter hook forward priority filter", _forward(networks, router, bridges, dnats)),
        *_chain("postrouting", "nat hook postrouting priority srcnat", _masquerade(networks)),
    ]
    if dnats:
        lines += [
            *_chain("prerouting", "nat hook prerouting priority dstnat", _dnats(dnats)),
            *_chain("output", "nat hook output priority -100", _dnats(dnats)),
        ]
    return "\n".join([*lines, "}", ""]) + _BRIDGE_PART + _bridge_table(scope, networks)


def _anew(family: str, scope: str) -> list[str]:
    """An empty table, whether there is one now or not: see nft(8), "destroy" is newer."""
    name = f"{family} nsbox_{scope}"
    return [f"add table {name}", f"delete table {name}", f"table {name} {{"]


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    return [f"\tchain {name} {{", f"\t\ttype {hook}; policy accept;", *(f"\t\t{rule}" for rule in rules), "\t}"]


def _ip(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def _only_from_its_bridge(networks: Sequence[Guarded]) -> Iterator[str]:
    """A subnet is reached from its own bridge and from the host: not from the LAN, whoever routes."""
    for net in networks:
        for subnet in sorted(net.subnets):
            yield f'iifname != {{ "lo", "{net.bridge}" }} {_ip(subnet)} daddr {subnet} drop'


def _forward(
    networks: Sequence[Guarded], router: bool, bridges: Sequence[str], dnats: Sequence[Dnat]
) -> Iterator[str]:
    names = [net.bridge for net in networks]
    for name in sorted({*names, *bridges}):
        yield f'iifname "{name}" oifname "{name}" accept'  # inside one bridge
    closed = [net.bridge for net in networks if net.internal]
    if closed:
        yield f"iifname {_quoted(closed)} drop"
        yield f"oifname {_quoted(closed)} drop"
    if names:
        yield f"oifname {_quoted(names)} ct state related accept"
        yield f"oifname {_quoted(names)} ct direction reply ct state established accept"
        # Not all that was once translated: a flow outlives its port, and its address may be another pod's.
        for one in _forwardable(dnats):
            ip = _ip(one.pod_address)
            at = "" if one.host_address in _WILDCARDS else f"ct original {ip} daddr {one.host_address} "
            yield (f"oifname {_quoted(names)} ct status dnat {ip} daddr {one.pod_address} "
                   f"{one.proto} dport {one.pod_port} ct original proto-dst {one.host_port} {at}accept")  # fmt: skip
        yield f"oifname {_quoted(names)} drop"
        yield f"iifname {_quoted(names)} accept"
    if router:  # v6 forwarding is never ours
        yield "meta nfproto ipv4 drop"


def _quoted(names: Iterable[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in names) + " }"


def _masquerade(networks: Sequence[Guarded]) -> Iterator[str]:
    for net in networks:
        for subnet in () if net.internal else sorted(net.subnets):
            ip = _ip(subnet)
            yield f'{ip} saddr {subnet} oifname != "{net.bridge}" masquerade'
            # A pod that calls a published port of its own network: the answer must come back here.
            yield f"{ip} saddr {subnet} {ip} daddr {subnet} ct status dnat masquerade"


def _dnats(dnats: Sequence[Dnat]) -> Iterator[str]:
    """Published ports."""
    for one in _forwardable(dnats):
        ip, v6 = _ip(one.pod_address), ":" in one.pod_address
        where = f"{ip} daddr {one.host_address}"
        if one.host_address in _WILDCARDS:
            where = f"{ip} daddr != {'::1' if v6 else '127.0.0.0/8'} fib daddr type local"
        target = f"[{one.pod_address}]" if v6 else one.pod_address
        yield f"{where} {one.proto} dport {one.host_port} dnat {ip} to {target}:{one.pod_port}"


def _forwardable(dnats: Sequence[Dnat]) -> list[Dnat]:
    """In order, and never for loopback addresses: those would need route_localnet."""
    return sorted(one for one in dnats if not (one.host_address.startswith("127.") or one.host_address == "::1"))


def _bridge_table(scope: str, networks: Sequence[Guarded]) -> str:
    """What comes in by a port carries the addresses of that port, or is dropped.

    One rule for all ports of a kind, by sets: as fast with a thousand pods as with one. A v6
    neighbour advertisement also carries the address that it is about, in its body: a chain
    for each port looks at that one.
    """
    ports = sorted(port for net in networks for port in net.ports)
    v4 = [f'"{port.ifname}" . {address}' for port in ports for address in port.addresses if ":" not in address]
    v6 = [f'"{port.ifname}" . {address}' for port in ports for address in port.addresses if ":" in address]
    lines = [
        *_anew("bridge", scope),
        *_set("ports", "ifname", [f'"{port.ifname}"' for port in ports]),
        *_set("macs", "ifname . ether_addr", [f'"{port.ifname}" . {port.mac}' for port in ports]),
        *_set("v4", "ifname . ipv4_addr", v4),
        *_set("v6", "ifname . ipv6_addr", v6),
    ]
    for port in ports:
        lines += [f"\tchain said_by_{port.ifname} {{", *(f"\t\t{rule}" for rule in _advertised(port)), "\t}"]
    lines += ["\tchain port {", *(f"\t\t{rule}" for rule in _PORT_RULES), *_jumps(ports), "\t}"]
    lines += _chain("prerouting", "filter hook prerouting priority -300", ["iifname @ports jump port"])
    return "\n".join([*lines, "}", ""])


def _set(name: str, kind: str, elements: Sequence[str]) -> list[str]:
    inside = [f"\t\telements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"\tset {name} {{", f"\t\ttype {kind}", *inside, "\t}"]


_PORT_RULES = (
    "iifname . ether saddr != @macs drop",
    "ether type != { arp, ip, ip6 } drop",
    "ether type arp iifname . arp saddr ether != @macs drop",
    "ether type arp arp saddr ip 0.0.0.0 accept",  # a probe before an address is taken: RFC 5227
    "ether type arp iifname . arp saddr ip != @v4 drop",
    "ether type ip iifname . ip saddr != @v4 drop",
    "ether type ip6 ip6 saddr != { ::, fe80::/10 } iifname . ip6 saddr != @v6 drop",
    "icmpv6 type { nd-router-advert, nd-redirect } drop",  # a pod is nobody's router
)


def _jumps(ports: Sequence[Pin]) -> list[str]:
    pairs = ", ".join(f'"{port.ifname}" : jump said_by_{port.ifname}' for port in ports)
    return [f"\t\ticmpv6 type nd-neighbor-advert iifname vmap {{ {pairs} }}"] if pairs else []


def _advertised(port: Pin) -> Iterator[str]:
    """A neighbour advertisement may be about the port's own addresses, and link-local ones.

    The target is 16 bytes, 8 bytes after the start of the message: RFC 4861, 4.4.
    """
    own = sorted(_hex(address) for address in port.addresses if ":" in address)
    if own:
        yield f"@th,64,128 {{ {', '.join(own)} }} return"
    yield "@th,64,10 0x3fa return"  # fe80::/10
    yield "drop"


def _hex(address: str) -> str:
    import socket

    return "0x" + socket.inet_pton(socket.AF_INET6, address).hex()


# ---- the program ----

def install(scope: str, text: str) -> None:
    """Put `text`, from :func:`render`, in the place of the tables of `scope`. All or nothing.

    Raises:
        NsboxError: nft is not there, refuses, or does not end in time.
    """
    fault = _nft(text)
    if fault and not has_bridge_family(scope):
        fault = _nft(text.partition(_BRIDGE_PART)[0])
    if fault:
        raise NsboxError(f"cannot install the firewall rules: {fault}")


def remove(scope: str) -> None:
    """Remove both tables of `scope`, if they are there."""
    inet, bridge = ("\n".join(_anew(family, scope)[:2]) + "\n" for family in ("inet", "bridge"))
    fault = _nft(inet + bridge)
    if fault and not has_bridge_family(scope):
        fault = _nft(inet)
    if fault:
        raise NsboxError(f"cannot remove the firewall rules: {fault}")


def has_bridge_family(scope: str) -> bool:
    """Whether the kernel has tables of the family "bridge"."""
    return not _nft(f"add table bridge nsbox_{scope}_try\ndelete table bridge nsbox_{scope}_try\n")


def program() -> str:
    """The path of nft(8). Raises NsboxError: it is not installed."""
    found = next((path for path in _PROGRAMS if os.access(path, os.X_OK)), "")
    if not found:
        raise NsboxError("networks need the program nft", hint="install the package nftables")
    return found


def _nft(text: str) -> str:
    """Give `text` to nft(8): what it complains about, in one line, or ""."""
    import subprocess

    path = program()
    try:
        done = subprocess.run(
            [path, "-f", "-"], input=text.encode(), capture_output=True, timeout=_DEADLINE_S, check=False,
            cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except OSError as err:
        raise NsboxError(f"cannot start {path}") from err
    except subprocess.TimeoutExpired:
        raise NsboxError(f"nft did not end within {_DEADLINE_S:.0f} s") from None
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[0] if said else f"nft ended with {done.returncode}"
