"""What goes wrong around a command: recycled PIDs, reboots, and calls that fail."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from fakehost import FakeHost
from procfs import identity, until

Argv = Sequence[str]

# ---- processes that come and go ----

_RECYCLE = """
import os, signal, sys, time
victim, argv = int(sys.argv[1]), sys.argv[2:]
try:
    os.kill(victim, signal.SIGKILL)
except ProcessLookupError:
    pass
deadline = time.monotonic() + 10
while os.path.exists(f"/proc/{victim}"):
    if time.monotonic() > deadline:
        sys.exit(f"{victim} does not go")
    time.sleep(0.01)
null = os.open("/dev/null", os.O_RDWR)
for _ in range(100):
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(victim - 1))
    pid = os.fork()
    if pid == 0:
        if os.getpid() != victim:
            os._exit(0)
        os.setsid()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.execvp(argv[0], argv)
    if pid == victim:
        while not open(f"/proc/{victim}/cmdline").read().startswith(argv[0]):  # it has not become that yet
            if time.monotonic() > deadline + 10:
                sys.exit(f"{victim} does not become {argv[0]}")
            time.sleep(0.01)
        sys.exit(0)
    os.waitpid(pid, 0)
sys.exit(f"somebody else took {victim}")
"""


def recycle_pid(host: FakeHost, pid: int, argv: Argv = ("sleep", "300")) -> int:
    """Kill the process `pid` of the fake host and start another that gets the same PID. Returns it."""
    host.python(_RECYCLE, str(pid), *argv, user=0, check=True)
    return pid


def kill_inside(host: FakeHost, pid: int, signum: int = 9) -> None:
    """Send a signal to the process `pid` of the fake host, and for KILL wait until it is gone."""
    host.run(["kill", f"-{signum}", str(pid)], user=0, check=True)
    if signum == 9:
        for _ in until(10):
            if pid not in host.processes():
                return
        raise AssertionError(f"{pid} does not go")


@contextlib.contextmanager
def fake_reboot(host: FakeHost) -> Iterator[None]:
    """Let the machine have been booted anew: every process is gone, the boot id is another.

    The state directory stays, as on a machine that keeps it on a disk. Within the block it is
    the new boot; afterwards the boot id is the true one again.
    """
    host.run(["sh", "-c", "kill -9 -1"], user=0)
    for _ in until(10):
        if set(host.processes()) <= {1}:
            break
    boot_id = "/proc/sys/kernel/random/boot_id"
    host.run(["sh", "-c", f"cat /proc/sys/kernel/random/uuid > /run/boot_id && "
                          f"mount --bind /run/boot_id {boot_id}"], user=0, check=True)
    try:
        yield
    finally:
        host.run(["sh", "-c", f"umount {boot_id}; rm /run/boot_id"], user=0, check=True)


# ---- faults, by strace ----

class Injected(NamedTuple):
    """One run under a fault.

    Attributes:
        fault: what strace did, for example "error=ENOSPC" or "signal=SIGKILL".
        when: to the how manyth call; counted in each process by itself.
        exit_status: what the command ended with; negative: minus the signal.
    """

    fault: str
    when: int
    exit_status: int
    stdout: str
    stderr: str


# strace goes on as long as anything that it traces, a pause too. So: -D puts it behind the command,
# which we wait for; then it is told to let go (-I 2: with a log file it would not listen).
_STRACE = 'log=$1 spec=$2 out=$3 err=$4; shift 4; exec strace -D -I 2 -f -qq -o "$log" -e "$spec" "$@" >"$out" 2>"$err"'


def strace(host: FakeHost, spec: str, argv: Argv, *, timeout: float = 60.0) -> tuple[int, str, str, str]:
    """Run a command inside under strace; return exit status, stdout, stderr and strace's log."""
    if not shutil.which("strace"):
        pytest.fail("needs strace: apt-get install strace")
    paths = [host.scratch / f"strace.{name}" for name in ("log", "out", "err")]
    for path in paths:
        path.write_text("")
        path.chmod(0o666)
    log, out, err = paths
    done = host.run(["sh", "-c", _STRACE, "sh", str(log), spec, str(out), str(err), *argv], timeout=timeout)
    _let_go(host)
    texts = [path.read_text(errors="surrogateescape") for path in (out, err, log)]
    return done.returncode, texts[0], texts[1], texts[2]


def _let_go(host: FakeHost) -> None:
    for _ in until(10, pause=0.02):
        tracers = [pid for pid in host.processes().values()
                   if (identity(f"/proc/{pid}") or ("",))[0] == "strace"]
        if not tracers:
            return
        for pid in tracers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
    raise AssertionError("strace does not let go")


def count_calls(host: FakeHost, syscall: str, argv: Argv) -> int:
    """How often the command calls `syscall`, in that of its processes that does so most."""
    counts: dict[str, int] = {}
    for line in strace(host, f"trace={syscall}", argv)[3].splitlines():
        pid, _, rest = line.partition(" ")
        if rest.lstrip().startswith(f"{syscall}("):
            counts[pid] = counts.get(pid, 0) + 1
    return max(counts.values(), default=0)


def each_fault(
    host: FakeHost, syscall: str, faults: Sequence[str], argv: Callable[[int], Argv], undo: Callable[[], object]
) -> Iterator[Injected]:
    """Run a command again and again, each time with one fault at one of its calls of `syscall`.

    Args:
        faults: as strace's inject has them: "error=ENOSPC", "signal=SIGKILL", "delay_enter=200000".
        argv: given the number of the run, the command. Run 0 is without a fault, to count the calls.
        undo: called after each run; what the command made must then be gone.
    """
    total = count_calls(host, syscall, argv(0))
    undo()
    for fault in faults:
        for when in range(1, total + 1):
            spec = f"inject={syscall}:{fault}:when={when}"
            status, out, err, _ = strace(host, spec, argv(when))
            yield Injected(fault, when, status, out, err)
            undo()
