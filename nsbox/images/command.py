"""Runs the tools of a build so that nothing of them outlives the builder.

A tool such as mmdebstrap has dozens of children and mounts. As root it runs in a process
and a mount namespace of its own: when the first process in there dies, the kernel kills
the rest and drops the mounts. That first process dies with unshare(1), which dies with us
(PR_SET_PDEATHSIG, prctl(2)), even if we are killed by SIGKILL.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence

from ..errors import Interrupted, NsboxError

LineHandler = Callable[[str], None]

_DIE_WITH_ME = ("setpriv", "--pdeathsig", "KILL", "--")
_OWN_WORLD = (
    *("unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child=KILL", "--"),
    # The shell is PID 1 in there and reaps what the tool leaves behind.
    *("sh", "-c", '"$@"; exit $?', "sh"),
)
_OWN_USERS = ("unshare", "--user", "--map-root-user", "--map-auto", "--")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_KEPT_ENV = ("PATH", "TERM", "SSL_CERT_FILE", "SSL_CERT_DIR", "SOURCE_DATE_EPOCH")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(**more: str) -> dict[str, str]:
    """A clean environment for a tool: the path, proxies and certificates of the caller's."""
    env = {key: value for key, value in os.environ.items() if key in _KEPT_ENV}
    env |= {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    own = [directory for directory in env.get("PATH", "").split(":") if _is_safe(directory)]
    env["PATH"] = ":".join([*own, _SYSTEM_PATH])
    return env | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"} | more


def find(program: str) -> str:
    """Where a tool is, in the path that :func:`environment` gives; "" if nowhere."""
    return shutil.which(program, path=environment()["PATH"]) or ""


def _is_safe(directory: str) -> bool:
    """Whether a directory of the caller's PATH may supply tools: root runs nobody else's.

    With `sudo -E`, say, it is the PATH of another user. What anybody may rename, directories above
    it too, anybody may replace; in a directory such as /tmp (sticky) that is its owner alone.
    """
    if os.geteuid() != 0:
        return bool(directory)
    if not directory.startswith("/"):
        return False
    path = os.path.realpath(directory)
    while True:
        try:
            about = os.stat(path)
        except OSError:
            return False
        if about.st_uid != 0 or about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def line_of(argv: Sequence[str], *, own_world: bool = True) -> list[str]:
    """What is executed to run a tool as :func:`run` does."""
    world = (*(() if os.geteuid() == 0 else _OWN_USERS), *_OWN_WORLD) if own_world else ()
    return [*_DIE_WITH_ME, *world, *argv]


def run(
    argv: Sequence[str], env: Mapping[str, str], lock_fd: int, on_line: LineHandler,
    *, cwd: str, own_world: bool = True,
) -> int:
    """Run a tool to its end, handing each line that it writes to `on_line`; its exit status.

    Args:
        lock_fd: inherited by the tool, so that the lock is not free before it has ended.
        own_world: give it namespaces of its own, and an ordinary user the ids of subuid(5).

    Raises:
        NsboxError: the tool cannot be started.
    """
    try:
        process = subprocess.Popen(
            line_of(argv, own_world=own_world), cwd=cwd, env=env, umask=0o022,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(lock_fd,), start_new_session=True,  # Ctrl-C is ours to handle
        )
    except OSError as err:
        raise NsboxError(f"cannot start {argv[0]}") from err
    try:
        _read_lines(process, on_line)
        return process.wait()
    except (Exception, Interrupted, KeyboardInterrupt):
        _kill(process)
        raise
    finally:
        if process.stdout:
            process.stdout.close()


def _read_lines(process: subprocess.Popen[bytes], on_line: LineHandler) -> None:
    assert process.stdout
    for raw in process.stdout:
        line = _ANSI.sub("", raw.decode(errors="replace")).strip()
        on_line("".join(char if char.isprintable() else " " for char in line))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the tool and all its children, and wait until they are gone.

    PID 1 of the inner namespace is killed first: unshare(1) can reap it only after the
    kernel has ended all the others in there, see pid_namespaces(7).
    """
    for pid in _children(process.pid):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in _children(process.pid):  # so the descriptor is of that child, and of no other
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []
