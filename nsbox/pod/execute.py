"""The last step of every process that nsbox makes: a clean start of another program."""

import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, NoReturn, Sequence

from ..errors import EXIT_CANNOT_INVOKE, EXIT_NOT_FOUND, CommandError, NsboxError, hint_for
from ..linux import process, spawn, syscalls
from ..linux.flags import F_ADD_SEALS, F_SEAL_ALL
from ..privilege import attributes, seccomp
from . import launch

if TYPE_CHECKING:  # few programs have limits of their own
    from ..privilege.limits import Limits

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
    fd = _program_in_memory(name, program)
    _seal(fd)
    return fd


def _program_in_memory(name: str, program: bytes) -> int:
    fd = syscalls.memfd_create(name)
    view = memoryview(program)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def _seal(fd: int) -> None:
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_ALL)


def become_pause(program_fd: int, null_fd: int, calls: seccomp.Program | None) -> NoReturn:
    """Turn the caller into the pause: nothing open but /dev/null, no environment, one argument.

    All signals are blocked over the execve, so that a SIGTERM in between is not lost.
    """
    _take_stdio((null_fd, null_fd, null_fd))
    process.reset_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    spawn.about_to_exec()
    _load(calls)
    syscalls.execveat(program_fd, [b"pause"], [])
    raise AssertionError("execveat returned")


def stay_as_pause(main: Callable[[], NoReturn], null_fd: int, calls: seccomp.Program | None) -> NoReturn:
    """Be the pause as the interpreter that we are: for reading along, and for other machines.

    Ten megabytes, and /proc/1/exe is the host's interpreter, for whoever may look into this process: where root
    made the pod, a member with CAP_SYS_PTRACE and no user namespace; else who is that user on the host anyway.
    """
    _take_stdio((null_fd, null_fd, null_fd))
    process.reset_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    spawn.about_to_exec()
    _load(calls)
    syscalls.close_range(3, cloexec_only=False)  # an end of file, as an execve would give
    main()


def _load(calls: seccomp.Program | None) -> None:
    if calls is not None:
        seccomp.load(calls)


class Launcher(NamedTuple):
    """A program in memory that becomes the user's, not yet sealed: see launch.Built."""

    fd: int
    descriptors_at: int


def launcher(
    argv: Sequence[bytes], env: Mapping[bytes, bytes], calls: seccomp.Program | None, what: int = 0,
    limits: "Limits | None" = None,
) -> Launcher | None:  # fmt: skip
    """The program for :func:`become`, which sets the limits and loads the filter `calls`; None on a machine
    that has none.

    Made while the caller still is who made the pod: then the kernel lets nobody in there look into
    the process that runs it, whatever rights he has over the pod's user namespace.

    Args:
        what: launch.CLONE and so on; with that for spawn.spawn_last(), else for spawn_in().
    """
    built = launch.program(_candidates(argv[0], env), what, calls, limits=limits.packed if limits else b"")
    if built is None:
        return None
    fd = _program_in_memory("launch", built.image)
    os.fchmod(fd, _EXECUTE_ONLY)
    return Launcher(fd, built.descriptors_at)


def become(
    argv: Sequence[bytes], env: Mapping[bytes, bytes], stdio: tuple[int, int, int], launcher: Launcher | None,
    calls: seccomp.Program | None, limits: "Limits | None" = None,
) -> NoReturn:  # fmt: skip
    """Turn the caller into the user's program, searched for in the PATH of `env`.

    Without a launcher the caller's own interpreter executes it, and is what /proc/self/exe leads to
    meanwhile: a script of the pod that names this as its interpreter is run by that.

    Args:
        launcher: what :func:`launcher` made of the same words.
        calls: the filter of system calls that it made it of, loaded last, for it decides about nsbox's own
            calls too.
        limits: its limits, likewise: what nsbox needs for its own steps is not to count.

    Raises:
        CommandError: not found (127) or not executable (126).
    """
    _take_stdio(stdio)
    process.reset_signals()
    if launcher is None:
        if limits is not None:
            limits.put()
        spawn.about_to_exec()
        _load(calls)
        raise refusal(argv[0], _try_all(argv, env))
    ends = spawn.hand_over()
    os.pwrite(launcher.fd, launch.descriptors(*ends), launcher.descriptors_at)
    _seal(launcher.fd)
    attributes.read_as_others_do()  # it may be executed only, and so is hidden from its start on
    if limits is not None:
        limits.foretell()
    spawn.about_to_exec()
    if len(ends) > 1:
        syscalls.purpose = "make the member"
    raise refusal(argv[0], _try_launcher(launcher.fd, argv, env))


def _try_launcher(launcher_fd: int, argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> int:
    try:
        syscalls.execveat(launcher_fd, argv, [name + b"=" + value for name, value in env.items()])
    except OSError as err:
        return err.errno or 0  # as with the command's own execve: too many arguments, or no memory
    raise AssertionError("execveat returned")


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


def told(command: bytes, step: int, code: int) -> NsboxError:
    """The error for what a launcher reported."""
    call = launch.STEPS.get(step, "")
    if call == "execve":
        return refusal(command, code)
    failure = NsboxError(f"cannot start {os.fsdecode(command)!r}", hint=hint_for(call, code))
    failure.__cause__ = OSError(code, f"{call}: {os.strerror(code)}")
    return failure


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
