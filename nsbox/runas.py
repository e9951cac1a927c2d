"""Who a member shall be: USER[:GROUP], each a number or a name. Plain data, touches nothing.

What is all digits is a number and never a name: a root file system may have a user who is
called "0", or "10". What int() takes besides digits (" 1", "+1", "1_0", "１") is neither, and a
number beyond the kernel's is refused, never cut to fit: 4294967296 would be root.
"""

import re
from typing import NamedTuple

from .errors import SpecError

ID_MAX = 2**32 - 2  # 2**32 - 1 is "unchanged" to setresuid(2)
_FORMS = "USER or USER:GROUP, each a number up to 4294967294 or a name"

_DIGITS = re.compile(r"[0-9]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}\$?")


class User(NamedTuple):
    """A user and a group as they were written.

    Attributes:
        user: a number, or a name to be looked up in the member's root.
        group: the same; None is what goes with the user.
    """

    user: int | str
    group: int | str | None = None


def user_fault(text: str) -> str:
    """Why `text` is no USER[:GROUP], or ""."""
    user, colon, group = text.partition(":")
    return _part_fault(user, "user") or (_part_fault(group, "group") if colon else "")


def _part_fault(part: str, what: str) -> str:
    if not part:
        return f"the {what} is empty"
    if _DIGITS.fullmatch(part):
        return "" if len(part) <= 10 and int(part) <= ID_MAX else f"the {what} is greater than {ID_MAX}"
    return "" if _NAME.fullmatch(part) else f"the {what} is neither a plain number nor a name"


def parse_user(text: str) -> User:
    """The user and group of "USER" or "USER:GROUP".

    Raises:
        SpecError: it is not written so.
    """
    if why := user_fault(text):
        raise SpecError(f"cannot use user {text[:120]!r}: {why}", hint=f"it is {_FORMS}")
    user, colon, group = text.partition(":")
    return User(_part(user), _part(group) if colon else None)


def _part(part: str) -> int | str:
    return int(part) if _DIGITS.fullmatch(part) else part
