"""The environment of a member: a clean one, nothing of the caller's but the terminal's type."""

import os
from typing import Iterable

from .execute import DEFAULT_PATH


def base_environment(
    given: Iterable[tuple[bytes, bytes]] = (), *, terminal: bool = False, home: bytes = b"/root"
) -> dict[bytes, bytes]:
    """PATH, HOME, LANG and, on a terminal, TERM; then what the user gave."""
    env = {
        b"PATH": DEFAULT_PATH,
        b"HOME": home,
        b"LANG": b"C.UTF-8",
        b"container": b"nsbox",
    }
    if terminal:
        env[b"TERM"] = os.environb.get(b"TERM", b"xterm")
    env.update(given)
    return env
