"""PID 1 of real pods: what stops it, what it reaps, what it holds (rows F01 to F07).

The program alone is tested in test_pause_program.py. It takes every signal with sigwaitinfo(2), so
SIGSEGV from the host has no effect either; only SIGKILL and SIGSTOP of the host have.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from fakehost import NSBOX
from faults import kill_inside
from procfs import Stopwatch, children, comm, until
from ptyclient import Terminal, state

# Not as a user with a range of ids: for him the interpreter as pause stays hidden from its own user.
rootless_too = pytest.mark.rootless_too("root", "user")
pytestmark = pytest.mark.needs_root

PAUSES = ["static", "python"]
# By its path, or the shell would do the sleeping under its own name.
SLEEPERS = "/bin/busybox sleep 999 & /bin/busybox sleep 998 & exec /bin/busybox sleep 1000"
ORPHANS = "i=0; while [ $i -lt 1000 ]; do (/bin/busybox true & ); i=$((i+1)); done"


@pytest.fixture
def remove(host):
    """At the end the pod "web" is removed."""
    yield
    host.nsbox("rm", "--force", "web")


@pytest.fixture(params=PAUSES)
def pause(request, host, remove):
    """The PID, in the fake host, of the pause of a pod "web", with either pause."""
    options = ["--rootfs", "busybox", "--pause", request.param]
    return int(host.nsbox("create", "web", *options, check=True).stdout)


def inpod(host, script, **kw):
    return host.nsbox("join", "web", "--", "sh", "-c", script, **kw)


def status_of(host):
    [row] = json.loads(host.nsbox("ls", "--json", check=True).stdout)
    return row["status"]


def send(host, pid, name):
    host.run(["kill", f"-{name}", str(pid)], check=True)


def assert_alive(host):
    """The orphan comes last: PID 1 has taken all signals sent before when it is reaped."""
    assert inpod(host, "(true &)", timeout=10).returncode == 0
    assert status_of(host) == "running"


# ---- A04: what it shows ----

@pytest.mark.parametrize("options", [[], ["--userns"], ["--with", "user"]], ids=["root's", "--userns", "--with user"])
def test_A04_nobody_in_the_pod_looks_into_the_interpreter_that_is_its_pause(host, remove, options):
    """Nor copies or opens its program; from outside root joins. Red when: create._pid_one does not hide."""
    host.nsbox("create", "web", "--rootfs", "busybox", "--pause", "python", *options, check=True)
    said = inpod(host, "cd /proc/1; for link in exe cwd root fd/0 map_files/*; do readlink $link; done; cat environ maps; "
                       "cp exe /tmp/x || (: >> exe) || echo closed").stdout
    assert said == "closed\n", said


# ---- F01 to F03: signals ----

@rootless_too
@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_F01_a_stop_from_the_host_ends_the_pod_within_a_second(host, pause, name):
    """Red when: hold.py and x86_64.S do not look for SIGTERM (or SIGINT)."""
    member = int(host.nsbox("join", "web", "-d", "--", "sleep", "1000", check=True).stdout)
    reals = [host.host_pid(pause), host.host_pid(member)]
    watch = Stopwatch()
    os.kill(reals[0], getattr(signal, f"SIG{name}"))
    for _ in until(20.0):
        if not any(state(real) for real in reals):
            break
    assert watch.quiet_s() < 1 and watch.s() < 10, [state(real) for real in reals]
    assert status_of(host) == "dead"


@pytest.mark.parametrize("pause, held_at", [("static", "execveat:delay_exit=30000000:when=1"),
                                            ("python", "close_range:delay_exit=30000000:when=2")])
def test_F01_a_stop_that_comes_with_the_birth_is_not_lost(host, remove, pause, held_at):
    """strace holds the pause where `create` returns already. Red when: become_pause (stay_as_pause)
    does not block all signals before."""
    argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={held_at}", *NSBOX, "create", "web"]
    create = host.popen([*argv, "--pause", pause])
    try:
        real = host.host_pid(int(create.stdout.readline()))
        assert any(state(real) == "t" for _ in until(20.0)), "strace does not hold it: the test shows nothing"
        os.kill(real, signal.SIGTERM)
        os.kill(create.inner_pid(), signal.SIGKILL)  # strace lets go by dying
        assert any(state(real) in ("", "Z") for _ in until(20.0)), "the signal is lost"
    finally:
        create.end()


@rootless_too
def test_F02_no_signal_from_inside_ends_or_stops_the_pod(host, pause):
    """Red when: hold.py and x86_64.S do not look at si_pid."""
    real = host.host_pid(pause)
    inpod(host, "for s in TERM INT HUP USR1 USR2 QUIT SEGV ABRT KILL STOP TSTP PIPE ALRM; do kill -$s 1; done; "
                "i=1; while [ $i -le 64 ]; do kill -$i 1; i=$((i+1)); done")
    assert any(state(real) == "S" for _ in until(5))  # it may still be busy with the last of them
    assert_alive(host)


@pytest.mark.parametrize("name", ["HUP", "USR1", "SEGV", "QUIT", "PIPE", "ABRT"])
def test_F02_from_the_host_too_only_TERM_and_INT_and_KILL_end_it(host, pause, name):
    """Red when: hold_namespaces returns for any signal from outside."""
    send(host, pause, name)
    assert_alive(host)


def test_F02_a_program_of_the_users_as_PID_1_is_not_stopped_from_inside(host, remove):
    """The kernel sees to that: a program without handlers gets no signal from its own namespace.
    Red when: --init is a child of the pause and not PID 1."""
    host.nsbox("create", "web", "--rootfs", "busybox", "--init", "sleep 1000", check=True)
    assert inpod(host, "kill -TERM 1; kill -KILL 1; kill -STOP 1; cat /proc/1/comm").stdout == "sleep\n"
    assert status_of(host) == "running"


@rootless_too
def test_F03_kill_all_in_a_member_ends_the_members_and_not_the_pod(host, pause):
    """Red when: PID 1 ends when it has no child left; or it is not PID 1 but a child of it."""
    for _ in range(3):
        host.nsbox("join", "web", "-d", "--", "sleep", "1000", check=True)
    assert inpod(host, "kill -9 -1; echo alone").stdout == "alone\n"
    for _ in until(5):
        if json.loads(host.nsbox("ls", "--json").stdout)[0]["members"] == 0:
            break
    assert_alive(host)


# ---- F04, F05: zombies ----

def zombies_after(host, pid, seconds):
    """How many dead children PID 1 has when none is left to be reaped, or after so many seconds."""
    real = host.host_pid(pid)
    assert inpod(host, ORPHANS).returncode == 0
    count = -1
    for _ in until(seconds):
        count = len(children(real))
        if count == 0:
            break
    return count


def test_F04_a_thousand_orphans_of_a_member_are_reaped_within_a_second(host, pause):
    """Red when: hold.py and x86_64.S do not reap, or one child for each SIGCHLD only."""
    assert zombies_after(host, pause, 1) == 0
    assert inpod(host, "grep -l '^State:.Z' /proc/[0-9]*/status").stdout == ""


def test_F04_with_a_PID_1_that_does_not_reap_they_stay(host, remove):
    """The same test the other way, which proves that it can see a zombie.
    Red when: --init runs below a pause that reaps."""
    pid = int(host.nsbox("create", "web", "--rootfs", "busybox", "--init", "sleep 1000", check=True).stdout)
    assert zombies_after(host, pid, 1) == 1000
    assert len(inpod(host, "grep -l '^State:.Z' /proc/[0-9]*/status").stdout.splitlines()) == 1000


def sleeping(host):
    """How many programs "busybox sleep" run in the fake host."""
    return sum(command(real).startswith(b"/bin/busybox\0sleep\0") for real in host.processes().values())


def command(real):
    try:
        return Path(f"/proc/{real}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@rootless_too
@pytest.mark.parametrize("way", [[], ["--rootfs", "busybox"], ["-d"]], ids=str)
def test_F05_a_member_that_loses_its_client_or_supervisor_leaves_no_zombie(host, pause, way):
    """It dies with its client, and its own orphans are the pause's; without its supervisor it goes
    to the host's PID 1. Red when: member._become_member leaves out die_with_parent (a client); the
    pause does not reap."""
    client = host.nsbox_popen("join", "web", *way, "--", "sh", "-c", SLEEPERS)
    assert any(sleeping(host) == 3 for _ in until(10))
    if way == ["-d"]:
        client.communicate(timeout=10)
        [supervisor] = [pid for pid, real in host.processes().items()
                        if comm(real) == "nsbox:member"]
        kill_inside(host, supervisor)
    else:
        client.send_signal(signal.SIGKILL)
        assert any(sleeping(host) == 2 for _ in until(20.0)), "the member lives without its client"
    host.nsbox("kill", "web", check=True)
    assert any(sleeping(host) == 0 for _ in until(20.0))
    assert inpod(host, "grep -l '^State:.Z' /proc/[0-9]*/status").stdout == ""


# ---- F06: what PID 1 holds ----

@rootless_too
def test_F06_the_pause_holds_nothing_of_the_host(host, pause):
    """Red when: create._pid_one leaves out setsid or empty_root; _take_stdio leaves out umask or
    close_range; become_pause passes an environment."""
    proc = Path(f"/proc/{host.host_pid(pause)}")
    held = {int(fd): os.stat(proc / "fd" / fd) for fd in os.listdir(proc / "fd")}
    assert sorted(held) == [0, 1, 2]
    assert all(stat.S_ISCHR(one.st_mode) and one.st_rdev == os.makedev(1, 3) for one in held.values())
    assert os.readlink(proc / "cwd") == os.readlink(proc / "root") == "/"
    assert os.listdir(proc / "root") == os.listdir(proc / "cwd") == []
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    assert fields[2] == fields[3] == str(host.host_pid(pause)), "not a session of its own"
    assert fields[4] == "0", "it has a terminal"
    status = dict(line.split(":\t") for line in (proc / "status").read_text().splitlines() if ":\t" in line)
    assert status["Umask"] == "0022" and status["Threads"] == "1"
    assert (proc / "environ").read_bytes().strip(b"\0") == b""
    assert (proc / "cmdline").read_bytes().strip(b"\0") == b"pause"


def test_F06_the_static_pause_is_small_and_does_not_grow(host, remove):
    """Red when: the program of x86_64.S uses more pages, or --pause static is the Python one."""
    pid = int(host.nsbox("create", "web", "--rootfs", "busybox", check=True).stdout)
    rollup = Path(f"/proc/{host.host_pid(pid)}/smaps_rollup")
    sizes = []
    for _ in range(2):
        [line] = [line for line in rollup.read_text().splitlines() if line.startswith("Rss:")]
        sizes.append(int(line.split()[1]))
        zombies_after(host, pid, 1)
    assert sizes[0] == sizes[1] <= 32, sizes
    assert os.readlink(f"/proc/{host.host_pid(pid)}/exe").startswith("/memfd:pause")


# ---- F07: the creating terminal ----

@pytest.mark.parametrize("pause", PAUSES)
def test_F07_the_pod_outlives_the_terminal_of_its_creation(host, remove, pause):
    """Red when: create._pid_one leaves out setsid, and hold.py ends at SIGHUP as at SIGTERM."""
    with Terminal(host) as terminal:
        # A shell that stays: when it ends, its whole session gets SIGHUP.
        terminal.start(["sh", "-c", 'stty -echo; "$@"; echo made; read line', "sh", *NSBOX, "create", "web",
                        "--rootfs", "busybox", "--pause", pause])
        pid = int(terminal.expect("made").split()[-1])
        host.nsbox("join", "web", "-d", "--", "sleep", "1000", check=True)
        real = host.host_pid(pid)
        terminal.hang_up()
        terminal.client.wait(timeout=10)
    assert state(real) == "S"
    assert_alive(host)
    assert json.loads(host.nsbox("ls", "--json").stdout)[0]["members"] == 1


def test_F07_a_detached_member_outlives_the_terminal_too(host, pause):
    """Red when: supervise._leave_the_terminal leaves out setsid and the ignored SIGHUP."""
    with Terminal(host) as terminal:
        terminal.start(["sh", "-c", 'stty -echo; "$@"; echo made; read line', "sh", *NSBOX, "join", "web", "-d",
                        "--", "sh", "-c", "echo begun; sleep 1000"])
        member = int(terminal.expect("made").split()[-1])
        terminal.hang_up()
        terminal.client.wait(timeout=10)
    send(host, member, "TERM")
    assert host.nsbox("wait", "web", check=True).stdout == "143\n"
    assert host.nsbox("logs", "web", check=True).stdout == "begun\n"
