"""The last step of every process that nsbox makes: a clean start of another program."""

import errno
import fcntl
import os
import signal
from typing import Callable, Mapping, NoReturn, Sequence

from ..errors import EXIT_CANNOT_INVOKE, EXIT_NOT_FOUND, CommandError
from ..linux import process, syscalls
from ..linux.flags import F_ADD_SEALS, F_SEAL_ALL
from ..privilege import attributes
from . import launch

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UMASK = 0o022
_EXECUTE_ONLY = 0o111

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

    Ten megabytes, and /proc/1/exe is the host's interpreter: for whoever may look into this process,
    and it is then that file's own mode which keeps it from being written to.
    """
    _take_stdio((null_fd, null_fd, null_fd))
    process.reset_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    process.about_to_exec()
    syscalls.close_range(3, cloexec_only=False)  # an end of file, as an execve would give
    main()


def launcher(argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> int:
    """A descriptor of a sealed program for :func:`become`; -1 on a machine that has none.

    Made while the caller still is who made the pod: then the kernel lets nobody in there look into
    the process that runs it, whatever rights he has over the pod's user namespace.
    """
    program = launch.program(_candidates(argv[0], env))
    if program is None:
        return -1
    fd = sealed_program("launch", program)
    os.fchmod(fd, _EXECUTE_ONLY)
    return fd


def become(
    argv: Sequence[bytes], env: Mapping[bytes, bytes], stdio: tuple[int, int, int], launcher_fd: int
) -> NoReturn:
    """Turn the caller into the user's program, searched for in the PATH of `env`.

    Without a launcher the caller's own interpreter executes it, and is what /proc/self/exe leads to
    meanwhile: a script of the pod that names this as its interpreter is run by that.

    Args:
        launcher_fd: what :func:`launcher` made of the same words; -1 for none.

    Raises:
        CommandError: not found (127) or not executable (126).
    """
    launcher_fd = _above_report(launcher_fd)
    _take_stdio(stdio)
    process.reset_signals()
    if launcher_fd < 0:
        process.about_to_exec()
        raise refusal(argv[0], _try_all(argv, env))
    attributes.read_as_others_do()  # the launcher is executable only, and so hidden from its start on
    process.about_to_exec(launch.REPORT_FD)
    raise refusal(argv[0], _try_launcher(launcher_fd, argv, env))


def _try_launcher(launcher_fd: int, argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> int:
    try:
        syscalls.execveat(launcher_fd, argv, [name + b"=" + value for name, value in env.items()])
    except OSError as err:
        return err.errno or 0  # as with the command's own execve: too many arguments, or no memory
    raise AssertionError("execveat returned")


def _above_report(fd: int) -> int:
    """The same file under a number that is not the one of the launcher's report."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, launch.REPORT_FD + 1) if fd >= 0 else -1


def _take_stdio(stdio: tuple[int, int, int]) -> None:
    for number, fd in enumerate(_above_stdio(stdio)):
        os.dup2(fd, number, inheritable=True)
    syscalls.close_range(3, cloexec_only=True)
    os.umask(_UMASK)


def _above_stdio(stdio: tuple[int, int, int]) -> list[int]:
    """The same files under numbers from 3 up, so that dup2 onto 0 to 2 hides none of them."""
    return [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in stdio]


def _candidates(command: bytes, env: Mapping[bytes, bytes]) -> list[bytes]:
    """The places where a command is looked for, in this order."""
    if b"/" in command:
        return [command]
    path = env.get(b"PATH", DEFAULT_PATH)
    return [directory + b"/" + command for directory in path.split(b":") if directory]


def _try_all(argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> int:
    """Try execve(2) in each directory of the PATH; return the errno that says most."""
    worst = errno.ENOENT
    for candidate in _candidates(argv[0], env):
        try:
            os.execve(candidate, tuple(argv), env)
        except OSError as err:
            if err.errno not in (errno.ENOENT, errno.ENOTDIR):
                worst = err.errno or 0
                if err.errno != errno.EACCES:  # found, and not to be run: look no further
                    break
    return worst


def refusal(command: bytes, code: int) -> CommandError:
    """The error for a command that execve(2) refused with this errno."""
    missing = code in (errno.ENOENT, errno.ENOTDIR)
    failure = CommandError(
        f"cannot run {os.fsdecode(command)!r}",
        hint=_HINTS.get(code, ""),
        exit_status=EXIT_NOT_FOUND if missing else EXIT_CANNOT_INVOKE,
    )
    failure.__cause__ = OSError(code, f"execve: {os.strerror(code)}")
    return failure
