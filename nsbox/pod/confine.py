"""What a member, or a program of the user's as PID 1, may do: the last steps before its execve.

Its namespaces, keyring, root and streams are its own by then. The order is the law here:

  require          what is asked for by name, and nsbox lacks, is said
  bounding set     needs CAP_SETPCAP, which a change of user takes away
  core files       none is written; other limits stay the caller's
  user             of -u
  capabilities     what is kept, none of it inheritable or ambient; no_new_privs
  system calls     the filter decides about nsbox's own calls too, so execute.become() loads it last
"""

from typing import Callable

from .. import capabilities
from ..capabilities import Keep, Rights
from ..filters import DEFAULT, UNCONFINED, Filter, PodFilter
from ..privilege import rights, seccomp
from ..spec import MemberSpec, PodSpec
from .record import PodRecord

# Makes the caller another user; returns the home. Gets what accounts.become() does.
Become = Callable[[int, int], bytes]


def becoming(user: str) -> Become | None:
    """How the caller becomes `user` of a spec; None for "". To be asked before the fork: it is imported here."""
    if not user:
        return None
    from ..runas import parse_user
    from . import accounts

    who = parse_user(user)
    return lambda parent_pidfd, terminal_fd: accounts.become(who, parent_pidfd, terminal_fd)


def of_member(pod: PodRecord | None, spec: MemberSpec, chrooted: bool) -> Keep:
    """What a member keeps. It is the same beside another program's process, where no pod says anything.

    Args:
        chrooted: nsbox made its root by chroot(2).
    """
    return capabilities.settle(pod.rights if pod else Rights(), spec.rights, chrooted=chrooted)


def calls_of_member(pod: PodRecord | None, spec: MemberSpec, chrooted: bool) -> seccomp.Program | None:
    """The filter of system calls of a member, and beside another program's process; None for none.

    What is said of the member counts before what is said of its pod; and --privileged means none.

    Raises:
        NsboxError: it has to be compiled, and that does not work.
    """
    kept = of_member(pod, spec, chrooted).bits
    if spec.seccomp is not None:
        return seccomp.program(spec.seccomp, kept)
    if spec.rights.privileged:
        return None
    return _program(pod.seccomp if pod else PodFilter(), kept)


def filter_of_pod(spec: PodSpec) -> PodFilter:
    """The filter of a pod's members, and of a program as its PID 1. Compiled now, a join need not do it.

    Raises:
        NsboxError: it cannot be compiled.
    """
    chosen = spec.seccomp or Filter(UNCONFINED if spec.rights.privileged else DEFAULT)
    kept = capabilities.settle(spec.rights, chrooted=spec.root.chroot).bits
    if seccomp.is_ready(chosen, kept) or (made := seccomp.program(chosen, kept)) is None:
        return PodFilter(chosen)
    return PodFilter(chosen, kept, made.code.hex(), made.flags)


def calls_of_init(pod: PodRecord) -> seccomp.Program | None:
    """The filter of a program as PID 1; None for none."""
    return _program(pod.seccomp, capabilities.settle(pod.rights, chrooted=pod.chroot).bits)


def calls_of_pause(pod: PodRecord, *, interpreter: bool) -> seccomp.Program | None:
    """The filter of the pause; None where members have none: what they may not, they shall not have it do.

    Args:
        interpreter: it is the readable one, which makes calls of all kinds.
    """
    if pod.seccomp.chosen.name == UNCONFINED:
        return None
    return seccomp.described(seccomp.Variant(pause=not interpreter))


def _program(own: PodFilter, kept: int) -> seccomp.Program | None:
    if own.code and own.kept == kept:
        return seccomp.Program(bytes.fromhex(own.code), own.flags)
    return seccomp.program(own.chosen, kept)


def confine(
    keep: Keep, doing: str, become: Become | None = None, *, parent_pidfd: int = -1, terminal_fd: int = -1
) -> bytes:
    """Give up what the program to come shall not have; return the home of its user.

    Args:
        doing: what this is for, in words, for the error message.
        become: of :func:`becoming`; the other two are for it.

    Raises:
        NsboxError: nsbox lacks what is asked for, or there is no such user.
        OSError: something cannot be given up.
    """
    rights.require(keep, doing)
    rights.cut_bounding_set(keep)
    if keep.no_new_privs:
        rights.forbid_core_files()
    home = b"/root" if become is None else become(parent_pidfd, terminal_fd)
    rights.keep_only(keep)
    return home
