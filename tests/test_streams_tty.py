"""A member on a terminal: a pty of its pod's own, and the caller's terminal as it was afterwards.

The client runs on a pty of the test. "Red when" in a docstring says how to break nsbox so that the
test fails; each was tried.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from procfs import until
from ptyclient import Terminal, state

pytestmark = pytest.mark.needs_root

# Names what the three descriptors of a member are.
FDS = "for n in 0 1 2; do readlink /proc/self/fd/$n; done; readlink /proc/$$/fd/255; tty"


@pytest.fixture
def pod(host):
    """A pod "web" with a busybox root."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield "web"
    host.nsbox("rm", "--force", "web", check=True)


@pytest.fixture
def terminal(host):
    with Terminal(host) as made:
        yield made


def shell(terminal, *options):
    """An interactive shell as a member; a command's echo does not look like its output."""
    terminal.nsbox("join", "web", "-t", *options, "--", "sh", "-c", "stty -echo; PS1='$ ' exec sh -i")
    terminal.expect("$ ")
    return terminal


def run(terminal, command):
    """What a command in the shell prints."""
    terminal.type(f"{command}; echo =$((1+1))=\n")
    said = terminal.expect("=2=\r\n").decode().replace("\r\n", "\n")
    terminal.expect("$ ")
    return said


def leave(terminal):
    terminal.type("exit 5\n")
    assert terminal.ends_with() == 5
    assert terminal.settings() == terminal.before


# ---- G01, G05: whose terminal it is ----

@pytest.mark.rootless_too
@pytest.mark.parametrize("options", [[], ["--rootfs", "busybox"], ["--share", "net"]], ids=str)
def test_G01_G05_the_terminal_is_of_the_pods_own_devpts(host, pod, terminal, options):
    """Red when: attach.run passes fds 0 to 2 on with -t too; _open_pty_inside opens the host's ptmx."""
    shell(terminal, *options)
    words = run(terminal, "tty; for n in 0 1 2; do readlink /proc/$$/fd/$n; done").split()
    assert words == ["/dev/pts/0"] * 4
    assert run(terminal, "ls /dev/pts").split() == ["0", "ptmx"]
    theirs = run(terminal, "stat -c '%t:%T %d' /dev/pts/0; stat -c %d /dev/pts").split()
    assert theirs[1] == theirs[2], "it is not on the pod's devpts"
    assert int(theirs[1]) != os.fstat(terminal.slave).st_dev
    session = run(terminal, "cut -d' ' -f5-7 /proc/$$/stat").split()
    assert session[0] == session[1] and int(session[2]) == os.makedev(136, 0)
    leave(terminal)


@pytest.mark.rootless_too
def test_G01_no_process_of_the_pod_has_the_callers_terminal(host, pod):
    """Seen from outside, so nothing can hide it. Red when: attach._stream passes a terminal on."""
    others = []
    for options, redirected in ([], []), (["-T"], []), ([], ["stdin"]), ([], ["stdout"]), (["-T"], ["stderr"]):
        streams = dict.fromkeys(redirected, subprocess.DEVNULL)
        with Terminal(host) as each:
            each.nsbox("join", pod, *options, "--", "/bin/busybox", "sleep", "1000", **streams)
            own = os.fstat(each.slave)
            pids = []
            for _ in until(10):
                # The launcher that it is born as has the same words, and for a moment there are two.
                pids = [real for real in host.processes().values()
                        if command(real) == b"/bin/busybox\0sleep\x001000\0" and program(real) == "busybox"]  # fmt: skip
                if pids:
                    break
            [real] = pids
            for fd in os.listdir(f"/proc/{real}/fd"):
                found = os.stat(f"/proc/{real}/fd/{fd}")
                others.append(found)
                assert (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino), (options, streams, fd)
            # The number of a controlling terminal says nothing of its devpts: 0 is none.
            tty = Path(f"/proc/{real}/stat").read_text().rpartition(")")[2].split()[4]
            assert (tty == "0") == bool(options or redirected)
            each.signal(signal.SIGTERM)
            assert each.ends_with() == 143
    assert len(others) == 15


def program(real):
    """The name of the file that it executes; "" if it is gone."""
    try:
        return Path(os.readlink(f"/proc/{real}/exe")).name
    except (FileNotFoundError, ProcessLookupError):
        return ""


def command(real):
    try:
        return Path(f"/proc/{real}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.parametrize("options", [["-T"], ["-T", "--rootfs", "busybox"]], ids=str)
def test_G01_without_a_terminal_of_its_own_it_has_pipes(host, pod, terminal, options):
    """Red when: attach._stream passes a terminal on."""
    terminal.nsbox("join", pod, *options, "--", "sh", "-c", FDS + "; : < /dev/tty")
    assert terminal.ends_with() == 1
    lines = terminal.said.decode().split("\r\n")
    assert [line.partition(":")[0] for line in lines[:3]] == ["pipe"] * 3
    assert lines[3] == "not a tty" and "/dev/tty" in lines[4]


def test_G12_a_terminal_cannot_be_had_where_there_is_none(host, pod):
    """Red when: options.wants_tty does not look whether stdin is a terminal."""
    done = host.nsbox("join", pod, "-t", "--", "true")
    assert done.returncode == 2
    assert done.stderr.startswith("nsbox: cannot give it a terminal: stdin is none\nhint: ")
    assert host.nsbox("join", pod, "-t", "-d", "--", "true").returncode == 2


# ---- G06, G10: size and keys ----

def test_G06_the_window_size_is_passed_on_at_first_and_later(host, pod):
    """Red when: open_inside leaves out copy_window_size (at first), or on_signal does (later)."""
    with Terminal(host, rows=33, columns=111) as terminal:
        shell(terminal)
        assert run(terminal, "stty size") == "33 111\n"
        for rows, columns in ((10, 20), (400, 300), (0, 0), (24, 80)):
            terminal.resize(rows, columns)
            if rows:  # busybox makes 24 by 80 of 0 by 0
                assert any(run(terminal, "stty size") == f"{rows} {columns}\n" for _ in until(5))
        # Told of it while it reads a line, a shell of busybox with a trap takes that for the end of its input and ends.
        wait = "echo =w$((1+1))=; until [ $told ]; do sleep 0.05; done; trap - WINCH; echo =t$((1+1))="
        run(terminal, "set +m")  # a sleep in a group of its own would be told in the shell's place
        terminal.type(f"trap 'told=yes' WINCH; {wait}\n")
        terminal.expect("=w2=")
        terminal.resize(12, 34)
        terminal.expect("=t2=")
        terminal.expect("$ ")
        leave(terminal)


@pytest.mark.rootless_too
def test_G10_Ctrl_C_interrupts_the_foreground_of_the_member_alone(host, pod, terminal):
    """Red when: the terminal is not made raw, or make_controlling is left out."""
    shell(terminal)
    terminal.type("/bin/busybox sleep 1000\n")
    assert any(sleepers(host) for _ in until(5))
    terminal.type("\x03")
    terminal.expect("$ ")
    assert not sleepers(host)
    assert run(terminal, "echo $?") in ("130\n", "0\n")
    leave(terminal)


def sleepers(host):
    """The processes "busybox sleep 1000" that are in the foreground of a terminal."""
    return [real for real in host.processes().values() if command(real).endswith(b"sleep\x001000\0")]


def test_G10_Ctrl_Z_stops_the_foreground_of_the_member_and_not_the_client(host, pod, terminal):
    """Red when: the client takes Ctrl-Z for itself: RawMode leaves ISIG on."""
    shell(terminal)
    terminal.type("/bin/busybox sleep 1000\n")
    assert any(sleepers(host) for _ in until(5))
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("$ ")
    assert terminal.state() != "T"
    assert "sleep 1000" in run(terminal, "jobs")
    [sleeper] = sleepers(host)
    terminal.type("fg\n")
    assert any(state(sleeper) == "S" for _ in until(5))
    terminal.type("\x03")
    terminal.expect("$ ")
    assert run(terminal, "jobs") == ""
    leave(terminal)


def test_G10_Ctrl_C_and_Ctrl_D_work_without_a_pty_too(host, pod):
    """The caller's own terminal sends them then. Red when: attach._run_on_pipes does not forward (the
    first), or its input relay does not close the pipe (the second)."""
    with Terminal(host) as terminal:
        terminal.nsbox("join", pod, "-T", "--", "sh", "-c", "echo ready; exec /bin/busybox sleep 1000")
        terminal.expect("ready")
        terminal.type("\x03")
        assert terminal.ends_with() == 130
    with Terminal(host) as terminal:
        terminal.nsbox("join", pod, "-T", "--", "sh", "-c", "echo ready; cat; echo end; exit 6")
        terminal.expect("ready")
        terminal.type("line\n\x04")
        assert terminal.ends_with() == 6
        assert b"line\r\nend\r\n" in terminal.said


def test_G10_Ctrl_Z_without_a_pty_stops_client_and_member_together(host, pod, terminal):
    """Red when: attach._run_on_pipes leaves out suspend_self, or the SIGCONT to the member."""
    terminal.nsbox("join", pod, "-T", "--", "sh", "-c", "echo ready; exec /bin/busybox sleep 1000")
    terminal.expect("ready")
    assert any(sleepers(host) for _ in until(5))
    [member] = sleepers(host)
    terminal.type("\x1a")
    assert any((terminal.state(), state(member)) == ("T", "T") for _ in until(5)), (terminal.state(), state(member))
    terminal.resume()
    assert any((terminal.state(), state(member)) == ("S", "S") for _ in until(5))
    terminal.type("\x03")
    assert terminal.ends_with() == 130


# ---- G03, F11, G11: signals and the end ----

@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_F11_G03_a_signal_for_the_client_is_the_members_and_the_terminal_comes_back(host, pod, terminal, name):
    """Red when: a name is taken out of attach._FORWARDED; RawMode.restore does nothing."""
    script = f"trap 'echo got; exit 7' {name}; echo ready; while :; do /bin/busybox sleep 0.02; done"
    terminal.nsbox("join", pod, "-t", "--", "sh", "-c", script)
    terminal.expect("ready")
    assert any(terminal.is_raw() for _ in until(5))
    terminal.signal(signal.Signals[f"SIG{name}"])
    assert terminal.ends_with() == 7
    assert terminal.said.endswith(b"got\r\n")
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_G03_the_terminal_comes_back_when_the_signal_ends_the_member(host, pod, terminal, name):
    """At any moment of the client's life. Red when: RawMode.restore does nothing."""
    for pause in (0.0, 0.03, 0.1, None):
        terminal.nsbox("join", pod, "-t", "--", "/bin/busybox", "sleep", "1000")
        for _ in until(10 if pause is None else pause, pause=0.005):
            if pause is None and terminal.is_raw():
                break
        number = signal.Signals[f"SIG{name}"]
        for _ in range(3):
            terminal.signal(number)
        # Before nsbox's first line runs, Python and setsid end as any program does.
        assert terminal.ends_with() in (128 + number, -number, 1), terminal.said
        assert terminal.settings() == terminal.before


@pytest.mark.rootless_too
def test_G11_a_member_on_a_terminal_that_is_closed_gets_a_hang_up(host, pod, terminal):
    """Red when: the client ignores SIGHUP and the end of its terminal."""
    terminal.nsbox("join", pod, "-t", "--", "sh", "-c", "echo ready; exec /bin/busybox sleep 1000")
    terminal.expect("ready")
    assert any(sleepers(host) for _ in until(5))
    terminal.hang_up()
    assert any(not sleepers(host) for _ in until(20.0))
    assert terminal.client.wait(timeout=10) in (129, 128 + 9)
