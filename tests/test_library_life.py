"""The library in programs with threads and forks, and what is left when a program ends."""

import os
import signal

import pytest
from procfs import until
from programs import pods, python, run, spawners

pytestmark = pytest.mark.needs_root


# ---- threads ----

THREADS = """
import glob, logging, os, random, sys, threading, time
import nsbox
logging.basicConfig(stream=open(os.devnull, "w"))
locks, failures, stop = [threading.Lock() for _ in range(4)], [], threading.Event()

def namespaces():
    # Not of threads that come and go: those that end meanwhile have no links left.
    paths = glob.glob("/proc/self/task/*/ns/*")
    return {os.readlink(path) for path in paths if os.path.lexists(path)}

def busy():
    while not stop.is_set():
        with random.choice(locks):
            logging.warning("busy")
        x = [bytearray(4096) for _ in range(50)]  # malloc's lock, held by somebody at any time

def work(number):
    try:
        for turn in range(TURNS):
            with nsbox.Pod(f"t{number}-{turn}") as pod:
                done = pod.run(["echo", str(number)], capture_output=True, text=True)
                assert done.stdout == f"{number}\\n", done
    except BaseException as err:
        failures.append(repr(err))

before = namespaces()
ours = {path: os.readlink(path) for path in glob.glob(f"/proc/self/task/{os.getpid()}/ns/*")}
busies = [threading.Thread(target=busy, daemon=True) for _ in range(BUSY)]
workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in busies + workers: thread.start()
for thread in workers: thread.join(100)
assert namespaces() == before, "a thread is in another namespace"
stop.set()
for thread in busies: thread.join(10)
assert not failures, failures
assert not any(thread.is_alive() for thread in busies + workers)
assert nsbox.pods() == []
"""


@pytest.mark.slow
def test_A16_no_thread_of_the_program_changes_its_namespaces(host):
    """Eight threads make, use and remove pods; no EINVAL from setns, no thread elsewhere.

    Red when: client.request does the work in the caller instead of asking the spawner.
    """
    run(host, THREADS.replace("TURNS", "5").replace("BUSY", "0"), timeout=100)


@pytest.mark.slow
def test_A17_no_lock_of_another_thread_blocks_a_call(host):
    """Threads hold locks and log all the time, as python's own fork would not survive.

    Red when: client.request forks in the caller: DeprecationWarning, or it hangs.
    """
    code = THREADS.replace("TURNS", "3").replace("BUSY", "4")
    run(host, code, "-W", "error::DeprecationWarning", timeout=100)


def test_A17_the_library_never_forks_the_program(host):
    """Red when: Pod.run calls spawn.spawn_in in the program."""
    run(
        host,
        """
import os, nsbox
os.fork = None
with nsbox.Pod() as pod:
    pod.run(["true"], check=True)
    pod.stop()
nsbox.pods()
""",
        "-W",
        "error",
    )


# ---- forks of the program ----


def test_a_fork_of_the_program_gets_a_spawner_of_its_own(host):
    """Red when: _after_fork in client.py leaves the parent's spawner to the child."""
    run(
        host,
        """
import os, nsbox
with nsbox.Pod("web") as pod:
    pod.run(["true"])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert pod.run(["echo", "child"], capture_output=True).stdout == b"child\\n"
            with nsbox.Pod("inner") as inner:
                assert len(nsbox.pods()) == 2
            code = 0
        finally:
            from nsbox.pod import client
            client.close()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert pod.run(["echo", "parent"], capture_output=True).stdout == b"parent\\n"
    assert [row.name for row in nsbox.pods()] == ["web"]
""",
    )


@pytest.mark.slow
def test_a_fork_while_another_thread_uses_the_library_does_not_hang(host):
    """Red when: the client's lock is not made anew in the child."""
    run(
        host,
        """
import os, signal, threading, nsbox
with nsbox.Pod("web") as pod:
    stop = threading.Event()
    def use():
        while not stop.is_set():
            pod.run(["true"])
    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads: thread.start()
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            os._exit(len(nsbox.pods()) - 1 or pod.run(["true"]).returncode)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads: thread.join()
""",
        timeout=60,
    )


def test_a_child_that_lives_on_keeps_no_pod_alive(host):
    """The child holds the channel to the spawner too; it must let go of it.

    Red when: leave_to_parent does not close the channel.
    """
    child = host.popen(
        python("""
import os, sys, time, nsbox
pod = nsbox.Pod("web").create()
pid = os.fork()
if pid == 0:
    os.close(0), os.close(1), os.close(2)
    time.sleep(300)
print(pid, flush=True)
sys.stdin.read()
"""),
        stdin=-1,
    )
    sleeper = int(child.stdout.readline())
    child.communicate(timeout=20)
    assert child.returncode == 0
    assert pods(host) == [] and spawners(host) == []
    os.kill(host.host_pid(sleeper), signal.SIGKILL)


# ---- the end of the program ----

ENDS = {
    "return": ("", 0),
    "exit": ("sys.exit(3)", 3),
    "exception": ("sys.stderr = None; raise RuntimeError", 1),
    "sigterm": ("os.kill(os.getpid(), 15)", -15),
    "sigkill": ("os.kill(os.getpid(), 9)", -9),
    "_exit": ("os._exit(4)", 4),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_when_the_program_ends(host, end):
    """However it ends: pods and members go, with their records; only keep=True stays.

    Red when: the spawner ends without _remove_pods: the dead pods' records stay.
    """
    how, status = ENDS[end]
    done = host.run(python(f"""
import os, sys, nsbox
kept = nsbox.Pod("kept", keep=True).create()
loose = nsbox.Pod("loose").create()
with nsbox.Pod("block") as pod:
    pod.popen(["sleep", "1000"]), loose.popen(["sleep", "1000"]), kept.popen(["sleep", "1000"])
    {how}
"""))
    assert done.returncode in (status, 128 - status), done.stderr
    for _ in until(10):
        left = pods(host)
        if left == ["kept"]:
            break
    assert left == ["kept"]
    assert host.nsbox("inspect", "kept").stdout.count("sleep") == 0
    host.nsbox("rm", "kept", check=True)
    for _ in until(10):
        if not spawners(host):
            break
    assert spawners(host) == []


def test_a_detached_member_of_a_kept_pod_outlives_the_program(host):
    out = run(
        host,
        """
import nsbox
with nsbox.Pod("kept", keep=True) as pod:
    print(pod.detach(["sleep", "1000"]))
""",
    )
    assert int(out) in host.processes()
    assert pods(host) == ["kept"]
    host.nsbox("rm", "--force", "kept", check=True)


def test_a_name_that_somebody_else_took_meanwhile_is_not_removed(host):
    """Red when: _remove_pods removes by name and not by who made the pod."""
    program = host.popen(
        python("""
import sys, nsbox
nsbox.Pod("web").create()
print("made", flush=True)
sys.stdin.read()
"""),
        stdin=-1,
    )
    assert program.stdout.readline() == "made\n"
    host.nsbox("rm", "web", check=True)
    host.nsbox("create", "web", check=True)
    program.communicate(timeout=20)
    assert program.returncode == 0
    assert pods(host) == ["web"]
    host.nsbox("rm", "web", check=True)
