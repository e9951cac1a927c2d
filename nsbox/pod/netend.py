"""Taking away what connected a pod to networks: cables, rules, names, and what the kernel remembers.

What is missing already is no error anywhere in here: whoever was killed half way is followed by
the next one, who does it all again.
"""

import os
from typing import Iterable, Sequence

from ..errors import NsboxError
from . import files, netnames, netrecord, networks, networld, store
from .netrecord import Nat, Plug, PodNet, pod_alias
from .record import PodRecord


def leave_all(name: str, dir_fd: int) -> None:
    """Take away what connected a pod whose PID 1 has ended; its lock is held.

    A record that cannot be read is no error either.
    """
    with networks.locked() as nets_fd:
        try:
            record = store.look(name).record
        except NsboxError:
            record = None
        nats = _cut(record, dir_fd)
        networld.settle(nets_fd, ending=True)
        forget_flows(nats)


def cut_dead(records: Iterable[PodRecord]) -> list[Nat]:
    """Remove the cables of pods that have ended; the ports they had. Rules are the caller's to settle."""
    found: list[Nat] = []
    for record in records:
        try:
            dir_fd = store.directory(record.name)
        except NsboxError:
            continue  # removed meanwhile, or not to be read: whoever removes it cuts it
        try:
            found += _cut(record, dir_fd)
        finally:
            os.close(dir_fd)
    return found


def _cut(record: PodRecord | None, dir_fd: int) -> tuple[Nat, ...]:
    """Remove all cables of a pod, then what is written about them; the ports it had."""
    from ..net import links

    if files.newer(dir_fd, netrecord.POD_FILE):
        return ()
    try:
        gone = netrecord.read_pod(dir_fd)
        names = [plug.host_ifname for plug in gone.plugs]
    except NsboxError:  # then they are found by what they carry
        gone, names = PodNet(), []
        if record is not None:
            said = pod_alias(record.id)
            names = [ifname for ifname, owner in links.ours(said).items() if owner == said]
    for ifname in names:
        said = pod_alias(record.id) if record is not None else links.alias_of(ifname) or ""
        if said.startswith(pod_alias("")):
            links.unplug(ifname, said)
    if gone.ties and record is not None:
        from . import nettie

        for tie in gone.ties:
            nettie.drop_peers_end(record.id, tie)
    netrecord.write_pod(dir_fd, PodNet())
    return gone.nats


def forget_plug(record: PodRecord, plug: Plug) -> tuple[Nat, ...]:
    """Remove a cable and what is written about it; the ports that may have gone by it.

    Rules, names and flows are the caller's to settle.
    """
    from ..net import links

    links.unplug(plug.host_ifname, pod_alias(record.id))
    dir_fd = store.directory(record.name)
    try:
        now = netrecord.read_pod(dir_fd)
        netrecord.write_pod(dir_fd, now._replace(plugs=tuple(one for one in now.plugs if one != plug)))
        netnames.tell_own(record, dir_fd)
    finally:
        os.close(dir_fd)
    return now.nats


def forget_flows(nats: Sequence[Nat]) -> None:
    """Make the kernel forget the flows to ports whose rules have been replaced.

    Else a client that goes on sending is led by none of the new ones. Not to somebody else even so:
    the rules let nothing pass that they do not lead themselves.
    """
    if not nats:
        return
    from ..net import conntrack

    for nat in nats:
        conntrack.forget(nat.proto, nat.host_address, nat.host_port)


def tidy() -> None:
    """Make the host agree with the pods that live; nothing is done where there were never networks."""
    if os.geteuid() != 0:
        return
    from . import netmend

    with networks.locked() as nets_fd:
        left = os.listdir(nets_fd)
        for name in left:
            if name.startswith(".") and name.endswith(".tmp"):  # its writer was killed: we hold the lock
                os.unlink(name, dir_fd=nets_fd)
        if left:
            world = networld.scan()
            nats = cut_dead(world.dead)
            netmend.mend(world.pods)
            networld.settle(nets_fd, ending=True)
            forget_flows(nats)
