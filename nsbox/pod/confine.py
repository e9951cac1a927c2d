"""What a member, or a program of the user's as PID 1, may do: the last steps before its execve.

Its namespaces, keyring, root and streams are its own by then. The order is the law here:

  require          what is asked for by name, and nsbox lacks, is said
  bounding set     needs CAP_SETPCAP, which a change of user takes away
  core files       none is written; other limits stay the caller's
  user             of -u
  capabilities     what is kept, none of it inheritable or ambient; no_new_privs
"""

from typing import Callable

from .. import capabilities
from ..capabilities import Keep, Rights
from ..privilege import rights
from ..spec import MemberSpec
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
