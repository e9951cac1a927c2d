"""Published ports of a pod: its one proxy, and what is remembered so that it can be started again.

    pods/NAME/ports.json   what was asked for, and who serves it; see portfile.py
    pods/NAME/ports        the socket by which the proxy is asked; see net/control.py

The proxy ends with the pod. Killed by itself, it is started again by the next publish. The file
is written first and the proxy follows: whichever step a command is killed at, what is open is
listed, and the next publish or unpublish finishes what was begun. For a pod that is being made
it is written before the pod is ready.
"""

import os
import signal
from contextlib import suppress
from typing import Any, Collection, Iterable, Sequence

from ..errors import NsboxError, PodDead
from ..linux import process
from ..net import control, listen, proxy
from ..net.listen import Forward, Listening
from ..ports import Port
from ..privilege import rights
from . import portfile, store, target

SOCKET = "ports"
_KILL_TIMEOUT_S = 5.0


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


def intend(dir_fd: int, forwards: Iterable[Forward]) -> None:
    """Write down what a pod that is being made shall publish; until :func:`publish` it is down.

    Args:
        dir_fd: of the pod's directory, whose lock is held.
        forwards: with their real host ports, out of :func:`bind`.
    """
    portfile.write(dir_fd, portfile.Ports(tuple(forwards)))


def publish(name: str, bound: Sequence[Listening]) -> None:
    """Have the pod's proxy serve `bound`, with a new proxy where none runs. Only for one thread.

    What a killed proxy or a killed command left behind is put right by the way.

    Raises:
        PodNotFound, PodDead: there is no such pod. NsboxError: the proxy cannot be started.
    """
    with store.lock(name) as held:
        found = target.find(name)
        try:
            if found.pod is None:
                raise PodDead(f"cannot publish a port of {found.label}: it is not a pod")
            if found.pod.net != "none":
                from . import netmodes

                netmodes.check_publish(found.pod.net)
            known = portfile.read(held.fd)
            try:
                _serve(held.fd, known, bound, found.pidfd)
            except BaseException:
                _take_back(held.fd, known)
                raise
        finally:
            found.close()


def _serve(dir_fd: int, known: portfile.Ports, bound: Sequence[Listening], pod_pidfd: int) -> None:
    _close_unknown(dir_fd, known)
    serving = _serving(dir_fd, known)
    new = {one.forward: None for one in bound}  # ordered, and looked up at once
    rows = (*(row for row in known.rows if row not in new), *new)
    open_ones = {*new, *(serving or ())}
    again = bind(Port(*row) for row in rows if row not in open_ones)
    try:
        if serving is not None:
            portfile.write(dir_fd, known._replace(rows=rows))
            control.add(dir_fd, SOCKET, [*again, *bound])
        else:
            _start(dir_fd, rows, [*again, *bound], pod_pidfd)
    finally:
        close(again)


def _start(
    dir_fd: int, rows: Sequence[portfile.Row], bound: Sequence[Listening], pod_pidfd: int
) -> None:  # fmt: skip
    who: process.Identity | None = None

    def remember(pid: int) -> None:
        nonlocal who
        who = process.identify(pid)
        portfile.write(dir_fd, portfile.Ports(tuple(rows), who))

    try:
        with control.bind(dir_fd, SOCKET) as desk:
            started = proxy.start(
                bound, pod_pidfd, desk.fileno(), confine=rights.give_up_all, before_go=remember
            )
        os.close(started.pidfd)
    except BaseException:
        if who is not None:  # a signal may come when it serves already
            _kill(who)
        raise


def _kill(who: process.Identity) -> None:
    with suppress(ProcessLookupError):
        pidfd = process.open_process(who)
        process.send_signal(pidfd, signal.SIGKILL)
        process.has_ended(pidfd, _KILL_TIMEOUT_S)
        os.close(pidfd)


def find(name: str, ports: Iterable[Port]) -> list[Port]:
    """What the pod publishes of `ports`, each found by its host's side, or by its pod's with host port 0.

    Raises:
        NsboxError: one of them is not published.
    """
    with store.lock(name) as held:
        known = _read(held)
        return [Port(*forward) for forward in _match(name, ports, _listed(held.fd, known))]


def unpublish(name: str, ports: Iterable[Port]) -> None:
    """Close published ports, as :func:`find` finds them; their clients are reset.

    Cut off half way, what is open is still listed, and can be unpublished again.

    Raises:
        NsboxError: one of them is not published; then none is closed.
    """
    with store.lock(name) as held:
        known = _read(held)
        chosen = set(_match(name, ports, _listed(held.fd, known)))
        left = known._replace(rows=tuple(row for row in known.rows if row not in chosen))
        portfile.write(held.fd, left)
        _close_unknown(held.fd, left)


def _read(held: store.Locked) -> portfile.Ports:
    """The ports of a pod that something is to be done to. Raises NsboxError: its record cannot be used."""
    entry = store.look(held.name)
    if entry.record is None:
        raise NsboxError(f"cannot unpublish ports of pod {held.name!r}: its record is corrupt ({entry.problem})")
    return portfile.read(held.fd)


def _listed(dir_fd: int, known: portfile.Ports) -> dict[Forward, None]:
    """What is asked for, then what is open besides. In this order, and looked up at once."""
    return dict.fromkeys([*(Forward(*row) for row in known.rows), *(_serving(dir_fd, known) or ())])


def _take_back(dir_fd: int, known: portfile.Ports) -> None:
    """In the face of another error, which is to be reported: as it was, but for who serves it."""
    with suppress(NsboxError):
        now = known._replace(proxy=portfile.read(dir_fd).proxy or known.proxy)
        portfile.write(dir_fd, now)
        _close_unknown(dir_fd, now)


def _close_unknown(dir_fd: int, known: portfile.Ports) -> None:
    """Close what the proxy serves beside `known`: an unpublish was cut off, or is to be done now."""
    wanted = set(known.rows)
    unknown = [forward for forward in _serving(dir_fd, known) or () if forward not in wanted]
    if unknown:
        control.remove(dir_fd, SOCKET, unknown)


def _match(name: str, ports: Iterable[Port], published: Collection[Forward]) -> list[Forward]:
    return [_match_one(name, port, published) for port in ports]


def _match_one(name: str, port: Port, published: Collection[Forward]) -> Forward:
    exact = Forward(*port)
    if exact in published:
        return exact
    for forward in published:
        if port.host_port == 0 and (forward.pod_port, forward.proto) == (port.pod_port, port.proto):
            return forward
    raise NsboxError(
        f"cannot unpublish {listen.place(exact)}: pod {name!r} does not publish it",
        hint=f"see what it publishes with: nsbox publish {name}",
    )


def published(name: str) -> list[dict[str, Any]]:
    """The ports of a pod, as rows: proto, host_address, host_port, pod_port, clients, state.

    state is "open", or "down" where the proxy was killed or the pod has ended.
    """
    dir_fd = store.directory(name)
    try:
        if not portfile.exists(dir_fd):
            return []
        rows = [Forward(*row) for row in portfile.read(dir_fd).rows]
        clients = _clients(dir_fd)
    finally:
        os.close(dir_fd)
    return [
        {**forward._asdict(), "clients": clients.get(forward, 0),
         "state": "open" if forward in clients else "down"}
        for forward in dict.fromkeys([*rows, *clients])
    ]  # fmt: skip


def _clients(dir_fd: int) -> dict[Forward, int]:
    """How many clients each port has that the proxy serves; nothing where it was killed."""
    try:
        return {one.forward: one.clients for one in control.status(dir_fd, SOCKET)}
    except NsboxError:
        return {}


def _serving(dir_fd: int, known: portfile.Ports) -> list[Forward] | None:
    """What the proxy serves now; None if it is gone. Raises NsboxError: it is there and does not answer."""
    try:
        return [one.forward for one in control.status(dir_fd, SOCKET)]
    except NsboxError:
        if known.proxy is not None and _runs(known.proxy):
            raise
        return None


def _runs(who: process.Identity) -> bool:
    try:
        os.close(process.open_process(who))
    except ProcessLookupError:
        return False
    return True
