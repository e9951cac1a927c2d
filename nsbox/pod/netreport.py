"""What is known about networks, as plain values; and removing and mending them."""

import os
from contextlib import suppress
from typing import Any, Callable, Sequence

from ..errors import NsboxError, PodNotFound
from . import netattach, netend, netmend, netrecord, networks, networld, store
from .netrecord import Network, Plug
from .networld import LivingPod
from .record import PodRecord

_MAX_CHARS = 1 << 16


def summaries() -> list[dict[str, Any]]:
    """All networks for a list; one whose record is corrupt has a "problem"."""
    with networks.locked() as nets_fd:
        pods = networld.living()
        rows = []
        for name in networks.names(nets_fd):
            found = networks.read_or_none(nets_fd, name)
            rows.append(_row(found, pods) if found else {
                "name": name, "id": None, "bridge": None, "subnet4": None, "subnet6": None, "internal": False,
                "pods": [], "problem": "corrupt",
            })  # fmt: skip
        return rows


def everything(name: str) -> dict[str, Any]:
    """All about one network. Raises NsboxError: there is none."""
    with networks.locked() as nets_fd:
        return _row(networks.read(nets_fd, name), networld.living())


def _row(network: Network, pods: list[LivingPod]) -> dict[str, Any]:
    return {
        **network._asdict(),
        "gateway4": networks.host_address(network.subnet4, 1),
        "gateway6": networks.host_address(network.subnet6, 1),
        "pods": [
            {"name": record.name, "ifname": plug.ifname, "address4": plug.v4, "address6": plug.v6,
             "host_ifname": plug.host_ifname}
            for record, plug in networld.plugs_of(network, pods)
        ],
        "problem": "",
    }  # fmt: skip


def of_pod(record: PodRecord) -> dict[str, Any]:
    """What connects a pod: networks, and cables to other pods."""
    dir_fd = store.directory(record.name)
    try:
        links = netrecord.read_pod(dir_fd)
    except NsboxError:
        return {}
    finally:
        os.close(dir_fd)
    found: dict[str, Any] = {
        "networks": [{"network": plug.network, "ifname": plug.ifname, "address4": plug.v4, "address6": plug.v6}
                     for plug in links.plugs],
        "linked_to": [{"pod": tie.peer, "ifname": tie.ifname, "address": tie.address} for tie in links.ties],
        "network_problem": networld.scan().unreadable.get(record.name),
    }  # fmt: skip
    return {key: rows for key, rows in found.items() if rows}


def remove(name: str, *, force: bool = False) -> None:
    """Remove a network and its bridge.

    Args:
        force: pods are disconnected from it; that it is not there, or corrupt, is no error.

    Raises:
        NsboxError: pods are on it.
    """
    networks.must_be_root()
    with networks.locked() as nets_fd:
        try:
            network = networks.read(nets_fd, name)
        except NsboxError:
            if not force or name not in networks.names(nets_fd):
                if force:
                    return
                raise
            return _remove_corrupt(nets_fd, name)
        world = networld.scan()
        if not force:
            world.must_be_whole()  # a pod whose links are not known may be on it
        on_it = [record.name for record, _ in networld.plugs_of(network, world.pods)]
        if not on_it:
            networks.forget(nets_fd, network)
            return networld.settle(nets_fd)
    if not force:
        raise NsboxError(f"cannot remove network {name!r}: pods are on it: {', '.join(on_it)}",
                         hint=f"nsbox net rm --force {name} disconnects them")  # fmt: skip
    for pod in on_it:  # each under its pod's lock, which comes before that of the networks
        with suppress(PodNotFound):
            netattach.disconnect(pod, name)
    remove(name, force=True)


def _remove_corrupt(nets_fd: int, name: str) -> None:
    """Remove a network whose record says nothing: its bridge and cables are found by its pods and its file."""
    from ..net import links

    with suppress(OSError), open(f"{name}.json", errors="replace", opener=_within(nets_fd)) as file:
        text = file.read(_MAX_CHARS)
        for ifname, said in links.ours("nsbox:net:").items():
            if ifname in text or said.removeprefix("nsbox:net:") in text:
                links.remove(ifname, said)
    for pod in networld.living():
        for plug in pod.links.plugs:
            if plug.network == name:
                netend.forget_plug(pod.record, plug)
                bridge = networks.bridge_of(plug.network_id)
                links.remove(bridge, f"nsbox:net:{plug.network_id}")
    networks.unlink(nets_fd, name)
    networld.settle(nets_fd)


def _within(dir_fd: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)


def reload() -> None:
    """Put bridges, rules, forwarding and names back in place, as the records say."""
    from ..net import tunables

    networks.must_be_root()
    with networks.locked() as nets_fd:
        pods = networld.living()
        for network in networks.every(nets_fd):
            plugs = networld.plugs_of(network, pods)
            if plugs or network.name != networks.DEFAULT:
                networks.make_bridge(network)
                _replug(network, plugs)
            if plugs and not network.internal:
                networld.install(nets_fd, pods, router=not tunables.forwarding())
                networld.switch_forwarding_on(nets_fd)
        networld.settle(nets_fd)


def _replug(network: Network, plugs: Sequence[tuple[PodRecord, Plug]]) -> None:
    """Plug in again what hangs loose: somebody removed the bridge, or a cable."""
    from ..net import links

    if links.port_count(network.bridge) < len(plugs):
        for record, plug in plugs:
            netmend.plug_again(network, record, plug)
