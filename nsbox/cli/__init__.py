"""Floor 5: words in, one line out. The only room that prints or knows exit statuses."""

import gc
import os
import sys
from typing import NoReturn, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words say; return the exit status."""
    from .front import run

    return run(argv)


def entry() -> NoReturn:
    """The command `nsbox`: a process of its own, which ends here.

    It lives for some milliseconds, so it collects no garbage, and it ends without taking the
    interpreter apart: the two would cost as much as the work itself. What was said is written
    out by then: see front.run().
    """
    gc.disable()
    status = main()
    sys.stderr.flush()
    os._exit(status)
