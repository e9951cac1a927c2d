"""--explain and --events: what a person reads, what a program reads, and what stays as it is without them.

That what is told is true is shown in test_explain_oracle.py. "Red when" in a docstring says how to
break nsbox so that the test fails; each was tried.
"""

import json
import os
import time

import pytest
from fakehost import NSBOX

pytestmark = pytest.mark.needs_root


@pytest.fixture
def web(host):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "other", check=True)


def told(host, *words):
    """Run a command with --events; what it told, and what it answered."""
    file = host.scratch / "events"
    verb, *rest = words
    done = host.nsbox(verb, "--events", file, *rest, check=True)
    return [json.loads(line) for line in file.read_text().splitlines()], done


def test_create_tells_on_stderr_and_answers_on_stdout(host):
    """Red when: the screen writes to 1, or catalogue.why is left out of what is shown."""
    done = host.nsbox("create", "other", "--explain", check=True)
    assert done.stdout.strip().isdigit()
    lines = done.stderr.splitlines()
    [clone] = [number for number, line in enumerate(lines) if "clone3({flags=" in line]
    assert "CLONE_PARENT|CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWPID|CLONE_NEWNET" in lines[clone]
    assert "where it is PID 1" in " ".join(lines[clone:clone + 6]) and "namespaces(7)" in done.stderr
    assert any("pause is in: " in line and " -> " in line for line in lines)
    assert max(map(len, lines)) <= 120
    host.nsbox("rm", "other", check=True)


def test_an_event_says_who_what_why_and_where_to_read(web):
    """Red when: a row of catalogue.CALLS has an empty why, or Teller counts in each process by itself."""
    events, done = told(web, "join", "web", "--rootfs", "busybox", "--", "echo", "hello")
    assert (done.stdout, done.stderr) == ("hello\n", "")
    assert [one["number"] for one in events] == list(range(1, len(events) + 1))
    for one in events:
        assert one["who"] and one["why"] and one["man"].endswith(")") and one["text"].startswith(one["call"]), one
    assert {one["who"] for one in events} == {"nsbox", "helper", "member"}
    [setns] = [one for one in events if one["call"] == "setns" and one["who"] == "member"]
    assert set(setns["moved"]) == {"uts", "ipc", "net", "pid"}
    assert "values" not in setns


def test_the_inode_numbers_told_are_those_of_the_namespaces(web):
    """Red when: Teller takes the numbers before the call from after it."""
    events, _ = told(web, "create", "other")
    [clone] = [one for one in events if one["call"] == "clone3"]
    kinds = json.loads(web.nsbox("inspect", "--json", "other").stdout)[0]["namespaces"]
    here = {kind: int(web.run(["stat", "-Lc%i", f"/proc/self/ns/{kind}"]).stdout) for kind in clone["moved"]}
    assert set(clone["moved"]) == {"pid", "net", "uts", "ipc", "mnt"}
    for kind, (before, after) in clone["moved"].items():
        assert before == here[kind] and str(after) in str(kinds), (kind, kinds)


def test_a_detached_member_is_told_by_its_supervisor_who_then_listens_no_more(web):
    """The pipe of stderr ends with the command: nobody keeps it.

    Red when: supervise.py does not keep listening_fds(), or does not say listen(None).
    """
    done = web.run(["sh", "-c", 'exec 2>&1; "$@" | cat', "sh", *NSBOX, "join", "web", "-d", "--explain", "--",
                    "sleep", "1000"], check=True, timeout=60)  # fmt: skip
    assert " supervisor " in done.stdout and '["sleep", "1000"]' in done.stdout


def test_a_call_that_fails_is_told_with_its_error_and_the_status_stays(web):
    """Red when: Screen shows an execve at its beginning only."""
    variables = web.scratch / "variables"
    variables.write_text("A=" + "x" * 140_000)
    done = web.nsbox("join", "web", "--explain", "--env-file", variables, "--", "true")
    assert done.returncode == 126 and "\nnsbox: cannot run 'true': " in done.stderr, done.stderr
    assert done.stderr.count('["true"]') == done.stderr.count("= -1 E2BIG") == 1
    done = web.nsbox("join", "web", "--explain", "-w", "/nowhere", "--", "true")
    assert done.returncode == 125 and "24) = -1 ENOENT\n" in done.stderr


def test_nothing_that_tells_is_open_in_the_pod(web):
    """Red when: Teller makes its log inheritable before an execve."""
    pid = web.nsbox("create", "other", "--rootfs", "busybox", "--explain", check=True).stdout.strip()
    assert web.run(["ls", "-l", f"/proc/{pid}/fd"], check=True).stdout.count("/dev/null") == 3
    shown = web.nsbox("join", "web", "--explain", "--events", web.scratch / "events", "--", "ls", "/proc/self/fd", check=True)
    assert shown.stdout.split() == ["0", "1", "2", "3"]


def test_without_it_nothing_of_it_is_loaded_and_no_function_is_replaced(host):
    """Red when: front.py imports the room at its top, or doors.open_doors() is called by Teller."""
    code = ("import os, sys; fork = os.fork; from nsbox.cli import main; status = main(sys.argv[1:]);"
            "assert status == 0 and os.fork is fork; print([n for n in sys.modules if 'explain' in n or 'doors' in n])")
    assert host.python(code, "create", "other", check=True).stdout.splitlines()[1] == "[]"
    assert host.python(code, "rm", "--explain", "other", check=True).stdout.splitlines()[-1] != "[]"


def test_events_that_cannot_be_written_are_an_error(host):
    """Red when: _write() lets the OSError go."""
    done = host.nsbox("create", "other", "--events", "/nonexistent/file")
    assert done.returncode == 125 and "cannot write the events to '/nonexistent/file'" in done.stderr
    host.nsbox("rm", "--force", "other", check=True)


def order_told_of_a_child_that_shares_descriptors():
    from nsbox.explain.teller import Teller
    from nsbox.linux import mounts, spawn, syscalls

    class Slow(Teller):
        def _tell(self, call, *rest):
            if call == "clone3":
                time.sleep(0.3)
            return super()._tell(call, *rest)

    root_fd = os.open("/", os.O_PATH)
    teller = Slow()
    syscalls.listen(teller)
    os.close(spawn.opened_by_child(lambda: mounts.open_in_root(root_fd, "etc", os.O_PATH)))
    syscalls.listen(None)
    return [(one.number, one.call, one.task) for one in teller.told]


def test_a_child_that_shares_descriptors_tells_after_its_birth(in_child):
    """With one table of descriptors they hold a lock together, and wrote over each other's lines.

    Red when: _born() does not await the telling of the birth.
    """
    assert in_child(order_told_of_a_child_that_shares_descriptors) == [(1, "clone3", 0), (2, "openat2", 1)]
