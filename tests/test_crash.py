"""Killed, interrupted or refused by the kernel at any step: nothing is left, the name is free.

The usual run takes a sample of the steps; NSBOX_TESTS_EVERY_FAULT=1 takes all of them.
"""

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from fakehost import FakeHost
from faultpoints import EVERY, Point, Strike, points, sample, strike

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if EVERY else 240)]
CREATE = ("create", "t", "--rootfs", "busybox")
RM = ("rm", "--force", "t")
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
ERRORS = ("ENOSPC", "ENOMEM", "EPERM", "EMFILE", "EINTR", "EAGAIN")
MAY_SUCCEED = {"EINTR", "EAGAIN"}
# A call whose failure is no harm: the question whether a file is a terminal; a device that cannot
# be made is mounted from the host instead, as for an ordinary user.
HARMLESS = {"ioctl", "mknodat"}
CANNOT_FAIL = {"close"}  # not for want of anything, on a descriptor that was not written to


@pytest.fixture
def steps(host: FakeHost) -> list[Point]:
    """The steps of CREATE; the pod is gone again."""
    found = points(host, *CREATE)
    host.nsbox(*RM, timeout=20)
    return found


def pods(host: FakeHost) -> list[dict[str, object]]:
    done = host.nsbox("ls", "--json", timeout=20)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def says_one_line(one: Strike) -> None:
    lines = one.stderr.splitlines()
    assert lines and lines[0].startswith("nsbox: "), one
    assert len(lines) == 1 or len(lines) == 2 and lines[1].startswith("hint: "), one
    assert "bug of nsbox" not in one.stderr and "Traceback" not in one.stderr, one


def is_whole(host: FakeHost, one: Strike) -> None:
    """The pod of a create that said 0 is there, is the one it named, and can be joined."""
    assert [pod["status"] for pod in pods(host)] == ["running"], one
    assert one.stdout.strip() == str(pods(host)[0]["pid"]), one
    assert host.nsbox("join", "t", "--", "true", timeout=20).returncode == 0, one
    assert host.nsbox(*RM, timeout=20).returncode == 0, one


def each(
    host: FakeHost, command: tuple[str, ...], todo: Iterable[tuple[Point, str]], check: Callable[[Strike], object],
    *, first: tuple[str, ...] = (), twice: bool = False,
) -> None:
    """Strike at each point, then check; all failures are told at the end.

    Args:
        first: a command before each. check: leaves everything as it was before.
    """
    before, failures, missed, total = host.snapshot(), [], [], 0
    for point, fault in todo:
        if first:
            host.nsbox(*first, check=True)
        one = strike(host, point, fault, *command, twice=twice)
        total += 1
        missed += [] if one.hit else [str(one)]
        try:
            check(one)
            host.assert_same_as(before)
        except AssertionError as err:
            failures.append(f"{one}\n    {str(err)[:300]}")
            host.nsbox(*RM)
            host.nsbox("prune")
    assert not failures, f"{len(failures)} of {total}:\n" + "\n".join(failures[:40])
    assert len(missed) <= total // 5, "not hit:\n" + "\n".join(missed)


def of_rm(host: FakeHost) -> list[Point]:
    """The steps of RM; the pod is gone again."""
    host.nsbox(*CREATE, check=True)
    return points(host, *RM)


def with_each(found: list[Point], faults: Sequence[str]) -> Iterator[tuple[Point, str]]:
    """Every point with all faults if everything is to be tried, else with one after the other."""
    for number, point in enumerate(found):
        for fault in faults if EVERY else (faults[number % len(faults)],):
            yield point, fault


def rm_does_the_rest(host: FakeHost, one: Strike) -> None:
    done = host.nsbox(*RM, timeout=20)
    assert done.returncode == 0, done.stderr
    assert host.nsbox("prune", timeout=20).returncode == 0
    assert pods(host) == []


def test_E01_killed_at_any_step_of_create(host: FakeHost, steps: list[Point]) -> None:
    """KILL at a step of create, to whichever process does it; prune; all is as it was before.

    Red when: prune leaves out "broken", or _learn_pid() waits for a report that nobody will write.
    """
    def check(one: Strike) -> None:
        assert "taken" not in one.stderr
        found = {pod["status"] for pod in pods(host)}
        assert found <= {"broken", "dead", "running"}
        if "running" in found:  # it was complete, only not yet told
            assert one.point.role == "front"
            host.nsbox(*RM, check=True)
        done = host.nsbox("prune", timeout=20)
        assert done.returncode == 0, done.stderr
        assert pods(host) == []

    each(host, CREATE, with_each(sample(steps, 32), ["signal=SIGKILL"]), check)
    assert host.nsbox(*CREATE).returncode == 0
    host.nsbox(*RM, check=True)


def test_E02_killed_at_any_step_of_rm(host: FakeHost) -> None:
    """KILL at a step of rm; a second rm does the rest.

    Red when: forget() removes the record's directory without renaming it away first.
    """
    def check(one: Strike) -> None:
        assert {pod["status"] for pod in pods(host)} <= {"running", "dead"}
        rm_does_the_rest(host, one)

    each(host, RM, with_each(sample(of_rm(host), 14, 3), ["signal=SIGKILL"]), check, first=CREATE)


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_E03_interrupted_at_any_step_of_create(host: FakeHost, steps: list[Point], twice: bool) -> None:
    """A signal at a step of create: it undoes what it did by itself and ends with 128 + n.

    If all was done by then, it may also have succeeded. Red when: neither create() nor abandon()
    undoes on Interrupted, or the second signal cuts the undoing off.
    """
    def check(one: Strike) -> None:
        if one.status == 0:
            is_whole(host, one)
            return
        signum = signal.Signals[one.fault.partition("=")[2]]
        assert (one.status, one.stderr) == (128 + signum, "")
        assert one.stdout == "" or one.point.call == "write", "told, and undone all the same"
        assert pods(host) == []

    of_front = [point for point in steps if point.role == "front"]
    faults = [f"signal={signum.name}" for signum in ENDING]
    each(host, CREATE, with_each(sample(of_front, 20, int(twice)), faults), check, twice=twice)


def test_E03_interrupted_at_any_step_of_rm(host: FakeHost) -> None:
    """A signal at a step of rm: 128 + n, and a second rm does the rest.

    Red when: Interrupted is swallowed.
    """
    def check(one: Strike) -> None:
        assert one.status in (0, 128 + signal.Signals[one.fault.partition("=")[2]])
        assert one.stderr == ""
        assert one.status or pods(host) == []
        rm_does_the_rest(host, one)

    faults = [f"signal={signum.name}" for signum in ENDING]
    each(host, RM, with_each(sample(of_rm(host), 8, 2), faults), check, first=CREATE)


def test_E04_any_call_of_create_fails(host: FakeHost, steps: list[Point]) -> None:
    """A system call of create fails: undone, one line, 125; or the pod is whole after all.

    Red when: an error of the mounts is passed over, or create() does not undo.
    """
    def check(one: Strike) -> None:
        if one.status == 0:
            assert one.fault.partition("=")[2] in MAY_SUCCEED or one.point.call in HARMLESS
            is_whole(host, one)
            return
        assert one.status == 125
        says_one_line(one)
        assert pods(host) == []

    able = [point for point in steps if point.call not in CANNOT_FAIL]
    each(host, CREATE, with_each(sample(able, 36, 1), [f"error={code}" for code in ERRORS]), check)


def test_E04_any_call_of_rm_fails(host: FakeHost) -> None:
    """A system call of rm fails: one line, 125, and a second rm does the rest.

    Red when: an OSError of the state directory escapes as a traceback; with every fault tried also
    when a pod that cannot be locked passes for one that is not there.
    """
    def check(one: Strike) -> None:
        if one.status == 0:
            assert pods(host) == []
        else:
            assert one.status == 125
            says_one_line(one)
        rm_does_the_rest(host, one)

    able = [point for point in of_rm(host) if point.call not in CANNOT_FAIL]
    each(host, RM, with_each(sample(able, 10, 4), [f"error={code}" for code in ERRORS]), check, first=CREATE)
