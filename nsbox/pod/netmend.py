"""Making the cables of pods that run, and what is written about them, agree again.

Under the lock of the networks a record without its cable is of a command that was killed, or
somebody removed the cable by hand. Whoever asked for it is told by `nsbox net ls` what there is.
"""

import os
from typing import Sequence

from ..linux import process
from . import netattach, netnames, netrecord, store
from .netrecord import Network, Plug, Tie, pod_alias, tie_alias
from .networld import LivingPod
from .record import PodRecord


def mend(pods: Sequence[LivingPod]) -> None:
    """Forget what is written about cables that are not there, and remove those not written about."""
    from ..net import links

    if not pods:
        return
    there = links.ours(pod_alias(""))
    for pod in pods:
        said, plugs = pod_alias(pod.record.id), pod.links.plugs
        kept = tuple(plug for plug in plugs if there.get(plug.host_ifname) == said)
        for plug in plugs:
            if plug not in kept:  # it may be there, and not carry the pod's id yet
                links.unplug(plug.host_ifname, said)
        inside = _links_inside(pod.record)
        ties = tuple(tie for tie in pod.links.ties if inside is None or tie.ifname in inside)
        for tie in pod.links.ties:
            if tie not in ties:
                _drop_half_made(pod.record, tie)
        for ifname, owner in there.items():
            if owner == said and ifname not in {plug.host_ifname for plug in plugs}:
                links.unplug(ifname, said)
        if kept != plugs or ties != pod.links.ties:
            _rewrite(pod, kept, ties)


def _rewrite(pod: LivingPod, plugs: tuple[Plug, ...], ties: tuple[Tie, ...]) -> None:
    dir_fd = store.directory(pod.record.name)
    try:
        netrecord.write_pod(dir_fd, pod.links._replace(plugs=plugs, ties=ties))
        netnames.tell_own(pod.record, dir_fd)
    finally:
        os.close(dir_fd)


def _drop_half_made(record: PodRecord, tie: Tie) -> None:
    """An end of a cable that has not got its name yet."""
    from ..net import links

    try:
        pidfd = process.open_process(record.pause) if record.pause else -1
    except ProcessLookupError:
        return
    if pidfd >= 0:
        try:
            links.drop_inside(pidfd, tie_alias(tie.id))
        finally:
            os.close(pidfd)


def _links_inside(record: PodRecord) -> set[str] | None:
    """The names of the links in a pod, or None where they cannot be known. See proc_pid_net(5)."""
    try:
        pidfd = process.open_process(record.pause) if record.pause else -1
        if pidfd < 0:
            return None
        os.close(pidfd)
        with open(f"/proc/{record.pause.pid if record.pause else 0}/net/dev", encoding="ascii") as file:
            return {line.partition(":")[0].strip() for line in file if ":" in line}
    except OSError:
        return None


def plug_again(network: Network, record: PodRecord, plug: Plug) -> None:
    """Lay the cable of a running pod anew. One that has just ended needs none."""
    from ..net import links, shape

    try:
        pidfd = process.open_process(record.pause) if record.pause is not None else -1
    except ProcessLookupError:
        return
    if record.pause is not None:
        try:
            links.unplug(plug.host_ifname, pod_alias(record.id))
            links.plug(plug.host_ifname, pod_alias(record.id), network.bridge, pidfd,
                       netattach.end_of(network, plug))
            if any(plug.shape):
                netattach.shape_both(plug, shape.Shape(*plug.shape), pidfd)
        finally:
            os.close(pidfd)
