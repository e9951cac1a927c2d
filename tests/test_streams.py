"""What goes in and out of a member without a terminal: status, bytes, signals (rows E21, E22, F11).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import hashlib
import os
import signal

import pytest
from procfs import until
from ptyclient import Terminal

pytestmark = pytest.mark.needs_root

MEGABYTE = 1 << 20
STATUSES = {"exit 0": 0, "exit 1": 1, "exit 42": 42, "exit 125": 125, "exit 126": 126, "exit 127": 127,
            "exit 255": 255, "kill -9 $$": 137, "kill -15 $$": 143}
# Says which signal came, and ends after the last.
TRAPS = ("for s in TERM INT HUP QUIT USR1 USR2; do trap \"echo $s\" $s; done; "
         "trap 'echo WINCH; exit 9' WINCH; echo ready; "
         "while :; do /bin/busybox sleep 0.02; done")
FORWARDED = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")

each_status = pytest.mark.parametrize("script, status", STATUSES.items(), ids=STATUSES)


@pytest.fixture
def pod(host):
    """A pod "web" with a busybox root."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield "web"
    host.nsbox("rm", "--force", "web", check=True)


# ---- E21: exit statuses ----

@each_status
def test_E21_the_exit_status_is_the_members(host, pod, script, status):
    """Red when: exit_status_of returns 128 + n for no signal, or _reap does not decode the status."""
    for way in (["join", pod], ["join", pod, "--rootfs", "busybox"], ["run", "--rootfs", "busybox"]):
        done = host.nsbox(*way, "--", "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (status, "", ""), way


@each_status
def test_E21_so_is_that_of_a_detached_member_by_wait(host, pod, script, status):
    """Red when: supervise._look_after writes the raw wait status."""
    pid = host.nsbox("join", pod, "-d", "--", "sh", "-c", script, check=True).stdout.strip()
    assert host.nsbox("wait", pod, check=True).stdout == f"{status}\n"
    assert host.nsbox("wait", pid, check=True).stdout == f"{status}\n"


@each_status
def test_E21_and_that_of_one_on_a_terminal(host, pod, script, status):
    """Red when: attach._run_on_pty returns before _reap."""
    with Terminal(host) as terminal:
        terminal.nsbox("join", pod, "-t", "--", "sh", "-c", script)
        assert terminal.ends_with() == status
        assert terminal.settings() == terminal.before


@pytest.mark.parametrize("argv, status", [
    (["/bin/missing"], 127), (["missing"], 127), (["/etc/passwd"], 126), (["/etc"], 126)], ids=str)
def test_E21_127_and_126_where_the_command_cannot_be_run(host, pod, argv, status):
    """Red when: execute.refusal gives the same status for all."""
    for way in (["join", pod], ["join", pod, "-d"], ["run", "--rootfs", "busybox"]):
        done = host.nsbox(*way, "--", *argv)
        assert (done.returncode, done.stdout) == (status, ""), way
        assert done.stderr.startswith(f"nsbox: cannot run '{argv[0]}': execve: "), done.stderr
    with Terminal(host) as terminal:
        terminal.nsbox("join", pod, "-t", "--", *argv)
        assert terminal.ends_with() == status
        assert b"nsbox: cannot run" in terminal.said and terminal.settings() == terminal.before


# ---- E22: every byte ----

@pytest.mark.parametrize("way", [["join", "web"], ["run", "--rootfs", "busybox"]], ids=" ".join)
def test_E22_all_output_is_there_when_the_client_ends(host, pod, way):
    """Red when: all goes through relays (_stream does not ask isatty), with drain=False."""
    for _ in range(10):
        done = host.nsbox(*way, "--", "sh", "-c", "head -c 1048576 /dev/zero; exit 3", text=False)
        assert (done.returncode, len(done.stdout)) == (3, MEGABYTE)


def test_E22_so_it_is_on_a_terminal(host, pod):
    """Red when: attend is called with drain=False, or Relay.child_ended ends the reading."""
    for _ in range(10):
        with Terminal(host) as terminal:
            terminal.nsbox("join", pod, "-t", "--", "sh", "-c", "head -c 1048576 /dev/zero; exit 3")
            assert terminal.ends_with() == 3
            assert len(terminal.said) == MEGABYTE


def test_E22_a_detached_members_log_is_whole_too(host, pod):
    """Red when: supervise._look_after reads by 4 KiB and stops when the member has ended."""
    for _ in range(5):
        host.nsbox("join", pod, "-d", "--", "sh", "-c", "head -c 1048576 /dev/zero; exit 3", check=True)
        assert host.nsbox("wait", pod, check=True).stdout.split()[-1] == "3"
        for _ in until(5):
            if len(host.nsbox("logs", pod, text=False).stdout) % MEGABYTE == 0:
                break
        assert len(host.nsbox("logs", pod, text=False).stdout) % MEGABYTE == 0


def test_E22_a_hundred_megabytes_pass_bit_for_bit(host, pod):
    """Through pipes in both directions. Red when: all goes through relays (_stream does not ask
    isatty), and Relay._read drops a byte."""
    data = os.urandom(MEGABYTE) * 100
    done = host.nsbox("join", pod, "--", "cat", input=data, text=False, timeout=90)
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_E22_a_terminal_beside_a_pipe_loses_nothing(host, pod):
    """stdin is a pipe, stdout a terminal: that one goes through a relay.
    Red when: Relay._read drops a byte."""
    data = os.urandom(5 * MEGABYTE)
    path = host.scratch / "data"
    path.write_bytes(data)
    with Terminal(host) as terminal, open(path, "rb") as file:
        terminal.make_raw()
        terminal.nsbox("join", pod, "--", "cat", stdin=file)
        assert terminal.ends_with() == 0
        assert hashlib.sha256(terminal.said).digest() == hashlib.sha256(data).digest()


def test_E22_an_end_of_input_reaches_the_member(host, pod):
    """Red when: all goes through relays (_stream does not ask isatty) that close no pipe."""
    assert host.nsbox("join", pod, "--", "sh", "-c", "cat; echo end", input="word ", timeout=10).stdout == "word end\n"


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "tr_TR.UTF-8"])
@pytest.mark.parametrize("mode", [{}, {"PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "utf-8:strict"},
                                  {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=str)
def test_H08_bytes_of_arguments_pass_unchanged(host, pod, locale, mode):
    """Red when: parse.encode is word.encode()."""
    odd = bytes([*range(1, 256)]) + "ü€😀".encode()
    env = {"LC_ALL": locale, "LANG": None, **mode}
    done = host.nsbox("join", pod, "-e", b"ODD=" + odd, "--", "sh", "-c", 'printf %s "$0" "$1" "$ODD"', odd,
                      b"\xff\xfe", text=False, env=env)
    assert (done.returncode, done.stdout) == (0, odd + b"\xff\xfe" + odd), done.stderr


# ---- F11: signals for the client are for the member ----

@pytest.mark.parametrize("way", [["join", "web"], ["run", "--rootfs", "busybox"]], ids=" ".join)
def test_F11_signals_are_forwarded_one_by_one(host, pod, way):
    """Red when: a name is taken out of attach._FORWARDED."""
    client = host.nsbox_popen(*way, "--", "sh", "-c", TRAPS)
    assert client.stdout.readline() == "ready\n"
    for name in FORWARDED:
        client.send_signal(signal.Signals[f"SIG{name}"])
        assert client.stdout.readline() == f"{name}\n"
    assert client.wait(timeout=10) == 9


@pytest.mark.parametrize("name, status", [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131), ("USR1", 138)])
def test_F11_a_member_that_a_forwarded_signal_ends_gives_that_status(host, pod, name, status):
    """Red when: attach._reap returns wait_status & 127. That the signal comes from the client and not
    from its death, the test above shows."""
    client = host.nsbox_popen("join", pod, "--", "sh", "-c", "ulimit -c 0; echo ready; exec /bin/busybox sleep 1000")
    assert client.stdout.readline() == "ready\n"
    assert any(b"sleep" in host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"], text=False).stdout
               for _ in until(5))
    client.send_signal(signal.Signals[f"SIG{name}"])
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == status
