"""Published ports of a pod: its one proxy, and what is remembered so that it can be started again.

    pods/NAME/ports.json   what was asked for, and who serves it; see portfile.py
    pods/NAME/ports        the socket by which the proxy is asked; see net/control.py

The proxy ends with the pod. Killed by itself, it is started again by the next publish.
"""

import os
from typing import Any, Iterable, Sequence

from ..errors import NsboxError, PodDead

from ..linux import process
from ..net import control, listen, proxy
from ..net.listen import Forward, Listening
from ..ports import Port
from . import portfile, store, target

_SOCKET = "ports"


def bind(ports: Iterable[Port]) -> list[Listening]:
    """Take the host's side of the ports, all or none. Raises NsboxError: one is in use, say."""
    bound: list[Listening] = []
    try:
        for port in ports:
            bound.append(listen.listen(Forward(*port)))
    except BaseException:
        close(bound)
        raise
    return bound


def close(bound: Sequence[Listening]) -> None:
    """Let go of the sockets here; the proxy has its own."""
    for one in bound:
        one.socket.close()


def publish(name: str, bound: Sequence[Listening]) -> None:
    """Have the pod's proxy serve `bound`, with a new proxy where none runs. Only for one thread.

    Raises:
        PodNotFound, PodDead: there is no such pod. NsboxError: the proxy cannot be started.
    """
    with store.lock(name) as held:
        found = target.find(name)
        try:
            if found.pod is None:
                raise PodDead(f"cannot publish a port of {found.label}: it is not a pod")
            known = portfile.read(held.fd)
            server = known.proxy
            if server is not None and _runs(held.fd):
                control.add(held.fd, _SOCKET, bound)
            else:
                again = bind(Port(*row) for row in known.rows)
                try:
                    server = _start(held.fd, [*again, *bound], found.pidfd)
                finally:
                    close(again)
            portfile.write(held.fd, [*known.rows, *(one.forward for one in bound)], server)
        finally:
            found.close()


def _start(dir_fd: int, bound: Sequence[Listening], pod_pidfd: int) -> process.Identity:
    with control.bind(dir_fd, _SOCKET) as desk:
        started = proxy.start(bound, pod_pidfd, desk.fileno())
    os.close(started.pidfd)
    return process.identify(started.pid)


def unpublish(name: str, ports: Iterable[Port]) -> None:
    """Close published ports; their clients are reset. A port is found by its host's side.

    Raises:
        NsboxError: one of them is not published; then none is closed.
    """
    with store.lock(name) as held:
        known = portfile.read(held.fd)
        open_now = [Forward(*row) for row in known.rows]
        chosen = [_match(name, port, open_now) for port in ports]
        if known.proxy is None:
            return
        if _runs(held.fd):
            control.remove(held.fd, _SOCKET, chosen)
        portfile.write(held.fd, [row for row in known.rows if row not in chosen], known.proxy)


def _match(name: str, port: Port, published: Sequence[Forward]) -> Forward:
    for forward in published:
        same_pod_port = forward.pod_port == port.pod_port
        if port.host_port == 0 and same_pod_port and forward.proto == port.proto:
            return forward
        if forward[:3] == port[:3] and same_pod_port:
            return forward
    raise NsboxError(
        f"cannot unpublish {listen.place(Forward(*port))}: pod {name!r} does not publish it",
        hint=f"see what it publishes with: nsbox publish {name}",
    )


def published(name: str) -> list[dict[str, Any]]:
    """The ports of a pod, as rows: proto, host_address, host_port, pod_port, clients, state.

    state is "open", or "down" where the proxy was killed or the pod has ended.
    """
    dir_fd = store.directory(name)
    clients: dict[Forward, int] = {}
    wanted: list[Forward] = []
    try:
        wanted = [Forward(*row) for row in portfile.read(dir_fd).rows]
        if wanted:
            clients = {one.forward: one.clients for one in control.status(dir_fd, _SOCKET)}
    except NsboxError:
        pass  # killed: its ports are down
    finally:
        os.close(dir_fd)
    return [
        {**forward._asdict(), "clients": clients.get(forward, 0),
         "state": "open" if forward in clients else "down"}
        for forward in wanted
    ]  # fmt: skip


def _runs(dir_fd: int) -> bool:
    try:
        control.status(dir_fd, _SOCKET)
    except NsboxError:
        return False
    return True
