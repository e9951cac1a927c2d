"""Floor 5: words in, one line out. The only room that prints or knows exit statuses."""

import gc
import os
import sys

TYPE_CHECKING = False  # mypy takes it for typing.TYPE_CHECKING; to load that takes a while, see entry()
if TYPE_CHECKING:
    from typing import NoReturn, Sequence


def main(argv: "Sequence[str] | None" = None) -> int:
    """Do what the words say; return the exit status."""
    from .front import run

    return run(argv)


def entry() -> "NoReturn":
    """The command `nsbox`: a process of its own, which ends here.

    It lives for some milliseconds, so it collects no garbage, and it ends without taking the
    interpreter apart: the two would cost as much as the work itself. What was said is written
    out by then: see front.run().
    """
    gc.disable()
    try:
        _end_at_interrupt()
        status = main()
    except (MemoryError, SystemError, ImportError, OSError) as err:
        status = _cannot_start(err)
    sys.stderr.flush()
    os._exit(status)


def _cannot_start(err: Exception) -> int:
    """What would say it better could not be loaded: there is too little memory, or a file of nsbox is missing.

    Of too little memory there are many forms, see errors.is_want_of_memory().
    """
    if "--debug" in sys.argv[1:2]:
        raise err
    what = str(err) if isinstance(err, (ImportError, OSError)) else "Cannot allocate memory"
    hint = "see what memory is free, and the limit on it: ulimit -v; else try: nsbox --debug ls"
    os.write(2, f"nsbox: cannot start: {what}\nhint: {hint}\n".encode(errors="replace"))
    return 125


def _end_at_interrupt() -> None:
    """Have Ctrl-C end the process at once, without Python's traceback, until clean.begin() sees to it."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored stays ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
