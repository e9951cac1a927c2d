"""The pause program as PID 1 of a real pid namespace: machine code and hold.py, one suite for both.

"Red when" in a docstring says how to break the program so that the test fails; each was tried.

The aarch64 program runs under qemu-aarch64-static, where a part of the suite has no meaning:
qemu is the process that the kernel sees. So its resident set, the time before it blocks signals
(a mask that is inherited, a SIGTERM before the start), SIGSEGV and what the arm64 kernel makes of
the ELF header cannot be seen there; its logic and its numbers of calls can.
"""

import contextlib
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nsbox.pod import pause

CHECKOUT = Path(__file__).parent.parent
# rt_sigtimedwait(2), in which every variant waits: the first word of /proc/PID/syscall
WAITING = "128 " if platform.machine() == "x86_64" else "137 "
# A user namespace gives everyone the right to make and enter a pid namespace.
AS_USER = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
JOIN_AS_USER = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]

# hold.py as the pod runs it, and any import after its start ends it with 9.
HOLD = """
import builtins, os, sys
sys.path.insert(0, sys.argv[1])
import hold
builtins.__import__ = lambda *args, **kwargs: os._exit(9)
hold.main()
"""
# Started with every signal blocked; runs the program when told to.
WITH_ALL_BLOCKED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.write(1, b"b")
os.read(0, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""
# Has a dead child, whose SIGCHLD is gone, when it runs the program.
WITH_A_ZOMBIE = """
import os, sys
child = os.fork()
if child == 0:
    os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
os.execv(sys.argv[1], sys.argv[1:])
"""
# Signals with a false sender, si_pid = 0 and SI_QUEUE. Only ctypes reaches rt_sigqueueinfo(2).
FORGE = """
import ctypes, sys
number = {"x86_64": 129, "aarch64": 138}[sys.argv[1]]
for signo in (15, 2):
    info = (ctypes.c_int * 32)(signo, 0, -1)
    assert ctypes.CDLL(None).syscall(number, 1, signo, info) == 0
"""
THOUSAND_ORPHANS = 'i=0; while [ $i -lt 1000 ]; do (true & ); i=$((i+1)); done'


def need(*tools: str) -> None:
    """Skip the test where one of `tools` is missing; fail it where no skip is allowed."""
    for tool in tools:
        if shutil.which(tool) is None:
            _cannot_run(f"needs {tool}")


def _cannot_run(reason: str) -> None:
    if os.environ.get("NSBOX_TESTS_MUST_RUN") == "1":
        pytest.fail(f"{reason}, and NSBOX_TESTS_MUST_RUN=1 allows no skip", pytrace=False)
    pytest.skip(reason)


def until(done: Callable[[], object], what: str, within_s: float = 10.0) -> None:
    """Look again and again until `done` is true; fail the test after `within_s` seconds."""
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.002)


def children(parent: int) -> dict[int, str]:
    """Return the state letter of every child of `parent`, zombies too. See proc_pid_stat(5)."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            state, ppid = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent:
                found[int(process.name)] = state
    return found


class Pod:
    """A pid namespace with `command` as its PID 1; at the end of `with` nothing of it is left."""

    def __init__(self, command: list[str]) -> None:
        need("unshare", "nsenter")
        if subprocess.run(["unshare", *AS_USER, "--pid", "--fork", "true"]).returncode:
            _cannot_run("needs the right to make a pid namespace")
        self.unshare = subprocess.Popen(
            ["unshare", *AS_USER, "--pid", "--fork", "--kill-child", "--", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, bufsize=0)
        until(lambda: children(self.unshare.pid), "unshare has forked")
        self.pid = next(iter(children(self.unshare.pid)))
        self.pidfd = os.pidfd_open(self.pid)

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_error: object) -> None:
        if self.unshare.poll() is None:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)
        self.unshare.communicate()

    def wait_until_it_waits(self) -> "Pod":
        until(lambda: Path(f"/proc/{self.pid}/syscall").read_text().startswith(WAITING),
              "PID 1 waits for a signal")
        return self

    def inside(self, *command: str) -> int:
        """Run `command` as a member; return its exit status as subprocess gives it."""
        join = ["nsenter", *JOIN_AS_USER, "--target", str(self.pid), "--pid", "--"]
        return subprocess.run([*join, *command], timeout=60).returncode

    def send(self, signo: signal.Signals) -> None:
        signal.pidfd_send_signal(self.pidfd, signo)

    def ends_with(self, within_s: float = 1.0) -> int:
        return self.unshare.wait(timeout=within_s)

    def assert_alive_and_reaping(self) -> None:
        """The orphan comes last: PID 1 has taken all signals sent before when it is reaped."""
        assert self.inside("sh", "-c", "(true & )") == 0
        until(lambda: not children(self.pid), "the orphan is reaped")
        assert self.inside("true") == 0
        assert self.unshare.poll() is None


def _write_program(path: Path, machine: str) -> str:
    built = pause.program(machine)
    if built is None:
        _cannot_run(f"no pause program for {machine}")
    path.write_bytes(built or b"")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The command line of one variant: the machine's own program, hold.py, or aarch64 in qemu."""
    if request.param == "hold.py":
        yield [sys.executable, "-I", "-S", "-c", HOLD, str(CHECKOUT / "nsbox/pod/pause")]
    elif request.param == "native":
        yield [_write_program(tmp_path / "pause", platform.machine())]
    else:
        need("qemu-aarch64-static")
        qemu = shutil.which("qemu-aarch64-static") or ""
        yield [qemu, _write_program(tmp_path / "pause", "aarch64")]


@pytest.fixture
def pod(command: list[str]) -> Iterator[Pod]:
    with Pod(command) as made:
        yield made.wait_until_it_waits()


every_program = pytest.mark.parametrize("command", ["native", "hold.py", "aarch64"], indirect=True)
unemulated = pytest.mark.parametrize("command", ["native", "hold.py"], indirect=True)
native = pytest.mark.parametrize("command", ["native"], indirect=True)


@pytest.mark.parametrize("machine", pause.MACHINES)
def test_the_kept_bytes_are_what_the_source_assembles_to(machine: str) -> None:
    """Red when: an instruction in MACHINE.S or a byte of MACHINE.bin is changed."""
    need(f"{machine}-linux-gnu-as", f"{machine}-linux-gnu-objcopy")
    build = CHECKOUT / "scripts/build-programs"
    checked = subprocess.run([build, "--check", f"pause/{machine}"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("machine", pause.MACHINES)
def test_a_program_is_under_one_kibibyte_and_writes_to_no_executable_page(machine: str) -> None:
    """Red when: `.skip 1024` stands before `end:`, or p_flags of a segment is 7."""
    built = pause.program(machine)
    assert built is not None and len(built) < 1024
    assert struct.unpack_from("<II", built, 64) == (1, 0b101)  # PT_LOAD, read and execute
    assert struct.unpack_from("<II", built, 120) == (0x6474E551, 0b110)  # PT_GNU_STACK, no execute


def test_there_is_a_program_for_this_machine_and_none_for_an_unknown_one() -> None:
    """Red when: program() looks for any name it is given, or forgets uname."""
    assert pause.program("m68k") is None
    assert pause.program("../pause/x86_64") is None
    assert pause.program() == pause.program(platform.machine())


@every_program
@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_F01_a_stop_from_the_host_ends_the_pod_at_once(pod: Pod, signo: signal.Signals) -> None:
    """Red when: the comparison with SIGTERM (or SIGINT) is taken out, or the exit status is 1."""
    pod.send(signo)
    assert pod.ends_with() == 0


@unemulated
def test_F01_a_TERM_from_before_the_program_started_is_not_lost(command: list[str]) -> None:
    """Red when: the program begins with unblocking (SIG_SETMASK with no signal)."""
    with Pod([sys.executable, "-I", "-S", "-c", WITH_ALL_BLOCKED, *command]) as pod:
        assert pod.unshare.stdout is not None and pod.unshare.stdin is not None
        assert pod.unshare.stdout.read(1) == b"b"
        pod.send(signal.SIGTERM)
        pod.unshare.stdin.write(b"g")
        assert pod.ends_with(10) == 0


@every_program
def test_F01_a_pod_that_was_stopped_and_continued_still_waits(pod: Pod) -> None:
    """Red when: an error of rt_sigtimedwait (EINTR after SIGCONT) ends the program."""
    pod.send(signal.SIGSTOP)
    until(lambda: children(pod.unshare.pid).get(pod.pid) == "T", "PID 1 is stopped")
    pod.send(signal.SIGCONT)
    pod.assert_alive_and_reaping()


@every_program
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "KILL", "STOP"])
def test_F02_a_member_cannot_end_or_stop_the_pod_with_a_signal(pod: Pod, name: str) -> None:
    """Red when: si_pid is not looked at (TERM, INT), or SIGHUP and SIGUSR1 end it too."""
    assert pod.inside("sh", "-c", f"kill -{name} 1") == 0
    pod.assert_alive_and_reaping()


@unemulated
def test_F02_no_signal_that_exists_ends_the_pod_from_inside(pod: Pod) -> None:
    """Red when: any other signal is taken for a stop, say SIGSEGV or a real-time one."""
    for signo in range(1, signal.NSIG):
        pod.inside("sh", "-c", f"kill -{signo} 1")
    pod.assert_alive_and_reaping()


@unemulated
def test_F02_a_member_cannot_pass_for_the_host_with_a_forged_sender(pod: Pod) -> None:
    """Red when: si_code is not looked at, so that a si_pid of 0 written by the sender counts."""
    assert pod.inside(sys.executable, "-c", FORGE, platform.machine()) == 0
    pod.assert_alive_and_reaping()


@every_program
def test_F03_kill_all_in_a_member_leaves_the_pod_usable(pod: Pod) -> None:
    """Red when: PID 1 ends when it has no child left (wait4 gives ECHILD)."""
    assert pod.inside("sh", "-c", "(sleep 1000 & ); kill -KILL -1") == 0
    until(lambda: not children(pod.pid), "the members are ended and reaped")
    pod.assert_alive_and_reaping()


@every_program
def test_F04_a_thousand_orphans_are_reaped_within_a_second(pod: Pod) -> None:
    """Red when: PID 1 does not reap (the next test), or reaps one child only per SIGCHLD."""
    assert pod.inside("sh", "-c", THOUSAND_ORPHANS) == 0
    until(lambda: not children(pod.pid), "no orphan and no zombie is left", within_s=1)


def test_F04_zombies_stay_where_PID_1_does_not_reap() -> None:
    """Proves that the test above can see a zombie. Red when: it is given a PID 1 that reaps."""
    with Pod([shutil.which("sleep") or "sleep", "1000"]) as pod:
        assert pod.inside("sh", "-c", THOUSAND_ORPHANS) == 0
        until(lambda: list(children(pod.pid).values()).count("Z") == 1000, "1000 zombies")


@unemulated
def test_F04_a_child_that_died_before_the_program_started_is_reaped(command: list[str]) -> None:
    """Red when: the first reaping, before the first wait, is taken out."""
    with Pod([sys.executable, "-I", "-S", "-c", WITH_A_ZOMBIE, *command]) as pod:
        pod.wait_until_it_waits()
        assert children(pod.pid) == {}


@native
def test_F06_the_resident_set_is_at_most_32_KiB_and_does_not_grow(pod: Pod) -> None:
    """Red when: the program writes to more pages of the stack, or keeps 64 bytes per child."""
    before = _resident_kib(pod.pid)
    assert pod.inside("sh", "-c", THOUSAND_ORPHANS) == 0
    until(lambda: not children(pod.pid), "no orphan is left")
    assert _resident_kib(pod.pid) == before <= 32


def _resident_kib(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))
