"""Signals that a caller ignores or blocks change nothing in the pod (rows F08 and F09).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import sys
from pathlib import Path

import pytest
from fakehost import NSBOX
from procfs import until

pytestmark = pytest.mark.needs_root

BLOCKED = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); "
IGNORED = "import os, signal, sys; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 3, 13, 15, 17, 20, 25)]; "
EXEC = "os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def remove(host):
    """At the end the pod "web" is removed."""
    yield
    host.nsbox("rm", "--force", "web")


@pytest.mark.rootless_too
@pytest.mark.parametrize("caller", [IGNORED, BLOCKED, BLOCKED + IGNORED], ids=["ignored", "blocked", "both"])
def test_F08_a_caller_that_ignores_or_blocks_SIGCHLD_gets_the_right_status(host, remove, caller):
    """Red when: front._clean_process leaves out SIGCHLD (waitpid says ECHILD)."""
    def nsbox(*args):
        return host.run([sys.executable, "-c", caller + EXEC, *NSBOX, *args])
    done = nsbox("create", "web", "--rootfs", "busybox")
    assert done.returncode == 0 and done.stdout.strip().isdigit(), done.stderr
    assert nsbox("join", "web", "--", "sh", "-c", "exit 42").returncode == 42
    assert nsbox("join", "web", "-d", "--", "sh", "-c", "exit 43").returncode == 0
    assert nsbox("wait", "web").stdout == "43\n"
    assert nsbox("run", "--rootfs", "busybox", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert nsbox("rm", "web").returncode == 0


CLEAN = {"SigIgn": 0, "SigBlk": 0, "SigCgt": 0}


def masks(text):
    """The signal masks in the text of /proc/PID/status, without the two that belong to libc."""
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): int(row[1], 16) & ~(3 << 31) for row in rows if row[0].rstrip(":") in CLEAN}


CALLERS = {
    "a job in the background": ["sh", "-c", '"$@" & wait $!', "sh"],
    "nohup": ["nohup"],
    "one that ignores": [sys.executable, "-c", IGNORED + EXEC],
    "one that blocks": [sys.executable, "-c", BLOCKED + EXEC],
}


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_F09_a_member_and_PID_1_ignore_and_block_nothing(host, remove, caller):
    """Red when: process.reset_signals does nothing."""
    init = host.run([*caller, *NSBOX, "create", "web", "--rootfs", "busybox", "--init", "sleep 1000"], check=True)
    assert masks(Path(f"/proc/{host.host_pid(int(init.stdout))}/status").read_text()) == CLEAN
    look = ["grep", "Sig", "/proc/self/status"]
    for way in (["join", "web"], ["run", "--rootfs", "busybox"], ["join", "web", "--rootfs", "busybox"]):
        done = host.run([*caller, *NSBOX, *way, "--", *look], check=True)
        assert masks(done.stdout) == CLEAN, (way, done.stdout)
    host.run([*caller, *NSBOX, "join", "web", "-d", "--", *look], check=True)
    host.nsbox("wait", "web", check=True)
    assert masks(host.nsbox("logs", "web", check=True).stdout) == CLEAN


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_F09_the_pause_takes_all_signals_whatever_the_caller_does(host, remove, caller):
    """Red when: the pause keeps an ignored SIGCHLD or SIGTERM: reset_signals does nothing."""
    for pause in ("static", "python"):
        argv = [*caller, *NSBOX, "create", "web", "--rootfs", "busybox", "--pause", pause]
        pid = int(host.run(argv, check=True).stdout)
        found = masks(Path(f"/proc/{host.host_pid(pid)}/status").read_text())
        assert found["SigIgn"] == 0, found  # nor SigBlk: sigwaitinfo(2) unblocks while it waits
        host.run(["kill", str(pid)], check=True)
        assert any(pid not in host.processes() for _ in until(20.0))
        host.nsbox("rm", "web", check=True)
