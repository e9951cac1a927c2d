"""Networks and the pods that live on them, as one picture; and making the host agree with it.

Everything in here is called under the lock of the networks. The firewall's rules, the host's
packet forwarding and the names that pods find are never changed by steps: they are worked out from
what lives now, and put in place as a whole. So whoever was cut off is mended by the next one.
"""

import os
from functools import partial
from typing import TYPE_CHECKING, Callable, Iterator, NamedTuple, Sequence

from ..errors import NsboxError, PodNotFound
from . import claims, netrecord, networks, rivals, store
from .netrecord import Network, Plug, PodNet
from .record import PodRecord

if TYPE_CHECKING:
    from ..net.rules import Dnat, Guarded

# What this process changed on the host, in words, for the person who called it.
notes: list[str] = []
_DEAD = ("dead", "broken", "corrupt")


class LivingPod(NamedTuple):
    """A pod that runs, or is being made, with what connects it."""

    record: PodRecord
    links: PodNet


class World(NamedTuple):
    """The pods that have links.

    Attributes:
        pods: those whose PID 1 has not ended.
        dead: those that have ended with their links still written down. What they held is free.
        unreadable: by name those that may hold any address, for their links cannot be read or are
            another pod's, and what is wrong with them.
    """

    pods: list[LivingPod]
    dead: list[PodRecord]
    unreadable: dict[str, str]

    def must_be_whole(self) -> None:
        """Raises NsboxError where something is unreadable: nothing new fits in safely then."""
        for name, problem in self.unreadable.items():
            raise _unreadable(name, problem)


def _unreadable(name: str, problem: str) -> NsboxError:
    return NsboxError(f"cannot tell which addresses are free: the record of pod {name!r} is corrupt ({problem})",
                      hint=f"remove it with: nsbox rm --force {name}")  # fmt: skip


def living() -> list[LivingPod]:
    """The pods that have links that can be read, and whose PID 1 has not ended."""
    return scan().pods


def scan() -> World:
    """All pods that have links. It takes no lock of theirs.

    A copy of a record has none of its own; and of two pods that claim one thing, one is not to be believed.
    """
    found: list[LivingPod] = []
    dead: list[PodRecord] = []
    unreadable: dict[str, str] = {}
    entries = list(_with_links())
    copies = rivals.copies([entry for entry, _ in entries])
    for entry, links in entries:
        if entry.record is None or isinstance(links, NsboxError):
            unreadable[entry.name] = entry.problem or str(links)
        elif entry.name in copies:
            continue
        elif entry.status in _DEAD:
            dead.append(entry.record)
        else:
            found.append(LivingPod(entry.record, links))
    # What a loose end had may have been given to others since, so that it claims nothing.
    unreadable.update(claims.contested([_without_loose_ends(pod, found) for pod in found]))
    found = [pod for pod in found if pod.record.name not in unreadable]
    return World([_without_loose_ends(pod, found) for pod in found], dead, unreadable)


def _with_links() -> Iterator[tuple[store.Entry, PodNet | NsboxError]]:
    """All that has a record of links, and that, or why it cannot be read. Those of a dead one are not read."""
    for name in store.names():
        try:
            dir_fd = store.directory(name)
        except NsboxError:
            continue
        try:
            os.stat(netrecord.POD_FILE, dir_fd=dir_fd, follow_symlinks=False)
            entry = store.look(name)
            yield entry, PodNet() if entry.record is None or entry.status in _DEAD else netrecord.read_pod(dir_fd)
        except (FileNotFoundError, PodNotFound):
            continue
        except NsboxError as err:
            yield store.Entry(name, "corrupt", None, str(err)), err
        finally:
            os.close(dir_fd)


def _without_loose_ends(pod: LivingPod, pods: Sequence[LivingPod]) -> LivingPod:
    """A cable between pods goes with the first of them that ends."""
    ids = {one.record.id for one in pods}
    ties = tuple(tie for tie in pod.links.ties if tie.peer_id in ids)
    return pod._replace(links=pod.links._replace(ties=ties))


def plugs_of(network: Network, pods: Sequence[LivingPod]) -> list[tuple[PodRecord, Plug]]:
    """The pods on a network, each with its cable."""
    return [(pod.record, plug) for pod in pods for plug in pod.links.plugs if plug.network_id == network.id]


def settle(nets_fd: int, *, ending: bool = False) -> None:
    """Make rules, forwarding and names agree with who lives now; the last one out puts all back.

    Where the links of a pod cannot be read, the rules stay as they are: without it they would leave
    it unguarded, and its bridge would go.

    Args:
        ending: somebody goes, so old rules do; it is noted and no error.

    Raises:
        NsboxError: something cannot be changed; what could be, is.
    """
    world = scan()
    pods = world.pods
    if world.unreadable:
        tell_names(pods)
        if not ending:
            world.must_be_whole()
        why = _unreadable(*next(iter(world.unreadable.items())))
        return notes.append(f"the firewall rules stay as they were: {why}")
    used = {plug.network_id for pod in pods for plug in pod.links.plugs}
    every = networks.every(nets_fd)
    steps: list[Callable[[], None]] = [partial(_install, nets_fd, every, pods, used), partial(tell_names, pods)]
    if not any(not network.internal and network.id in used for network in every):
        steps.insert(0, partial(_forwarding_back, nets_fd))  # before the rules that tame it are gone
    for network in every:
        if network.name == networks.DEFAULT and network.id not in used:
            steps.append(partial(networks.forget, nets_fd, network))
    failed: NsboxError | None = None
    for step in steps:
        try:
            step()
        except NsboxError as err:
            failed = failed or err
    if failed is not None:
        raise failed


def switch_forwarding_on(nets_fd: int) -> None:
    """Let the host forward, and remember that it did not before. Rules are to be in place by then."""
    from ..net import tunables

    if tunables.forwarding():
        return
    scope = netrecord.read_scope(nets_fd)
    changed = tuple(tunables.bound_to_forwarding())
    netrecord.write_scope(nets_fd, scope._replace(forward_before="0", conf_before=changed))
    tunables.set_forwarding(True)
    notes.append("net.ipv4.ip_forward is 1 now, so that pods reach out; the last pod's rm puts 0 back")


def _forwarding_back(nets_fd: int) -> None:
    from ..net import tunables

    scope = netrecord.read_scope(nets_fd)
    if scope.forward_before == "0":
        tunables.set_forwarding(False)
        tunables.put_back(scope.conf_before)
        netrecord.write_scope(nets_fd, scope._replace(forward_before="", conf_before=()))


def install(nets_fd: int, pods: Sequence[LivingPod], *, router: bool = False) -> None:
    """Put the rules for all that live in place.

    Args:
        router: as if nsbox had switched forwarding on already.
    """
    used = {plug.network_id for pod in pods for plug in pod.links.plugs}
    _install(nets_fd, networks.every(nets_fd), pods, used, router=router)


def _install(
    nets_fd: int, every: Sequence[Network], pods: Sequence[LivingPod], used: set[str], *, router: bool = False
) -> None:
    from ..net import links, rules

    scope = netrecord.read_scope(nets_fd)
    if not used:
        if netrecord.SCOPE_FILE in os.listdir(nets_fd):  # else there were never any
            rules.remove(scope.id)
        return
    if unknown := used - {network.id for network in every}:
        raise _unguarded(pods, unknown)
    netrecord.write_scope(nets_fd, scope)
    guarded = [_guarded(network, pods) for network in every if network.id in used]
    own = {network.bridge for network in every}
    foreign = [name for name in links.bridges() if name not in own]
    text = rules.render(scope.id, guarded, router=router or scope.forward_before == "0",
                        dnats=_dnats(pods, {network.id for network in every if network.internal}),
                        bridges=foreign)  # fmt: skip
    rules.install(scope.id, text)


def _unguarded(pods: Sequence[LivingPod], unknown: set[str]) -> NsboxError:
    """Rules without a network that pods are on would leave these unguarded: better the old ones."""
    name = next(plug.network for pod in pods for plug in pod.links.plugs if plug.network_id in unknown)
    return NsboxError(f"cannot make firewall rules for network {name!r}: its record is corrupt or missing",
                      hint=f"nsbox net rm --force {name} disconnects its pods")  # fmt: skip


def _guarded(network: Network, pods: Sequence[LivingPod]) -> "Guarded":
    from ..net import rules

    pins = [rules.Pin(plug.host_ifname, plug.mac, (plug.v4, plug.v6)) for _, plug in plugs_of(network, pods)]
    return rules.Guarded(network.bridge, (network.subnet4, network.subnet6), network.internal, tuple(pins))


def _dnats(pods: Sequence[LivingPod], internal: set[str]) -> "list[Dnat]":
    """What the kernel is to forward; nothing into a network that is internal, whose pods the proxy serves."""
    from ..net import rules

    found = []
    for pod in pods:
        outward = [plug for plug in pod.links.plugs if plug.network_id not in internal]
        for nat in pod.links.nats if outward else ():
            first = outward[0]
            address = first.v6 if ":" in nat.host_address else first.v4
            found.append(rules.Dnat(nat.proto, nat.host_address, nat.host_port, address, nat.pod_port))
    return found


def tell_names(pods: Sequence[LivingPod]) -> None:
    """Tell all pods the names of those that they reach."""
    from . import netnames

    by_network: dict[str, list[tuple[str, tuple[str, str]]]] = {}
    for pod in pods:
        known_as = dict.fromkeys((pod.record.name, pod.record.hostname))
        for plug in pod.links.plugs:
            by_network.setdefault(plug.network_id, []).extend(
                (pod.record.id, (address, name)) for address in (plug.v4, plug.v6) for name in known_as
            )
    netnames.refresh({
        pod.record.name: [row for plug in pod.links.plugs for owner, row in by_network[plug.network_id]
                          if owner != pod.record.id] + [(tie.peer_address, tie.peer) for tie in pod.links.ties]
        for pod in pods
    })  # fmt: skip
