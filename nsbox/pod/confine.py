"""What a member, or a program of the user's as PID 1, may do: the last steps before its execve.

Its namespaces, keyring, root and streams are its own by then. The order is the law here:

  require          what is asked for by name, and nsbox lacks, is said
  bounding set     needs CAP_SETPCAP, which a change of user takes away
  core files       none is written, unless their limit is asked for
  user             of -u
  capabilities     what is kept, none of it inheritable or ambient; no_new_privs
  limits           of --ulimit, by execute.become(): they would count for nsbox's own steps too
  system calls     the filter decides about nsbox's own calls too, so that loads it last
"""

from typing import TYPE_CHECKING, Callable

from .. import capabilities
from ..capabilities import Keep, Rights
from ..filters import DEFAULT, UNCONFINED, Filter, PodFilter
from ..privilege import rights, seccomp
from ..spec import MemberSpec, PodSpec
from .record import PodRecord

if TYPE_CHECKING:
    from ..privilege.limits import Limits
    from ..ulimits import Ulimits

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


def limits_of_member(pod: PodRecord | None, spec: MemberSpec, doing: str) -> "Limits | None":
    """The limits of a member; those that are said of it come before those of its pod. None: all are the caller's.

    Args:
        doing: as for :func:`confine`.

    Raises:
        NsboxError: the caller may not give them.
    """
    return limits(((pod.ulimits if pod else ()), spec.ulimits), doing)


def limits(given: "tuple[Ulimits, ...]", doing: str) -> "Limits | None":
    """All of `given`, of which the last counts most. Raises as :func:`limits_of_member`. Before the fork."""
    if not any(given):
        return None
    from .. import ulimits  # few programs have limits of their own
    from ..privilege.limits import Limits

    made = Limits(ulimits.settle(*given))
    made.check(doing)
    return made


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
    keep: Keep, doing: str, become: Become | None = None, limits: "Limits | None" = None, *,
    parent_pidfd: int = -1, terminal_fd: int = -1,
) -> bytes:  # fmt: skip
    """Give up what the program to come shall not have; return the home of its user.

    Args:
        doing: what this is for, in words, for the error message.
        become: of :func:`becoming`; the last two are for it.
        limits: what will be set after this.

    Raises:
        NsboxError: nsbox lacks what is asked for, or there is no such user.
        OSError: something cannot be given up.
    """
    rights.require(keep, doing)
    rights.cut_bounding_set(keep)
    if keep.no_new_privs and not (limits and limits.has("core")):
        rights.forbid_core_files()
    home = b"/root" if become is None else become(parent_pidfd, terminal_fd)
    rights.keep_only(keep)
    return home
