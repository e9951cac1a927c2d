"""Plugging pods into networks, and taking that away again.

Each step writes what it is about to do into the pod's net.json first, and then does it: nsbox killed
in between leaves a record that says what there may be, and removing that twice does no harm.
"""

import hashlib
import os
import signal
from typing import TYPE_CHECKING, NamedTuple, Sequence

from ..errors import NsboxError, PodDead
from ..linux import process
from . import netend, netlate, netnames, netrecord, networks, networld, rivals, store
from .netrecord import Network, Plug, PodNet, pod_alias
from .networld import LivingPod
from .record import PodRecord

if TYPE_CHECKING:
    from ..net.links import End
    from ..net.shape import Shape

_TRIES = 32


class Held(NamedTuple):
    """The pod that something is done to: its lock is held, its PID 1 is held by `pidfd`."""

    record: PodRecord
    dir_fd: int
    pidfd: int


# ---- a pod and a network ----

def at_birth(record: PodRecord, network: str, ip: str, pid: int) -> None:
    """Plug a pod that is being made into its network. Its lock is held.

    Raises:
        NsboxError: no address is free, or the kernel refuses; the link is gone again.
    """
    dir_fd, pidfd = store.directory(record.name), process.open_pid(pid)
    try:
        with networks.locked() as nets_fd:
            _plug_in(nets_fd, Held(record, dir_fd, pidfd), network, ip)
    finally:
        os.close(pidfd)
        os.close(dir_fd)


def connect(name: str, network: str, ip: str = "", shape: "Shape | None" = None) -> Plug:
    """Plug a running pod into a network. Raises NsboxError; then it is as it was."""
    networks.must_be_root()
    with store.lock(name) as held, Running(held) as pod, networks.locked() as nets_fd:
        with netnames.as_before(pod.record.name, pod.dir_fd):
            plug = _plug_in(nets_fd, pod, network, ip)
            try:
                if shape is not None:
                    shape_both(plug, shape, pod.pidfd)
                    plug = _remember_shape(pod.dir_fd, plug, shape)
                netlate.bring(pod.record, pod.pidfd)
                no_way_back()
            except BaseException:
                _unplug(nets_fd, pod.record, plug)
                raise
        return plug


def no_way_back() -> None:
    """All is done: an ending signal waits from here on, for a status of failure would not be the truth."""
    signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDING_SIGNALS)


def _remember_shape(dir_fd: int, plug: Plug, shape: "Shape") -> Plug:
    """For who has to lay the cable again."""
    links = netrecord.read_pod(dir_fd)
    shaped = plug._replace(shape=(shape.delay_ms, shape.loss_percent, shape.rate_bits))
    plugs = tuple(shaped if one == plug else one for one in links.plugs)
    netrecord.write_pod(dir_fd, links._replace(plugs=plugs))
    return shaped


def disconnect(name: str, network: str) -> None:
    """Unplug a pod from a network, or from the pod of that name that it is tied to."""
    networks.must_be_root()
    with store.lock(name) as held, networks.locked() as nets_fd:
        record, links = store.look(name).record, netrecord.read_pod(held.fd)
        if record is None:
            raise NsboxError(f"cannot disconnect pod {name!r}: its record is corrupt",
                             hint=f"remove it with: nsbox rm --force {name}")  # fmt: skip
        for plug in links.plugs:
            if plug.network == network:
                return _unplug(nets_fd, record, plug)
        for tie in links.ties:
            if tie.peer == network:
                from . import nettie

                with Running(held) as pod:
                    return nettie.untie(nets_fd, pod, tie)
        raise NsboxError(f"cannot disconnect pod {name!r}: it is not on network {network!r}",
                         hint=f"see what it is on with: nsbox inspect {name}")  # fmt: skip


class Running:
    """A pod with a network of its own whose PID 1 runs, out of its locked directory."""

    def __init__(self, held: store.Locked) -> None:
        entry = store.look(held.name)
        rivals.refuse_copy(held.name, "connect")
        record = entry.record
        if record is None or record.pause is None or entry.status != "running":
            raise PodDead(f"cannot connect pod {held.name!r}: it is {entry.status}")
        if "net" not in dict(record.kinds):
            raise NsboxError(f"cannot connect pod {held.name!r}: it has no network of its own")
        try:
            pidfd = process.open_process(record.pause)
        except ProcessLookupError:
            raise PodDead(f"cannot connect pod {held.name!r}: it is dead") from None
        self._pod = Held(record, held.fd, pidfd)

    def __enter__(self) -> Held:
        return self._pod

    def __exit__(self, *_: object) -> None:
        os.close(self._pod.pidfd)


def _plug_in(nets_fd: int, pod: Held, name: str, ip: str) -> Plug:
    from ..net import links

    before = _without_leftovers(netrecord.read_pod(pod.dir_fd), pod.record, name)
    try:
        network = networks.ensure(nets_fd, name)
        world = networld.scan()
        world.must_be_whole()
        nats = netend.cut_dead(world.dead)  # something may keep its namespace, and answer for its address
        others = [one for one in world.pods if one.record.id != pod.record.id]
        plug = _choose(network, others, pod, before, ip)
        now = before._replace(plugs=(*before.plugs, plug))
        netrecord.write_pod(pod.dir_fd, now)
        pods = [*others, LivingPod(pod.record, now)]
        # The rules first: there is no moment in which the pod can be reached without them.
        networld.install(nets_fd, pods, router=not network.internal and not _forwards())
        if not network.internal:
            networld.switch_forwarding_on(nets_fd)
        links.plug(plug.host_ifname, pod_alias(pod.record.id), network.bridge, pod.pidfd, end_of(network, plug))
        netnames.tell_own(pod.record, pod.dir_fd)
        if world.dead:
            networld.settle(nets_fd)
            netend.forget_flows(nats)
        else:
            networld.tell_names(pods)
    except BaseException:
        _back_to(nets_fd, pod, before)
        raise
    return plug


def _without_leftovers(before: PodNet, record: PodRecord, name: str) -> PodNet:
    """What connects a pod, without cables to network `name` that were never finished."""
    from ..net import links

    for old in [plug for plug in before.plugs if plug.network == name]:
        if links.alias_of(old.host_ifname) == pod_alias(record.id):
            raise NsboxError(f"cannot connect pod {record.name!r}: it is on network {name!r} already")
        links.unplug(old.host_ifname, pod_alias(record.id))
        before = before._replace(plugs=tuple(plug for plug in before.plugs if plug != old))
    return before


def _forwards() -> bool:
    from ..net import tunables

    return tunables.forwarding()


def end_of(network: Network, plug: Plug) -> "End":
    """What the pod's end of a cable is to be."""
    from ..net import links

    subnets = (network.subnet4, network.subnet6)
    addresses = tuple(networks.with_prefix(one, subnet) for one, subnet in zip((plug.v4, plug.v6), subnets))
    gateways = () if network.internal else tuple(networks.host_address(subnet, 1) for subnet in subnets)
    return links.End(plug.ifname, plug.mac, addresses, gateways, links.uplink_mtu())


def _back_to(nets_fd: int, pod: Held, before: PodNet) -> None:
    """Undo in the face of another error: that one is to be reported."""
    from ..net import links

    try:
        for plug in netrecord.read_pod(pod.dir_fd).plugs:
            if plug not in before.plugs:
                links.unplug(plug.host_ifname, pod_alias(pod.record.id))
        netrecord.write_pod(pod.dir_fd, before)
        networld.settle(nets_fd)
    except (NsboxError, OSError):
        pass  # the record still says what there may be; prune looks again


def _choose(network: Network, pods: Sequence[LivingPod], pod: Held, before: PodNet, ip: str) -> Plug:
    number = _address_number(network, pods, ip)
    v4, v6 = (networks.host_address(subnet, number) for subnet in (network.subnet4, network.subnet6))
    mac = "02:6e:" + ":".join(f"{int(part):02x}" for part in v4.split("."))
    host_ifname = _host_ifname(network, pod.record.id)
    return Plug(network.name, network.id, host_ifname, free_ifname(before), mac, v4, v6)


def free_ifname(links: PodNet) -> str:
    """The first ethN that no link of a pod has."""
    taken = {plug.ifname for plug in links.plugs} | {tie.ifname for tie in links.ties}
    return next(name for name in (f"eth{number}" for number in range(len(taken) + 1)) if name not in taken)


def _address_number(network: Network, pods: Sequence[LivingPod], ip: str) -> int:
    """Which address of the subnet a pod gets: the one asked for, or the first that is free."""
    import ipaddress

    subnet = ipaddress.IPv4Network(network.subnet4)
    holders = {plug.v4: record.name for record, plug in networld.plugs_of(network, pods)}
    last = subnet.num_addresses - 1  # the broadcast address; 0 is the network's, 1 the bridge's
    if not ip:
        for number in range(2, last):
            if str(subnet[number]) not in holders:
                return number
        raise NsboxError(f"cannot connect a pod to network {network.name!r}: no free address in {subnet}",
                         hint="remove a pod of it, or make a network with a larger --subnet")  # fmt: skip
    address = ipaddress.IPv4Address(ip)
    number = int(address) - int(subnet.network_address)
    if not 2 <= number < last:
        raise NsboxError(f"cannot use address {ip}: a pod on network {network.name!r} has one from {subnet[2]} "
                         f"to {subnet[last - 1]}")  # fmt: skip
    if ip in holders:
        raise NsboxError(f"cannot use address {ip}: pod {holders[ip]!r} has it")
    return number


def _host_ifname(network: Network, pod_id: str) -> str:
    """A name for the host's end: no other pod's, and nobody else's link."""
    from ..net import links

    for number in range(_TRIES):
        digest = hashlib.sha256(f"{pod_id} {network.id} {number}".encode()).hexdigest()
        name = f"nsv{digest[:8]}"
        found = links.alias_of(name)
        if found == pod_alias(pod_id):  # of a connect that was cut off: nothing is written about it
            links.unplug(name, found)
        if found in (None, pod_alias(pod_id)):
            return name
    raise NsboxError("cannot find a free name for a link")


def _unplug(nets_fd: int, record: PodRecord, plug: Plug) -> None:
    nats = netend.forget_plug(record, plug)
    networld.settle(nets_fd)
    netend.forget_flows(nats)


def shape_both(plug: Plug, shape: "Shape", pidfd: int) -> None:
    """Both directions: what leaves the pod, and what comes to it."""
    from ..net import shape as shaping

    shaping.apply(plug.ifname, shape, pidfd)
    shaping.apply(plug.host_ifname, shape)
