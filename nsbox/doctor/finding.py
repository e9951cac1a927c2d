"""What is looked at, and what was found: plain data. And how a thing is tried."""

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from ..errors import NsboxError, one_line
from ..linux import apart
from ..privilege import attributes
from ..privilege.trying import in_new as in_new

OK, MISSING, NOTE = "ok", "missing", "note"
NOBODY = 65534  # the ordinary user whose part root plays: see "overflowuid" in user_namespaces(7)


class Outcome(NamedTuple):
    """What one look found.

    Attributes:
        status: OK, MISSING, or NOTE: worth knowing, and nothing is lost.
        seen: what the machine said or holds, in a few words.
        mend: what to do about it, where the catalogue cannot know; "" leaves it to that.
    """

    status: str
    seen: str
    mend: str = ""


class Check(NamedTuple):
    """One thing to look at.

    Attributes:
        key: its name for scripts.
        title: its name for people.
        look: finds out, and leaves nothing behind.
        costs: what of nsbox is lost without it.
        labs: the labs that are lost, "L01" to "L16".
        mend: what to do about it.
    """

    key: str
    title: str
    look: Callable[[], Outcome]
    costs: str
    labs: tuple[str, ...]
    mend: str


class Finding(NamedTuple):
    """A check and what it found: what `nsbox doctor --json` prints."""

    key: str
    title: str
    status: str
    seen: str
    costs: str
    labs: tuple[str, ...]
    mend: str


def tried(work: Callable[[], object], works: str, mend: Callable[[str], str] = lambda _: "") -> Outcome:
    """Do `work` in a child of its own, whose namespaces end with it.

    Args:
        works: what to say if it works.
        mend: gets what was refused ("unshare: No space left on device").
    """
    def child() -> None:
        work()

    try:
        apart.run("try it", child)
    except NsboxError as err:
        said = one_line(err).removeprefix("cannot try it: ")
        return Outcome(MISSING, said, mend(said))
    return Outcome(OK, works)


def as_ordinary_user() -> None:
    """Become nobody in particular, if we are root. For a child."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError as err:
        if err.errno == errno.EINVAL:  # a user namespace that does not know that id
            raise NsboxError(f"there is no user {NOBODY} in this user namespace to try it as") from None
        raise
    attributes.show_to_own_user()
