"""The last step of every process that nsbox makes: a clean start of another program."""

import errno
import fcntl
import os
import signal
from typing import Callable, Mapping, NoReturn, Sequence

from ..errors import EXIT_CANNOT_INVOKE, EXIT_NOT_FOUND, CommandError
from ..linux import process, syscalls
from ..linux.flags import F_ADD_SEALS, F_SEAL_ALL

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UMASK = 0o022

_HINTS = {
    errno.ENOENT: "the program, its interpreter or its dynamic loader is not in this root",
    errno.ENOEXEC: "a script needs a first line such as #!/bin/sh",
    errno.E2BIG: "one argument may have 131071 bytes, all together 2 MiB: execve(2)",
}


def sealed_program(name: str, program: bytes) -> int:
    """A descriptor of an executable file in memory that nobody can change. See memfd_create(2)."""
    fd = syscalls.memfd_create(name)
    view = memoryview(program)
    while view:
        view = view[os.write(fd, view) :]
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_ALL)
    return fd


def become_pause(program_fd: int, null_fd: int) -> NoReturn:
    """Turn the caller into the pause: nothing open but /dev/null, no environment, one argument.

    All signals are blocked over the execve, so that a SIGTERM in between is not lost.
    """
    _take_stdio((null_fd, null_fd, null_fd))
    process.reset_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    process.about_to_exec()
    syscalls.execveat(program_fd, [b"pause"], [])
    raise AssertionError("execveat returned")


def stay_as_pause(main: Callable[[], NoReturn], null_fd: int) -> NoReturn:
    """Be the pause as the interpreter that we are: for reading along, and for other machines.

    Ten megabytes, and /proc/1/exe is the host's interpreter.
    """
    _take_stdio((null_fd, null_fd, null_fd))
    process.reset_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    process.about_to_exec()
    syscalls.close_range(3, cloexec_only=False)  # an end of file, as an execve would give
    main()


def become(argv: Sequence[bytes], env: Mapping[bytes, bytes], stdio: tuple[int, int, int]) -> NoReturn:
    """Turn the caller into the user's program, searched for in the PATH of `env`.

    Raises:
        CommandError: not found (127) or not executable (126).
    """
    _take_stdio(stdio)
    process.reset_signals()
    process.about_to_exec()
    raise _exec_error(argv[0], _try_all(argv, env))


def _take_stdio(stdio: tuple[int, int, int]) -> None:
    for number, fd in enumerate(_above_stdio(stdio)):
        os.dup2(fd, number, inheritable=True)
    syscalls.close_range(3, cloexec_only=True)
    os.umask(_UMASK)


def _above_stdio(stdio: tuple[int, int, int]) -> list[int]:
    """The same files under numbers from 3 up, so that dup2 onto 0 to 2 hides none of them."""
    return [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in stdio]


def _try_all(argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> OSError:
    """Try execve(2) in each directory of the PATH; return the error that says most."""
    if b"/" in argv[0]:
        candidates = [argv[0]]
    else:
        path = env.get(b"PATH", DEFAULT_PATH)
        candidates = [directory + b"/" + argv[0] for directory in path.split(b":") if directory]
    worst = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for candidate in candidates:
        try:
            os.execve(candidate, tuple(argv), env)
        except OSError as err:
            if err.errno not in (errno.ENOENT, errno.ENOTDIR):
                worst = err
                if err.errno != errno.EACCES:  # found, and not to be run: look no further
                    break
    return worst


def _exec_error(command: bytes, err: OSError) -> CommandError:
    missing = err.errno in (errno.ENOENT, errno.ENOTDIR)
    failure = CommandError(
        f"cannot run {os.fsdecode(command)!r}",
        hint=_HINTS.get(err.errno or 0, ""),
        exit_status=EXIT_NOT_FOUND if missing else EXIT_CANNOT_INVOKE,
    )
    failure.__cause__ = OSError(err.errno, f"execve: {err.strerror}")
    return failure
