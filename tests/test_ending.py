"""Who keeps a pod from ending: stopped clients, which are continued, and others, who are named (rows E15, E16).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import os
import signal
import subprocess
import sys

import pytest
from procfs import until
from ptyclient import Terminal, state
from test_owner import bob, make, sudo  # noqa: F401: a fixture

pytestmark = pytest.mark.needs_root

SLEEP = ["sh", "-c", "echo up; exec sleep 1000"]
RM_S = 60  # the longest that rm itself takes is 11 s


@pytest.fixture
def pod(host):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield "web"
    host.nsbox("rm", "-f", "web", check=True)


def is_stopped(real):
    return any(state(real) == "T" for _ in until(20))


def removed(host, *verb):
    """Whether the verb ended the pod without a word."""
    done = host.nsbox(*verb, "web", timeout=RM_S)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(host.nsbox("ls", "--json", check=True).stdout) == [] or verb[0] == "stop"


@pytest.mark.parametrize("verb", [["rm", "-f"], ["rm", "-t", "1"], ["stop", "-t", "1"]], ids=" ".join)
@pytest.mark.parametrize("options", [["-T"], ["-T", "--share", "net"], ["-T", "-u", "7"]], ids=" ".join)
def test_E15_a_client_that_ctrl_z_stopped_does_not_keep_its_pod(host, pod, verb, options):
    """Red when: wake_parents does nothing; then rm fails after eleven seconds."""
    with Terminal(host) as terminal:
        terminal.nsbox("join", pod, *options, "--", *SLEEP)
        terminal.expect("up")
        terminal.type("\x1a")
        assert is_stopped(terminal.client.inner_pid())
        assert removed(host, *verb)
        os.kill(terminal.client.pid, signal.SIGCONT)  # nsenter before it, which is no business of nsbox
        assert terminal.ends_with() == 137
        assert terminal.settings() == terminal.before


@pytest.mark.parametrize("words", [["join", "web", "-t", "--", *SLEEP], ["join", "web", "-T", "--", *SLEEP],
                                   ["run", "--name", "own", "--rootfs", "busybox", "-T", "--", *SLEEP]], ids=lambda words: " ".join(words[:3]))
def test_E15_nor_does_one_that_somebody_stopped(host, pod, words):
    """On a terminal too. Red when: run_as_client leaves out its name, or wake_parents does nothing."""
    with Terminal(host) as terminal:
        terminal.nsbox(*words)
        terminal.expect("up")
        client = terminal.client.inner_pid()
        os.kill(client, signal.SIGSTOP)
        assert is_stopped(client)
        host.nsbox("rm", "-f", "own" if "own" in words else "web", timeout=RM_S, check=True)
        os.kill(terminal.client.pid, signal.SIGCONT)
        assert terminal.ends_with() in (125, 137)
        assert terminal.settings() == terminal.before


_LIBRARY = """
import os, signal, sys
from nsbox.pod.api import popen
member = popen("web", ["sleep", "1000"])
parent = int(open(f"/proc/{member.pid}/stat").read().rpartition(")")[2].split()[1])
os.kill(parent, signal.SIGSTOP)
print(parent, flush=True)
print(member.wait(timeout=60))
"""


def test_E15_nor_does_a_stopped_worker_of_the_library(host, pod):
    """Red when: _is_ours knows clients alone."""
    program = host.popen([sys.executable, "-c", _LIBRARY])
    assert program.stdout.readline().strip().isdigit()
    assert removed(host, "rm", "-f")
    assert program.communicate(timeout=60) == ("-9\n", "")


def test_E15_a_client_of_another_user_is_continued_by_root(bob):
    """The one who called sudo joins his pod without it. Red when: wake_parents looks at the user of the parent."""
    make(bob, "lab")
    with Terminal(bob) as terminal:
        terminal.nsbox("join", "lab", "-T", "--", *SLEEP)
        terminal.expect("up")
        os.kill(terminal.client.inner_pid(), signal.SIGSTOP)
        assert is_stopped(terminal.client.inner_pid())
        done = sudo(bob, "rm", "-f", "lab", timeout=RM_S)
        assert (done.returncode, done.stderr) == (0, "")


# ---- others ----

# Becomes the parent of a process in the pod's PID namespace, and stops itself.
_STRANGER = ["sh", "-c", 'nsenter -t "$1" -p -- sleep 1000 & sleep 0.1; echo up; kill -STOP $$; wait', "stranger"]


@pytest.mark.slow
def test_E16_a_stopped_parent_that_is_none_of_ours_is_named_and_left_alone(host, pod):
    """Red when: _is_ours says yes to everybody; the reason does not say who it is."""
    pause = json.loads(host.nsbox("inspect", "--json", pod, check=True).stdout)[0]["pid"]
    stranger = host.popen([*_STRANGER, str(pause)])
    assert stranger.stdout.readline() == "up\n"
    assert is_stopped(stranger.inner_pid())
    rows = []
    for _ in until(20):
        rows = json.loads(host.nsbox("ps", "--json", pod, check=True).stdout)
        if [row["command"] for row in rows] == [["pause"], ["sleep", "1000"]]:
            break
    sleeper = rows[-1]["pid"]
    parent = int(host.run(["ps", "-o", "ppid=", "-p", str(sleeper)], check=True).stdout)
    os.kill(host.host_pid(parent), signal.SIGSTOP)
    assert is_stopped(host.host_pid(parent))
    try:
        done = host.nsbox("rm", "-f", pod, timeout=RM_S)
        assert done.returncode == 125, done
        assert done.stderr == (f"nsbox: cannot end pod 'web': process {sleeper} has ended, and its parent {parent} (nsenter), "
                               f"which is stopped, does not collect it\nhint: when process {parent} has collected it or has ended, "
                               "try again\n")  # fmt: skip
        assert state(host.host_pid(parent)) == "T"
        assert json.loads(host.nsbox("ls", "--json", check=True).stdout)[0]["name"] == "web"
    finally:
        os.kill(host.host_pid(parent), signal.SIGCONT)
        os.kill(stranger.inner_pid(), signal.SIGCONT)
    assert removed(host, "rm", "-f")
    stranger.end()


# Traces a process without stopping it, and does not wait for it before it is told to end.
_TRACER = """
import ctypes, sys
if ctypes.CDLL(None, use_errno=True).ptrace(0x4206, int(sys.argv[1]), None, None):  # PTRACE_SEIZE
    sys.exit(str(ctypes.get_errno()))
print("traces", flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_E16_a_traced_member_and_its_tracer_are_named_and_the_pod_is_kept_for_a_later_rm(host, pod):
    """Red when: blocker says the parent of a traced zombie; the record goes although PID 1 did not."""
    member = host.nsbox("join", pod, "-d", "--", "sleep", "1000", check=True).stdout.strip()
    tracer = host.popen([sys.executable, "-I", "-S", "-c", _TRACER, member], stdin=subprocess.PIPE)
    assert tracer.stdout.readline() == "traces\n", tracer.communicate()
    number = next(pid for pid, real in host.processes().items() if real == tracer.inner_pid())
    try:
        done = host.nsbox("rm", "-f", pod, timeout=RM_S)
        assert done.returncode == 125 and done.stdout == "", done
        assert done.stderr.startswith(f"nsbox: cannot end pod 'web': process {member} has ended, and its tracer {number} ("), done
        assert len(done.stderr.splitlines()) == 2
        assert json.loads(host.nsbox("ls", "--json", check=True).stdout)[0]["name"] == "web"
    finally:
        tracer.communicate("\n", timeout=20)
    assert removed(host, "rm", "-f")
