"""--step: each call waits for Enter at the terminal; q ends it there, and all is undone.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import re
import signal

import pytest
from ptyclient import Terminal

from nsbox.explain import catalogue

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
PROMPT = "q: end here and undo "


@pytest.fixture
def web(host):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "other", check=True)


ASKED = re.compile(r"^ {5}\S+ +(\w+)\(", re.MULTILINE)  # a call without a number


def go_through(terminal, answers):
    """Answer each question; what stood before each."""
    shown = []
    for answer in answers:
        shown.append(terminal.expect(PROMPT).decode())
        terminal.type(answer + "\n")
    return shown


def test_each_call_but_the_plumbing_waits_for_enter(host):
    """Also those of processes that are in a session of their own and in another root by then.

    Red when: Steps.asks() answers for plumbing too, or says no for who is not the command.
    """
    asked = []
    with Terminal(host, columns=200).nsbox("create", "other", "--step") as terminal:
        while asked[-1:] != ["execveat"]:
            asked += ASKED.findall(terminal.expect(PROMPT).decode())
            terminal.type("\n")
        assert terminal.ends_with() == 0 and terminal.said.decode().split()[-1].isdigit()
    assert {"clone", "clone3", "setsid", "mount", "move_mount", "capset"} <= set(asked) <= set(catalogue.CALLS)
    assert not {call for call in asked if catalogue.CALLS[call].plumbing}
    host.nsbox("rm", "--force", "other", check=True)


def test_what_was_asked_is_told_once_and_then_its_result(web):
    """Red when: Steps.after() tells a call that was asked about once more."""
    told = web.nsbox("join", "web", "--explain", "-T", "--", "true", check=True).stderr
    with Terminal(web, columns=200).nsbox("join", "web", "--step", "-T", "--", "true") as terminal:
        shown = "".join(go_through(terminal, ["", "", "", "c"]))
        assert terminal.ends_with() == 0
        shown += terminal.said.decode()
    for call in ("clone(child_stack=NULL", "setns(5", "memfd_create(\"", "execveat("):
        assert shown.count(call) == told.count(call), call


@pytest.mark.parametrize("after", [0, 1, 3, 9])
def test_q_ends_it_and_nothing_is_left(web, after):
    """In the command, in the middle process, and in PID 1 of the pod.

    Red when: Teller asks those who undo too, or "q" is taken for Enter.
    """
    before = web.snapshot()
    with Terminal(web).nsbox("create", "other", "--step") as terminal:
        go_through(terminal, [""] * after + ["q"])
        assert terminal.ends_with() == 125
        assert "nsbox: cannot go on: you ended it before" in terminal.said.decode()
        assert PROMPT not in terminal.said.decode()
    web.assert_same_as(before)


def test_a_member_s_terminal_is_not_asked(web):
    """While a member has the terminal, what is done for it is told, and its keys are its own.

    Red when: Steps.asks() does not look whether the terminal is raw.
    """
    with Terminal(web, columns=200).nsbox("join", "web", "--step", "-t", "--", "cat") as terminal:
        while not terminal.is_raw():
            if terminal.read_some(0.1) and PROMPT.encode() in terminal.said:
                go_through(terminal, [""])
        terminal.type("hello\r")
        terminal.expect("hello")
        terminal.signal(signal.SIGTERM)
        terminal.expect("pidfd_send_signal")
        assert terminal.ends_with() == 128 + signal.SIGTERM
        assert PROMPT not in terminal.said.decode()


def test_without_a_terminal_it_is_wrong_use(host):
    """Red when: _screen() does not ask whether stdin is a terminal."""
    done = host.nsbox("create", "other", "--step")
    assert done.returncode == 2 and "stdin is no terminal" in done.stderr


def test_every_call_of_the_catalogue_that_waits_has_a_reason():
    """Red when: a row without a reason is not plumbing."""
    assert all(call.why for call in catalogue.CALLS.values() if not call.plumbing)
