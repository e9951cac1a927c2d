"""A client that is a job of an interactive shell: in the background, brought to the front, left alone."""

import shlex
from collections.abc import Sequence

import pytest
from fakehost import NSBOX, FakeHost
from procfs import until
from ptyclient import Terminal, state

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]


@pytest.fixture
def pod(host: FakeHost):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield "web"
    host.nsbox("rm", "--force", "web", check=True)


def line(*words: str) -> str:
    """A command line of a shell."""
    return " ".join(shlex.quote(word) for word in (*NSBOX, *words))


def job_shell(terminal: Terminal) -> None:
    """A shell with job control, whose prompt does not look like what is typed."""
    terminal.start(["bash", "--norc", "--noediting", "-i"])
    terminal.type("stty -echo; PS1='re''ady> '\n")
    terminal.expect("ready> ")


def test_G12_a_client_in_the_background_is_a_job_that_stops_and_goes_on_in_the_front(host: FakeHost, pod: str) -> None:
    """With -t it needs the terminal, and the shell says that it has stopped; the terminal is the shell's until `fg`.

    Red when: the client ignores or blocks SIGTTOU when it makes the terminal raw: then it does so under the shell's feet.
    """
    with Terminal(host) as terminal:
        job_shell(terminal)
        before = terminal.settings()
        terminal.type(line("join", pod, "-t", "--", "sh", "-c", "read word; echo got $word; exit 3") + " &\n")
        terminal.expect("ready> ")
        for _ in until(20):
            terminal.type("jobs\n")
            if b"Stopped" in terminal.expect("ready> "):
                break
        else:
            raise AssertionError("it is no stopped job")
        assert terminal.settings() == before
        terminal.type("fg\n")
        for _ in until(20):
            if terminal.is_raw():
                break
        terminal.type("hello\r")
        terminal.expect("got hello")
        terminal.expect("ready> ")
        terminal.type("echo status $?\n")
        terminal.expect("status 3")
        terminal.expect("ready> ")
        assert terminal.settings() == before
        terminal.type("exit\n")
        terminal.ends_with()


@pytest.mark.parametrize("options", [("-t",), ()], ids=["-t", "pipes"])
def test_G12_a_client_whose_shell_has_gone_is_not_left_stopped(host: FakeHost, pod: str, options: Sequence[str]) -> None:
    """It is in a process group without a shell, where nobody continues it. Without -t it does all its work.

    Red when: the client stops itself to wait for the front (SIGSTOP in wants_tty()).
    """
    with Terminal(host) as terminal:
        script = line("join", pod, *options, "--", "sh", "-c", "sleep 0.2; echo done > /dev/shm/done") + " & echo PID=$!."
        terminal.start(["sh", "-ic", script])
        terminal.expect("PID=")
        pid = int(terminal.expect("."))
        terminal.ends_with()
        for _ in until(20):
            if pid not in host.processes():
                break
        else:
            raise AssertionError(f"left in the state {state(host.host_pid(pid))}")
    if not options:
        assert host.nsbox("join", pod, "--", "cat", "/dev/shm/done", check=True).stdout == "done\n"


def test_G12_a_client_in_the_background_that_wants_no_terminal_is_not_stopped(host: FakeHost, pod: str) -> None:
    """It has pipes; its input ends, or is the terminal's, which nobody types into.

    Red when: wants_tty() does not ask whether we are in the background: then the client stops.
    """
    with Terminal(host) as terminal:
        job_shell(terminal)
        terminal.type(line("join", pod, "--", "sh", "-c", "echo d''one; exit 4") + " & wait $!; echo status $?\n")
        terminal.expect("done")
        terminal.expect("status 4")
        terminal.expect("ready> ")
        terminal.type("exit\n")
        terminal.ends_with()
