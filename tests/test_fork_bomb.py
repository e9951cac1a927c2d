"""A fork bomb in a pod: --ulimit nproc holds it, and the pod is removed all the same.

The bomb is bounded by itself, whatever holds or does not hold it: each process makes two more, eight
times, and then all of them sleep. It runs by an id that nobody else on the machine has.
"""

from pathlib import Path

import pytest
from fakehost import FakeHost
from inpod import detached, pod, python_path, with_python
from procfs import Stopwatch, until

pytestmark = pytest.mark.needs_root

BOMBER, NEIGHBOUR = 45674, 45675
MOST = 200
BOMB = """
import os, time
left = 8
while left:
    left -= 1
    try:
        for _ in range(2):
            if os.fork() == 0:
                break
        else:
            break
    except BlockingIOError:  # EAGAIN: as many as the user may have
        left += 1
        time.sleep(0.1)
time.sleep(300)
"""
REMOVED_S = 5.0
GROWN_S = 60.0


def processes_of(host: FakeHost, uid: int) -> int:
    """How many processes of the fake host have this user on the real one."""
    found = 0
    for pid in host.processes().values():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        found += f"\nUid:\t{uid}\t" in status and "\nState:\tZ" not in status
    return found


def grow(host: FakeHost, uid: int, wanted: int) -> None:
    for _ in until(GROWN_S, pause=0.05):
        if (found := processes_of(host, uid)) >= wanted:
            break
    assert found == wanted, found


def test_F10_a_fork_bomb_is_held_by_its_limit_and_does_not_keep_its_pod_from_being_removed(host, rootfs):
    """Who joins is started even so, another user is not touched, and `rm --force` takes seconds.

    Red when: the launcher sets no limits: then the bomb makes all of its 511 processes.
    """
    with pod(host, "quiet", "--rootfs", "busybox"), detached(host, "quiet", "-u", str(NEIGHBOUR)):
        host.nsbox("create", "p", "--ulimit", f"nproc={MOST}", "--rootfs", rootfs, *with_python(rootfs), check=True)
        try:
            host.nsbox("join", "p", "-d", "-u", str(BOMBER), "--", python_path(), "-I", "-S", "-c", BOMB, check=True)
            grow(host, BOMBER, MOST)
            again = host.nsbox("join", "p", "-u", str(BOMBER), "--", "sh", "-c", "echo in; /bin/true | /bin/true; echo out")
            assert again.stdout == "in\n" and again.returncode == 2 and "fork" in again.stderr, again
            other = host.nsbox("join", "p", "-u", str(NEIGHBOUR), "--", "sh", "-c", "/bin/echo fine | /bin/cat")
            assert other.stdout == "fine\n", other
            assert processes_of(host, BOMBER) == MOST
        finally:
            watch = Stopwatch()
            host.nsbox("rm", "--force", "p", check=True)
            took_s = watch.quiet_s()
        assert processes_of(host, BOMBER) == 0
        assert took_s < REMOVED_S, took_s
        assert processes_of(host, NEIGHBOUR) == 1


@pytest.mark.needs_ns("user")
def test_in_a_pod_with_ids_of_its_own_its_root_is_held_too_and_other_pods_are_not(host, rootfs):
    """There each id counts for the pod alone. In a pod without, root of the machine is bound by no nproc: see README.

    Red when: limits are set before the member is in the user namespace as somebody else.
    """
    with pod(host, "quiet", "--rootfs", "busybox", "--userns", "--ulimit", "nproc=5"):
        host.nsbox("create", "p", "--userns", "--ulimit", "nproc=30", "--rootfs", rootfs, *with_python(rootfs), check=True)
        try:
            pid = int(host.nsbox("join", "p", "-d", "--", python_path(), "-I", "-S", "-c", BOMB, check=True).stdout)
            uid = int(Path(f"/proc/{host.host_pid(pid)}/status").read_text().partition("\nUid:")[2].split()[0])
            grow(host, uid, 30)  # the pause is root of the pod as well, and counts
            done = host.nsbox("join", "quiet", "--", "sh", "-c", "/bin/echo fine | /bin/cat")
            assert done.stdout == "fine\n", done
        finally:
            host.nsbox("rm", "--force", "p", check=True)
        assert processes_of(host, uid) == 0


def test_the_machine_s_root_is_not_held_by_nproc(host):
    """README.md and SECURITY.md say so: it is no bound for a pod of root's without ids of its own.

    Red when: a member of such a pod becomes somebody else.
    """
    with pod(host, "p", "--rootfs", "busybox", "--ulimit", "nproc=1"):
        done = host.nsbox("join", "p", "--", "sh", "-c", "ulimit -u; /bin/echo fine | /bin/cat")
        assert done.stdout == "1\nfine\n", done
