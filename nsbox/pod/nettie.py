"""Cables between two pods, without a bridge: for labs with several hosts.

See netattach.py for how a record and the kernel are kept together.
"""

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Sequence

from ..errors import NsboxError, PodNotFound
from ..linux import process
from . import netlate, netnames, netrecord, networks, networld, store
from .netattach import Held, Running, free_ifname, no_way_back
from .netrecord import Tie, tie_alias
from .record import PodRecord

if TYPE_CHECKING:
    from ..net.links import End
    from ..net.shape import Shape

_SUBNETS = 16384  # of four addresses each, in 10.76.0.0/16
_MTU = 1500


def link(name_a: str, name_b: str, shape: "Shape | None" = None) -> tuple[Tie, Tie]:
    """Lay a cable between two running pods, with two addresses; what each of them has of it."""
    networks.must_be_root()
    if name_a == name_b:
        raise NsboxError(f"cannot link pod {name_a!r} to itself")
    first, second = sorted((name_a, name_b))  # always in one order: two commands never wait for each other
    with store.lock(first) as held_1, store.lock(second) as held_2:
        held_a, held_b = (held_1, held_2) if first == name_a else (held_2, held_1)
        with Running(held_a) as a, Running(held_b) as b, networks.locked() as nets_fd:
            return _tie(nets_fd, a, b, shape)


def _tie(nets_fd: int, a: Held, b: Held, shape: "Shape | None") -> tuple[Tie, Tie]:
    from ..net import links

    before_a, before_b = netrecord.read_pod(a.dir_fd), netrecord.read_pod(b.dir_fd)
    tie_id, (address_a, address_b) = store.new_id(), _tie_addresses(nets_fd)
    tie_a = Tie(tie_id, b.record.name, b.record.id, free_ifname(before_a), address_a, address_b)
    tie_b = Tie(tie_id, a.record.name, a.record.id, free_ifname(before_b), address_b, address_a)
    with netnames.as_before(a.record.name, a.dir_fd), netnames.as_before(b.record.name, b.dir_fd):
        try:
            netrecord.write_pod(a.dir_fd, before_a._replace(ties=(*before_a.ties, tie_a)))
            netrecord.write_pod(b.dir_fd, before_b._replace(ties=(*before_b.ties, tie_b)))
            links.tie(a.pidfd, _end(tie_a), b.pidfd, _end(tie_b), tie_alias(tie_id))
            _furnish(nets_fd, ((a, tie_a), (b, tie_b)), shape)
            no_way_back()
        except BaseException:
            for pod, before in ((a, before_a), (b, before_b)):
                with suppress(NsboxError):  # there may be both ends, or one that has not got its name yet
                    links.drop_inside(pod.pidfd, tie_alias(tie_id))
                netrecord.write_pod(pod.dir_fd, before)
                netnames.tell_own(pod.record, pod.dir_fd)
            with suppress(NsboxError):
                networld.settle(nets_fd, ending=True)
            raise
    return tie_a, tie_b


def _furnish(nets_fd: int, ends: Sequence[tuple[Held, Tie]], shape: "Shape | None") -> None:
    """What a cable that lies is to have: its shape, and names for its pods."""
    from ..net import shape as shaping

    for pod, tie in ends:
        if shape is not None:
            shaping.apply(tie.ifname, shape, pod.pidfd)
        netnames.tell_own(pod.record, pod.dir_fd)
    networld.settle(nets_fd)
    for pod, _ in ends:
        netlate.bring(pod.record, pod.pidfd)


def _end(tie: Tie) -> "End":
    from ..net import links

    return links.End(tie.ifname, "", (f"{tie.address}/30",), (), _MTU)


def _tie_addresses(nets_fd: int) -> tuple[str, str]:
    """The two addresses of a subnet of four that no living cable has."""
    import ipaddress

    taken = {tie.address for pod in networld.living() for tie in pod.links.ties}
    others = [ipaddress.IPv4Network(network.subnet4) for network in networks.every(nets_fd)]
    start = int(ipaddress.IPv4Address("10.76.0.0"))
    for number in range(_SUBNETS):
        subnet = ipaddress.IPv4Network((start + 4 * number, 30))
        if str(subnet[1]) not in taken and str(subnet[2]) not in taken and not any(map(subnet.overlaps, others)):
            return str(subnet[1]), str(subnet[2])
    raise NsboxError("cannot find free addresses for a link in 10.76.0.0/16")


def untie(nets_fd: int, pod: Held, tie: Tie) -> None:
    """Take a cable between two pods away, by the end of one that runs."""
    from ..net import links

    links.drop_inside(pod.pidfd, tie_alias(tie.id))
    drop_peers_end(pod.record.id, tie)
    _forget_tie(pod.record, pod.dir_fd, tie.id)
    networld.settle(nets_fd)


def drop_peers_end(pod_id: str, tie: Tie) -> None:
    """Remove the other end of a cable of a pod, if that one's runs, and what is written about it there."""
    from ..net import links

    try:
        peer_fd = store.directory(tie.peer)
    except PodNotFound:
        return
    try:
        record = store.look(tie.peer).record
        for other in netrecord.read_pod(peer_fd).ties:
            if other.id == tie.id and other.peer_id == pod_id:  # else the cable is another pod's
                if record is not None and record.pause is not None:
                    with suppress(ProcessLookupError):
                        pidfd = process.open_process(record.pause)
                        try:
                            links.drop_inside(pidfd, tie_alias(other.id))
                        finally:
                            os.close(pidfd)
                _forget_tie(record, peer_fd, tie.id)
    except NsboxError:
        pass  # it is gone, or cannot be read: its own rm has to do it
    finally:
        os.close(peer_fd)


def _forget_tie(record: PodRecord | None, dir_fd: int, tie_id: str) -> None:
    now = netrecord.read_pod(dir_fd)
    netrecord.write_pod(dir_fd, now._replace(ties=tuple(one for one in now.ties if one.id != tie_id)))
    if record is not None:
        netnames.tell_own(record, dir_fd)
