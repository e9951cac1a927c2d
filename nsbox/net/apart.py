"""Work on links, done by a short-lived child: in its own or in a pod's network namespace.

A netlink socket belongs to the network namespace in which it was opened, and the files under
/proc/sys/net are those of who opens them. So a child joins the pod's and works there, and the
caller stays where it is. What is done on the host is done by a child too: an answer that never
comes (a receive buffer that ran over) is then an error after a while, not a wait for ever.
"""

import errno
import time
from collections.abc import Callable
from typing import Any

from ..errors import NsboxError
from ..linux import apart, namespaces
from ..linux.apart import code_of, reason

__all__ = ["Work", "code_of", "dumped", "join_net", "reason", "run"]

_INTERRUPTED_TRIES = 10

Work = apart.Work


def run(purpose: str, work: Work) -> Any:
    """:func:`nsbox.linux.apart.run` for work that needs netlink."""
    import pyroute2  # type: ignore[import-untyped]  # noqa: F401  (225 ms: here, not in each child)

    return apart.run(purpose, work)


def join_net(pidfd: int, name: str = "the pod") -> None:
    """Enter the network namespace of the process behind `pidfd`; for the child only."""
    try:
        namespaces.join(pidfd, frozenset({"net"}))
    except OSError as err:
        raise NsboxError(f"cannot enter the network of {name}") from err


def dumped(dump: Callable[[], Any]) -> list[Any]:
    """The whole of a netlink dump. One that the kernel says was disturbed is done again.

    A dump is many messages; when the links change in between, the kernel marks it
    (NLM_F_DUMP_INTR), and what it holds may be incomplete. See netlink(7).

    Raises:
        NsboxError: it was disturbed each time.
    """
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted  # type: ignore[import-untyped]

    for tried in range(_INTERRUPTED_TRIES):
        time.sleep(0.01 * tried)
        try:
            return list(dump())
        except NetlinkDumpInterrupted:
            continue
        except Exception as err:
            if code_of(err) not in (errno.EINTR, errno.ENOBUFS, errno.EAGAIN):
                raise
    raise NsboxError("cannot list what the kernel has: it changes all the time")
