"""Links, rules and ports: each tried in a network namespace that ends with the try."""

import os

from ..errors import NsboxError
from ..linux.policy import read
from ..net import pasta, rules, shape, tries
from .finding import MISSING, NOTE, OK, Outcome, in_new, tried

_BRIDGE, _ADDRESS, _SUBNET, _POD = "nsbdoctor0", "10.255.255.1", "10.255.255.0/24", "10.255.255.2"
_SCOPE = "doctor"


def _in_new_net() -> None:
    in_new(frozenset({"net"}))


def veth() -> Outcome:
    """A pair of links that are one cable."""
    def work() -> None:
        _in_new_net()
        tries.veth()

    return tried(work, "a pair can be made")


def bridge() -> Outcome:
    """A bridge with an address, up, as a network of nsbox has."""
    def work() -> None:
        _in_new_net()
        tries.bridge()

    return tried(work, "one can be made")


def nft() -> Outcome:
    """The rules of a network with a published port: tables of nftables, drops, NAT."""
    try:
        program = rules.program()
    except NsboxError:
        return Outcome(MISSING, "there is no program nft", "install the package nftables")
    network = rules.Guarded(_BRIDGE, (_SUBNET,), False, ())
    text = rules.render(_SCOPE, [network], router=True, dnats=[rules.Dnat("tcp", _ADDRESS, 80, _POD, 80)])

    def work() -> None:
        _in_new_net()
        rules.install(_SCOPE, text)

    return tried(work, f"{program} and the kernel take the rules of a network, NAT too")


def bridge_rules() -> Outcome:
    """Tables of the family "bridge", which hold a pod to its own addresses."""
    def work() -> None:
        _in_new_net()
        if not rules.has_bridge_family(_SCOPE):
            raise NsboxError("nft: the kernel has no tables of the family bridge")

    return tried(work, "the kernel has them")


def tbf() -> Outcome:
    """A link with a rate."""
    return _shaped(shape.Shape(0, 0, 8_000_000))


def netem() -> Outcome:
    """A link with a delay and losses."""
    return _shaped(shape.Shape(1, 1, 0))


def _shaped(wish: shape.Shape) -> Outcome:
    def work() -> None:
        _in_new_net()
        shape.apply("lo", wish)

    return tried(work, "a link can be shaped so")


def user_mode() -> Outcome:
    """What `--net user` needs: the program pasta, and /dev/net/tun open to us."""
    try:
        return Outcome(OK, f"{pasta.program()}, /dev/net/tun")
    except NsboxError as err:
        said = str(err).partition(": ")[2] or str(err)
        return Outcome(MISSING, said, err.hint)


def low_ports() -> Outcome:
    """From which port on an ordinary user may listen."""
    first = read("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first is None or not first.isdigit():
        return Outcome(NOTE, "the kernel does not say from which port on users may listen")
    if os.geteuid() == 0 or int(first) <= 80:
        return Outcome(OK, f"ordinary users may listen on ports from {first} on")
    return Outcome(NOTE, f"you may publish on ports from {first} on: -p 8080:80 and not -p 80:80")
