"""The `user` network of a pod: who serves it is remembered in pods/NAME/netpasta.json.

It ends with the pod. Killed by itself it is not started again: the pod is without a way out then.
"""

import os

from ..errors import NsboxError
from ..net import pasta
from ..privilege import attributes
from . import helper

_FILE = "netpasta.json"


def start(pid: int, dir_fd: int) -> None:
    """Give the network namespace of `pid`, a child of ours that waits, a way out.

    Raises:
        NsboxError: it could not be; what was started ends with `pid`.
    """
    started = pasta.start(pid, attributes.die_with_parent)
    try:
        helper.remember(dir_fd, _FILE, started.pid)
    except OSError as err:
        raise NsboxError("cannot write down who serves the pod's network") from err
    finally:
        os.close(started.pidfd)


def runs(dir_fd: int) -> bool:
    """Whether what serves the network of the pod with this directory is alive."""
    return helper.runs(dir_fd, _FILE)
