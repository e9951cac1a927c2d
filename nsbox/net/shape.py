"""A link made worse on purpose: slower, later, with losses. See tc-netem(8) and tc-tbf(8).

It acts on what leaves by the link. For both directions shape both ends of a cable.
"""

import errno
from typing import Any, NamedTuple

from ..errors import NsboxError
from . import apart, inside

_PACKET_BYTES = 1514  # for how many packets fit into a delay
_BURST_S, _BURST_MIN_BYTES = 0.004, 16 * 1024  # one tick of a slow kernel clock (HZ=250)
_QUEUE_S = 0.05
_NETEM_LIMIT_MIN, _NETEM_LIMIT_MAX = 1000, 1_000_000  # packets
_FAST_BITS = 10_000_000_000  # what a link without a rate may carry
_TC_H_ROOT, _BELOW_1 = 0xFFFF_FFFF, 0x1_0001  # linux/pkt_sched.h: the link itself, the class 1:1
_RATE_MAX = 34_000_000_000  # bits in a second: the kernel's old field holds 32 bits of bytes
_UNKNOWN = (errno.ENOENT, errno.EOPNOTSUPP)
_NOTHING_THERE = (errno.ENOENT, errno.EINVAL)


class Shape(NamedTuple):
    """How bad a link is. Zero is "not at all" for each.

    Attributes:
        delay_ms: milliseconds until a packet goes on.
        loss_percent: of the packets, 0 to 100.
        rate_bits: bits in a second.
    """

    delay_ms: float
    loss_percent: float
    rate_bits: int


def apply(ifname: str, shape: Shape, pidfd: int | None = None) -> None:
    """Shape what leaves by `ifname`, in place of what was there; all zeros takes it away.

    Args:
        pidfd: of a process in whose network namespace the link is; None for the caller's.

    Raises:
        NsboxError: there is no such link, or the kernel lacks the queueing discipline.
    """
    _check(shape)

    def work() -> None:
        if pidfd is not None:
            apart.join_net(pidfd)
        with inside.netlink() as nl:
            index = inside.index_of(nl, ifname)
            _clear(nl, index)
            worse = bool(shape.delay_ms or shape.loss_percent)
            if worse:
                _add(nl, index, "netem", _TC_H_ROOT, "1:", _netem(shape))
            if shape.rate_bits:
                _add(nl, index, "tbf", _BELOW_1 if worse else _TC_H_ROOT, "2:", _tbf(shape))

    apart.run(f"shape the link {ifname}", work)


def _check(shape: Shape) -> None:
    limits = (("delay", shape.delay_ms, 60_000, "ms"), ("loss", shape.loss_percent, 100, "%"),
              ("rate", shape.rate_bits, _RATE_MAX, "bit/s"))  # fmt: skip
    for name, value, most, unit in limits:
        if not 0 <= value <= most:
            raise NsboxError(f"a {name} of {value} {unit} is not between 0 and {most}")
    if 0 < shape.rate_bits < 8:
        raise NsboxError("a rate of less than 8 bit/s is none")


def _netem(shape: Shape) -> dict[str, object]:
    """Delay and loss, with room for the packets that are under way."""
    bits = shape.rate_bits or _FAST_BITS
    under_way = bits / 8 / _PACKET_BYTES * shape.delay_ms / 1000
    limit = min(_NETEM_LIMIT_MAX, max(_NETEM_LIMIT_MIN, int(2 * under_way)))
    return {"delay": int(shape.delay_ms * 1000), "loss": shape.loss_percent, "limit": limit}


def _tbf(shape: Shape) -> dict[str, object]:
    """A rate: a token bucket, with a queue of 50 ms behind it."""
    rate = shape.rate_bits // 8
    burst = max(_BURST_MIN_BYTES, int(rate * _BURST_S))
    return {"rate": rate, "burst": burst, "limit": burst + int(rate * _QUEUE_S)}


def _add(nl: Any, index: int, kind: str, parent: int, handle: str, options: dict[str, object]) -> None:
    try:
        nl.tc("add", kind=kind, index=index, parent=parent, handle=handle, **options)
    except Exception as err:
        if apart.code_of(err) not in _UNKNOWN:
            raise
        more = "a rate alone may work without it" if kind == "netem" else ""
        module = f"this kernel has no queueing discipline {kind}: it needs the module sch_{kind}"
        raise NsboxError(f"cannot shape the link: {module}", hint=more) from None


def _clear(nl: Any, index: int) -> None:
    try:
        nl.tc("del", index=index, parent=_TC_H_ROOT)
    except Exception as err:
        if apart.code_of(err) not in _NOTHING_THERE:
            raise
