"""Published UDP ports: one flow for each client, with a connected socket in the pod.

The member sees each client as a port of its own, and what it sends there goes back to that
client, from the address to which the client had written (which matters where the port is
published on all addresses). A flow ends when nothing has passed for UNREPLIED_S, or
REPLIED_S once the member has answered: the times of nf_conntrack. At most FLOWS_MAX are
kept; a new one then takes the place of the flow that has been silent longest, unanswered
ones first, so that a flood of invented senders does not push out who is being served. Where
there is no descriptor for it, one flow goes each round, and what came for others is lost.

A flow that is only sent to does not stay for ever either: after UNHEARD_S without a datagram
from the member the next one looks for it anew, since its address may have gone.

Flows live in this process and die with it: no later pod inherits one.
"""

import errno
import socket
from collections import OrderedDict
from typing import Any, Iterator

from . import podside
from .listen import Listening, is_wildcard
from .loop import IN, Loop

UNREPLIED_S = 30.0
REPLIED_S = 180.0
UNHEARD_S = 180.0
FLOWS_MAX = 4096
_EXCHANGES = 8  # flows that may go over the room in one round: what they had is closed at its end
_BATCH = 64  # datagrams of one socket in one round
_DATAGRAM_BYTES = 65536
_ANCILLARY_BYTES = 128
_IP_PKTINFO = 8  # linux/in.h
_LOST = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMSGSIZE)  # this datagram; the way is good

Ancillary = tuple[tuple[int, int, bytes], ...]
Key = tuple["UdpListener", Any, Ancillary]


class Flows:
    """All flows of a proxy, in the order of their last datagram."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._unreplied: OrderedDict[Key, Flow] = OrderedDict()
        self._replied: OrderedDict[Key, Flow] = OrderedDict()

    def __len__(self) -> int:
        return len(self._unreplied) + len(self._replied)

    def find(self, key: Key) -> "Flow | None":
        """The flow of a client, or None: there is none, or it has not been heard of for too long."""
        flow = self._replied.get(key) or self._unreplied.get(key)
        if flow is not None and self.loop.now_s - flow.heard_s > UNHEARD_S:
            flow.close()
            return None
        return flow

    def make(self, key: Key) -> "Flow":
        """A new flow; the oldest one goes if there is no room, and makes some in the next round."""
        while len(self) and (len(self) >= FLOWS_MAX or self.loop.room_soon < 1):
            next(iter((self._unreplied or self._replied).values())).close()
        flow = self._unreplied[key] = Flow(self, key)
        key[0].flows.add(flow)
        return flow

    def touch(self, flow: "Flow") -> None:
        """A datagram has passed."""
        flow.last_s = self.loop.now_s
        if flow.replied and flow.key in self._unreplied:
            del self._unreplied[flow.key]
            self._replied[flow.key] = flow
        (self._replied if flow.replied else self._unreplied).move_to_end(flow.key)

    def forget(self, flow: "Flow") -> None:
        """It is closed."""
        self._unreplied.pop(flow.key, None)
        self._replied.pop(flow.key, None)
        flow.key[0].flows.discard(flow)

    def expire(self) -> float | None:
        """Close what has been silent too long; return the seconds until the next look, or None."""
        waits = []
        for flows, limit_s in ((self._unreplied, UNREPLIED_S), (self._replied, REPLIED_S)):
            while flows:
                oldest = next(iter(flows.values()))
                left_s = oldest.last_s + limit_s - self.loop.now_s
                if left_s > 0:
                    waits.append(left_s)
                    break
                oldest.close()
        return min(waits, default=None)


class Flow:
    """One client of one port.

    Attributes:
        last_s: when a datagram passed, either way.
        heard_s: when one came from the member; its start, before any did.
    """

    __slots__ = ("key", "replied", "last_s", "heard_s", "_flows", "_targets", "_sock", "_first")

    def __init__(self, flows: Flows, key: Key) -> None:
        self._flows, self.key = flows, key
        self.replied = False
        self.last_s = self.heard_s = flows.loop.now_s
        self._targets: Iterator[podside.Target] | None = None
        self._sock: socket.socket | None = None
        self._first = b""  # sent again if the first target turns out to be the wrong one

    def send(self, data: bytes) -> None:
        """To the member. A datagram for which there is no room is lost, as UDP is."""
        if self._sock is None:
            self._first = data
            if not self._next_target():
                return self.close()
        self._flows.touch(self)
        self._try(data)

    def _try(self, data: bytes) -> None:
        assert self._sock is not None
        try:
            self._sock.send(data)
        except OSError as err:  # of this datagram, or the answer to an earlier one: then this was not sent
            if err.errno not in _LOST:
                self._refused(data)

    def _refused(self, data: bytes) -> None:
        if not self.replied and self._next_target():
            return self._try(data)
        self.close()  # the next datagram begins anew

    def _next_target(self) -> bool:
        loop = self._flows.loop
        if self._sock is not None:
            loop.close(self._sock)
            self._sock = None
        if loop.room < (1 if self._targets is None else 1 - _EXCHANGES):
            return False
        if self._targets is None:
            self._targets = iter(podside.targets(self.key[0].family))
        for target in self._targets:
            try:
                sock, _ = podside.connect(target, self.key[0].forward.pod_port, socket.SOCK_DGRAM)
                loop.add(sock.fileno(), IN, self._ready, self.close)
            except OSError:
                continue
            self._sock = sock
            loop.room -= 1
            return True
        return False

    def _ready(self, _events: int) -> None:
        sock = self._sock
        for _ in range(_BATCH):
            if sock is None or sock is not self._sock:
                return
            try:
                data = sock.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:
                return self._refused(self._first)
            self.replied, self._first, self.heard_s = True, b"", self._flows.loop.now_s
            self._flows.touch(self)
            self.key[0].reply(data, self.key)

    def close(self) -> None:
        """End it. May be called twice."""
        if self._sock is not None:
            self._flows.loop.close(self._sock)
            self._sock = None
        self._targets = iter(())
        self._flows.forget(self)


class UdpListener:
    """Takes the datagrams of one published port."""

    def __init__(self, flows: Flows, listening: Listening) -> None:
        self.forward, self._sock = listening
        self.family = int(self._sock.family)
        self.flows: set[Flow] = set()
        self._flows = flows
        self._wildcard = is_wildcard(self.forward)
        self._open = True
        flows.loop.add(self._sock.fileno(), IN, self._ready, self._pause)

    @property
    def count(self) -> int:
        """How many clients it has."""
        return len(self.flows)

    def _ready(self, _events: int) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _, client = self._sock.recvmsg(_DATAGRAM_BYTES, _ANCILLARY_BYTES)
            except OSError:  # nothing more; or an error of some earlier reply
                return
            key = (self, client, self._came_to(ancillary))
            flow = self._flows.find(key) or self._flows.make(key)
            self._flows.loop.attempt(flow.close, flow.send, data)

    def _pause(self) -> None:
        if self._open:
            self._flows.loop.change(self._sock.fileno(), 0)
            self._flows.loop.starve(self)

    def resume(self) -> None:
        """Take datagrams again, unless the port has been closed."""
        if self._open:
            self._flows.loop.change(self._sock.fileno(), IN)

    def _came_to(self, ancillary: list[tuple[int, int, bytes]]) -> Ancillary:
        """What makes a reply leave from the address to which the datagram came. See ip(7)."""
        if not self._wildcard:
            return ()
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                # struct in_pktinfo. Interface 0: the way back is for the routes to find.
                return ((level, kind, bytes(4) + data[4:8] + bytes(4)),)
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                link_local = data[:2] == b"\xfe\x80"
                return ((level, kind, data if link_local else data[:16] + bytes(4)),)
        return ()

    def reply(self, data: bytes, key: Key) -> None:
        """To the client of a flow."""
        try:
            if self._open:
                self._sock.sendmsg([data], key[2], 0, key[1])
        except OSError:
            return  # it has gone, or its queue is full: lost, as UDP is

    def stop(self) -> None:
        """Close the port at once, and its flows: without it they cannot reply."""
        if not self._open:
            return
        self._open = False
        self._flows.loop.close(self._sock)
        self._flows.loop.room -= 1  # it never counted
        for flow in list(self.flows):
            flow.close()

    close = stop
