"""Settings of the kernel that a pod has for itself: those of --sysctl, written at its birth."""

import os
from collections.abc import Iterable

from ..errors import NsboxError, SpecError
from ..linux import syscalls
from ..linux.flags import Resolve
from ..spec import PodSpec
from ..sysctls import DOMAINNAME, is_of_net, path_of
from . import netmodes
from .places import step

_NO_WAY_OUT = Resolve.RESOLVE_BENEATH | Resolve.RESOLVE_NO_XDEV | Resolve.RESOLVE_NO_SYMLINKS


def check(spec: PodSpec) -> None:
    """Refuse settings of a network that is not the pod's own. Raises SpecError."""
    of_net = [key for key, _ in spec.sysctls if is_of_net(key)]
    if of_net and not netmodes.is_own(spec.net):
        raise SpecError(f"cannot set {of_net[0]} for a pod: its network is not its own", hint="leave --net out")


def write(proc_fd: int, sysctls: Iterable[tuple[str, str]]) -> None:
    """Write them, in their order, as PID 1 of the pod: the files are those of who opens them.

    Args:
        proc_fd: the mount of a /proc made just now. Nothing below it can be a link or another
            file system, so that what is written goes to the kernel and nowhere else.

    Raises:
        NsboxError: there is no such setting, or it does not take the value.
    """
    for key, value in sysctls:
        if key == DOMAINNAME:
            # Its file belongs to the machine's root, whoever owns the namespace: only the call asks the owner.
            step(f"set {key} to {value!r} for the pod", syscalls.setdomainname, os.fsencode(value))
            continue
        try:
            fd = syscalls.openat2(proc_fd, f"sys/{path_of(key)}", os.O_WRONLY, _NO_WAY_OUT)
        except OSError as err:
            missing = isinstance(err, FileNotFoundError)
            hint = "this kernel, or a namespace of it, has no such setting" if missing else ""
            raise NsboxError(f"cannot set {key} for the pod", hint=hint) from err
        try:
            os.write(fd, os.fsencode(value) + b"\n")
        except OSError as err:
            cause = OSError(err.errno, f"write: {err.strerror}")
            raise NsboxError(f"cannot set {key} to {value!r} for the pod") from cause
        finally:
            os.close(fd)
