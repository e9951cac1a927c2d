"""Floor 5: words in, one line out. The only room that prints or knows exit statuses."""

from typing import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The command `nsbox`; returns its exit status."""
    from .front import run

    return run(argv)
