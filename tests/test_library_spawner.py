"""The library's spawner, and strange programs around it: closed stdio, ignored signals."""

import pytest
from programs import python, run

pytestmark = pytest.mark.needs_root


# ---- the spawner ----


def test_there_is_one_spawner_which_is_replaced_when_it_was_killed(host):
    """Red when: request() does not start a new one after a failed send."""
    run(
        host,
        """
import os, signal, nsbox
from nsbox.pod import client
def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
pod = nsbox.Pod("web", keep=True).create()
[first] = children()
assert open(f"/proc/{first}/comm").read() == "nsbox:spawner\\n"
for _ in range(3):
    pod.run(["true"])
member = pod.popen(["sleep", "1000"])
assert children() == [first]
os.kill(first, 9)
assert member.wait(20) == -9
assert pod.run(["echo", "again"], capture_output=True).stdout == b"again\\n"
[second] = children()
assert second != first
os.kill(second, 9)
os.waitid(os.P_PID, second, os.WEXITED | os.WNOWAIT)
try:
    pod.run(["true"])
except nsbox.NsboxError as err:
    raise AssertionError(err)
pod.remove()
""",
    )


@pytest.mark.slow
def test_200_runs_leave_no_descriptor_and_no_zombie(host):
    """Red when: Member.wait does not close the pidfd, or Pod.create not the answer."""
    run(
        host,
        """
import gc, os, pathlib, time, nsbox
def fds(pid): return sorted(os.listdir(f"/proc/{pid}/fd"))
def children(pid): return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
def only_worker():  # the parent of the pod
    deadline = time.monotonic() + 10
    while len(children(spawner)) != 1:
        assert time.monotonic() < deadline, children(spawner)
        time.sleep(0.01)
with nsbox.Pod("web") as pod:
    pod.run(["true"], capture_output=True, input=b"x")
    [spawner] = children(os.getpid())
    only_worker()
    before = fds(os.getpid()), fds(spawner)
    for turn in range(200):
        pod.run(["true"], capture_output=True, input=b"x")
        if turn % 20 == 0:
            with nsbox.Pod(): pass
            try: pod.run(["nope"], capture_output=True)
            except nsbox.CommandError: pass
            pod.popen(["true"])  # and forgotten
    gc.collect()
    assert (fds(os.getpid()), fds(spawner)) == before, (before, fds(os.getpid()), fds(spawner))
    only_worker()
    assert children(os.getpid()) == [spawner]
""",
        "-W",
        "error",
        timeout=100,
    )


# ---- strange programs ----

STRANGE = {
    "stdin closed": "os.close(0)",
    "stdout closed": "os.close(1)",
    "all closed": "os.close(0); os.close(1); os.close(2)",
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "SIGPIPE deadly": "signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
    "all signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "umask 777": "os.umask(0o777)",
    "no environment": "[os.environ.pop(name) for name in set(os.environ) if name[:5] != 'NSBOX']",
    "no directory": "os.mkdir('/run/gone'); os.chdir('/run/gone'); os.rmdir('/run/gone')",
    "changed PYTHONPATH": "os.environ.update(PYTHONPATH='/nowhere', PYTHONHOME='/nowhere')",
}


@pytest.mark.parametrize("how", STRANGE)
def test_G09_the_library_works_in_a_program_with(host, how):
    """Red when: client.py and popen.py use socket.socketpair() and os.pipe() as they come."""
    log = host.work / "log"
    done = host.run(python(f"""
import os, select, signal, sys, traceback
import nsbox
log = open({str(log)!r}, "w")
{STRANGE[how]}
try:
    with nsbox.Pod("web") as pod:
        args = ["sh", "-c", "cat; echo $((40 + 2)); exit 7"]
        got = pod.run(args, input=b"in ", capture_output=True)
        assert (got.stdout, got.returncode) == (b"in 42\\n", 7), got
        seen = pod.run(["ls", "-l", "/proc/self/fd"], stdout=-1).stdout.decode()
        assert "socket" not in seen, seen
        assert len([line for line in seen.splitlines() if "->" in line]) <= 4, seen
        [spawner] = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
        pidfd = os.pidfd_open(int(spawner))
        os.kill(int(spawner), 9)
        select.select([pidfd], [], [])
        try: pod.run(["true"])
        except nsbox.PodDead: pass  # it ended with the spawner; another one is there by now
    log.write("good")
except BaseException:
    traceback.print_exc(file=log)
"""))
    assert log.read_text() == "good" and done.returncode == 0, done.stderr


def test_control_c_is_for_the_program_alone(host):
    """Ctrl-C goes to the whole foreground group; the pod's members must not die of it.

    Red when: the spawner is started without a session of its own.
    """
    program = host.popen(python("""
import os, signal, nsbox
os.setpgid(0, 0)
with nsbox.Pod("web") as pod:
    member = pod.popen(["sleep", "1000"])
    try:
        os.killpg(0, signal.SIGINT)
    except KeyboardInterrupt:
        pass
    assert member.poll() is None
    print(pod.run(["echo", "still"], capture_output=True).stdout, flush=True)
    member.kill(); member.wait()
"""))
    out, err = program.communicate(timeout=30)
    assert (out, program.returncode) == ("b'still\\n'\n", 0), err
