"""`nsbox kill --check` says beforehand what a signal does; each forecast is then put to the test."""

import json
import os
import signal
import sys
import time

import pytest
from fakehost import UID
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

# A process that says when it is ready, and what it gets. No child of nsenter: that stops with its child.
PROGRAM = """
import os, signal, sys, threading
if os.fork():
    os._exit(0)
os.setsid()
def tell(number, frame):
    os.write(1, b"got %d\\n" % number)
{setup}
os.write(1, b"%d\\n" % os.getpid())
while True:
    signal.pause()
"""
SETUPS = {
    "default": "",
    "handler": "signal.signal(signal.SIGTERM, tell)",
    "ignored": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})",
    # One thread of two blocks it: the other takes it.
    "half": "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})",
    "job": "",
    "stopped": "",
}  # fmt: skip


def start(host, setup="", **kw):
    """What it says, its PID on the real host, and the one inside the fake host."""
    words = [sys.executable, "-I", "-c", PROGRAM.format(setup=setup)]
    command = host.popen(words, text=False, **kw)
    inside = int(command.stdout.readline())
    command.wait(10)
    os.set_blocking(command.stdout.fileno(), False)
    return command.stdout, host.host_pid(inside), inside


def check(host, signame, *targets):
    done = host.nsbox("kill", "--check", "--json", "-s", signame, *map(str, targets), check=True)
    return json.loads(done.stdout)


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def what_happens(said, real, before):
    """What becomes of the process, in the words of a forecast."""
    waits = runs = None  # since when
    for _ in until(6.0, pause=0.05):
        now = state(real)
        if now in ("gone", "Z"):
            return "ends"
        if now == "T" and before != "T":
            return "stops"
        runs = (runs or time.monotonic()) if now != "T" and before == "T" else None
        if runs and time.monotonic() - runs > 2:  # who is killed while it is stopped runs for a moment
            return "continues"
        if b"got" in (said.read() or b""):
            return "handled"
        waits = (waits or time.monotonic()) if is_pending(real) else None
        if waits and time.monotonic() - waits > 2:  # every signal is pending for a moment
            return "waits"
    return "no effect"


def is_pending(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            return any(int(line.split()[1], 16) & ~STOPPING for line in file if line.startswith(("ShdPnd", "SigPnd")))
    except (FileNotFoundError, ProcessLookupError):
        return False


STOPPING = 0xF << (signal.SIGSTOP - 1)  # STOP TSTP TTIN TTOU: CONT takes them away unseen
NO_EFFECT = {"ignored", "nothing", "dropped"}


@pytest.mark.parametrize(
    ("setup", "signame", "outcome", "word"),
    [
        ("default", "TERM", "ends", "no handler"),
        ("default", "KILL", "ends", "cannot be blocked"),
        ("default", "RTMIN", "ends", "no handler"),
        ("default", "WINCH", "nothing", "by default"),
        ("default", "CONT", "nothing", "not stopped"),
        ("default", "STOP", "stops", "cannot be blocked"),
        ("default", "TSTP", "nothing", "orphaned"),
        ("handler", "TERM", "handled", "handler"),
        ("handler", "KILL", "ends", "cannot be blocked"),
        ("ignored", "TERM", "ignored", "nohup"),
        ("blocked", "TERM", "waits", "sigwait"),
        ("half", "TERM", "ends", "no handler"),
        ("stopped", "TERM", "waits", "CONT"),
        ("stopped", "CONT", "continues", "stopped"),
        ("stopped", "KILL", "ends", "cannot be blocked"),
        ("stopped", "STOP", "nothing", "already"),
    ],
)
def test_the_forecast_comes_true(host, setup, signame, outcome, word):
    """Red when: any rule of _outcome in pod/forecast.py is left out, or the signal is sent by --check."""
    said_by_it, real, inside = start(host, SETUPS[setup])
    if setup == "stopped":
        os.kill(real, signal.SIGSTOP)
        assert any(state(real) == "T" for _ in until(20.0))
    before = state(real)
    [said] = check(host, signame, inside)
    assert (said["pid"], said["outcome"]) == (inside, outcome), said
    assert word in said["reason"]
    assert (state(real) == "T") == (before == "T") and state(real) not in ("gone", "Z")  # nothing was sent
    number = getattr(signal, "SIG" + signame)
    os.kill(real, number)
    happened = what_happens(said_by_it, real, before)
    assert happened == outcome or (happened == "no effect" and outcome in NO_EFFECT)
    if state(real) not in ("gone", "Z"):
        os.kill(real, signal.SIGKILL)


SHELL = """
import subprocess
job = subprocess.Popen(["sleep", "300"], process_group=0)
print(job.pid, flush=True)
job.wait()
"""


def test_a_job_of_a_shell_stops_at_TSTP(host):
    """Red when: _is_orphaned in pod/forecast.py takes every process group for orphaned."""
    shell = host.popen(["setsid", "-w", sys.executable, "-I", "-c", SHELL])
    inside = int(shell.stdout.readline())
    real = host.host_pid(inside)
    [said] = check(host, "TSTP", inside)
    assert said["outcome"] == "stops", said
    os.kill(real, signal.SIGTSTP)
    assert any(state(real) == "T" for _ in until(20.0))
    os.kill(real, signal.SIGKILL)
    shell.wait(10)


def test_PID_1_without_a_handler_takes_only_KILL_and_STOP(host):
    """Red when: _by_disposition in pod/forecast.py does not know the rule of PID 1."""
    command = host.popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "300"])
    real = next(pid for _ in until(5.0) for pid in host.processes().values() if name_of(pid) == "sleep")
    inside = {host_pid: pid for pid, host_pid in host.processes().items()}[real]
    [term], [kill] = check(host, "TERM", inside), check(host, "KILL", inside)
    assert (term["outcome"], kill["outcome"], term["pod_pid"]) == ("dropped", "ends", 1)
    assert "all other processes" in kill["reason"]
    os.kill(real, signal.SIGTERM)
    assert not any(state(real) in ("gone", "Z") for _ in until(0.5))
    os.kill(real, signal.SIGKILL)
    assert any(state(real) in ("gone", "Z") for _ in until(20.0))
    command.wait(20)


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def test_from_inside_its_own_namespace_PID_1_takes_nothing(host):
    """Red when: _forced in pod/forecast.py does not ask from where the signal comes."""
    [said] = check(host, "KILL", 1)  # the fake host's own PID 1, from a process in there
    assert said["outcome"] == "dropped" and "inside" in said["reason"]


def test_who_is_traced(host):
    """Red when: _outcome in pod/forecast.py does not look at TracerPid."""
    _, real, inside = start(host)
    tracer = host.popen(["strace", "-qq", "-o", "/dev/null", "-p", str(inside)])
    assert any(traced(real) for _ in until(10.0))
    [said] = check(host, "TERM", inside)
    assert said["outcome"] == "waits" and "traces" in said["reason"]
    tracer.end()
    os.kill(real, signal.SIGKILL)


def test_a_process_of_somebody_else(host, tmp_path):
    """Red when: _may_send in pod/forecast.py does not try."""
    _, real, inside = start(host)
    env = {"XDG_RUNTIME_DIR": None, "NSBOX_STATE": str(host.work / "state-of-user")}
    (host.work / "state-of-user").mkdir(mode=0o700)
    os.chown(host.work / "state-of-user", UID, UID)
    done = host.nsbox("kill", "--check", "--json", "-s", "TERM", str(inside), user=UID, env=env)
    assert done.returncode == 125 and "somebody else" in done.stderr
    os.kill(real, signal.SIGKILL)


def traced(pid):
    with open(f"/proc/{pid}/status") as file:
        return "TracerPid:\t0" not in file.read()


def test_a_pod_s_members_and_not_its_pause(host):
    """Red when: of_target in pod/forecast.py looks at PID 1 of a pod."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    one = int(host.nsbox("join", "web", "-d", "--", "sleep", "300", check=True).stdout)
    two = int(host.nsbox("join", "web", "-d", "--", "sh", "-c", "trap : TERM; while :; do sleep 1 & wait; done",
                         check=True).stdout)  # fmt: skip
    rows = {row["pid"]: row for row in check(host, "TERM", "web")}
    assert rows[one]["outcome"] == "ends" and rows[one]["command"] == ["sleep", "300"]
    assert any(check(host, "TERM", "web") and row["outcome"] == "handled"
               for _ in until(5.0) for row in check(host, "TERM", two))  # fmt: skip
    assert 1 not in {row["pod_pid"] for row in rows.values()}
    said = host.nsbox("kill", "--check", "-s", "TERM", "web", check=True).stdout
    assert said.splitlines()[0].split() == ["PID", "POD-PID", "OUTCOME", "BECAUSE", "COMMAND"]
    host.nsbox("rm", "--force", "web", check=True)


def test_json_is_for_check_only(host):
    """Red when: kill takes --json and prints nothing."""
    assert host.nsbox("kill", "--json", "1").returncode == 2
