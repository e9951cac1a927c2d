"""Published ports that the kernel forwards itself: `--publish-mode nat`.

The proxy listens all the same. So a port that somebody has is refused, as without this, nobody else
gets it, and what comes by loopback still works: nsbox never sets route_localnet. Everything else
is led to the pod by a rule before it reaches the proxy. What the host's INPUT rules say about the
port does not count then: it is not the host that is spoken to.
"""

import os
from typing import NoReturn, Sequence

from ..errors import NsboxError, SpecError
from ..linux import process, syscalls
from ..ports import Port
from . import helper, netend, netrecord, networks, networld, statedir, store
from .netattach import Running
from .netrecord import Nat

_NAME = b"nsbox:nat"
FILE = "netnat.json"  # who waits for the pod's end


def check(ports: Sequence[Port], net: str | None = None) -> None:
    """Refuse what cannot be forwarded, before anything is made.

    Args:
        net: of the pod that is about to be made, or None.

    Raises:
        SpecError: a loopback address, or a pod without a network.
    """
    networks.must_be_root()
    for port in ports:
        if port.host_address.startswith("127.") or port.host_address == "::1":
            raise SpecError(f"cannot forward {port.host_address}:{port.host_port} by nat: only the host has loopback",
                            hint="write an address, as in 0.0.0.0:8080:80, or leave --publish-mode out")  # fmt: skip
        if "%" in port.host_address:
            raise SpecError(f"cannot forward {port.host_address} by nat: a rule knows no zone of an address")
    if net in ("none", "user", "host") or (net and ":" in net):
        raise _no_network(f"with --net {net}")


def _no_network(what: str) -> SpecError:
    return SpecError(f"cannot publish by nat: a pod {what} is on no network",
                     hint="give it --net bridge, or nsbox net connect")  # fmt: skip


def add(name: str, ports: Sequence[Port]) -> None:
    """Lead what comes to `ports`, which the pod's proxy serves already, straight to the pod.

    Only for a process with one thread.
    """
    with store.lock(name) as held, Running(held) as pod, networks.locked() as nets_fd:
        before = netrecord.read_pod(held.fd)
        if not before.plugs:
            raise _no_network(repr(name))
        internal = {network.id for network in networks.every(nets_fd) if network.internal}
        if all(plug.network_id in internal for plug in before.plugs):
            raise SpecError(f"cannot publish by nat: nothing is forwarded to the internal network of pod {name!r}",
                            hint="leave --publish-mode out: the proxy reaches it")  # fmt: skip
        new = [Nat(*port) for port in ports]
        try:
            netrecord.write_pod(held.fd, before._replace(nats=(*before.nats, *new)))
            networld.settle(nets_fd)
            netend.forget_flows(new)  # or a client that goes on sending stays with the proxy
            _keep(held.fd, pod.pidfd)
        except BaseException:
            netrecord.write_pod(held.fd, before)
            networld.settle(nets_fd)
            raise


def drop(name: str, ports: Sequence[Port]) -> None:
    """Forward `ports` no more, those that were. Flows that were led to the pod are forgotten."""
    if name not in names():
        return
    with store.lock(name) as held, networks.locked() as nets_fd:
        before = netrecord.read_pod(held.fd)
        gone = [nat for nat in before.nats if any(_same(nat, port) for port in ports)]
        if not gone:
            return
        left = tuple(nat for nat in before.nats if nat not in gone)
        netrecord.write_pod(held.fd, before._replace(nats=left))
        networld.settle(nets_fd)
        netend.forget_flows(gone)
        if not left:
            helper.end(held.fd, FILE)


def _same(nat: Nat, port: Port) -> bool:
    if port.host_port == 0:
        return (nat.proto, nat.pod_port) == (port.proto, port.pod_port)
    return nat == Nat(*port)


def names() -> frozenset[str]:
    """The pods that forward something by nat."""
    if not statedir.has_nets():
        return frozenset()
    return frozenset(pod.record.name for pod in networld.living() if pod.links.nats)


def of_pod(name: str) -> frozenset[tuple[str, str, int, int]]:
    """What a pod forwards by nat."""
    if not statedir.has_nets():
        return frozenset()
    return frozenset(
        (nat.proto, nat.host_address, nat.host_port, nat.pod_port)
        for pod in networld.living() if pod.record.name == name for nat in pod.links.nats
    )


# ---- the end ----

def _keep(dir_fd: int, pod_pidfd: int) -> None:
    """Leave one process behind that takes the rules away when the pod ends by itself.

    Killed, it leaves them to the next command, as everything does.
    """
    if helper.runs(dir_fd, FILE):
        return
    told_r, told_w = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _wait_and_tidy(pod_pidfd, told_w)
        finally:
            os._exit(0)
    os.close(told_w)
    os.waitpid(middle, 0)
    try:
        helper.remember(dir_fd, FILE, int(os.read(told_r, 32)))
    except (OSError, ValueError) as err:
        raise NsboxError("cannot leave a process that takes the rules away when the pod ends") from err
    finally:
        os.close(told_r)


def _wait_and_tidy(pod_pidfd: int, told_w: int) -> NoReturn:
    """Says its PID by `told_w` when it is ready."""
    try:
        process.reset_signals()
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(_NAME)
        os.chdir("/")
        null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in range(3):
            os.dup2(null_fd, number)
        process.close_all_but([pod_pidfd, told_w, *syscalls.listening_fds()])
        syscalls.listen(None)  # who listens ends with the caller
        os.write(told_w, b"%d" % os.getpid())
        os.close(told_w)
        process.has_ended(pod_pidfd, None)
        if statedir.has_nets():
            with networks.locked() as nets_fd:
                nats = netend.cut_dead(networld.scan().dead)
                networld.settle(nets_fd, ending=True)
                netend.forget_flows(nats)
    except (NsboxError, OSError):
        pass
    finally:
        os._exit(0)
