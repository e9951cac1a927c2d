"""explain tells the truth: its events are the lines of strace(1), no more and no fewer.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import oracle
import pytest

pytestmark = pytest.mark.needs_root

CREATES = {
    "with a rootfs": ["--rootfs", "busybox"],
    "of the host's tree": [],
    "with everything": ["--rootfs", "busybox", "-v", "/tmp:/mnt:ro", "--tmpfs", "/x:size=1m", "--with", "user,cgroup,time",
                        "--boottime", "100", "--read-only"],
    "in place": ["--rootfs", "busybox", "--in-place"],
    "by chroot, with a program of one's own": ["--rootfs", "busybox", "--chroot", "--init", "sleep 1000"],
    "with the readable pause": ["--rootfs", "busybox", "--pause", "python"],
}  # fmt: skip
JOINS = {
    "of all": [],
    "with a root of its own": ["--rootfs", "busybox", "-v", "/tmp:/mnt", "-w", "/mnt"],
    "without pid": ["--share", "net,ipc,uts"],
    "with a hostname": ["--share", "net", "--hostname", "other"],
    "detached": ["-d", "--rootfs", "busybox"],
}


@pytest.fixture
def web(host):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "other", check=True)


def agree(host, *words):
    seen, told, log = oracle.both(host, words)
    assert told == seen, oracle.difference(seen, told)
    assert len(seen) > 1 and sum(map(len, seen.values())) > 3
    return told


@pytest.mark.parametrize("how", CREATES)
def test_a_pod_is_made_by_exactly_the_calls_that_are_told(web, how):
    """Red when: a row is taken out of doors._ROWS, or symbols.CLONE lacks a flag, or `_call` tells result 0 always."""
    agree(web, "create", "other", *CREATES[how])


@pytest.mark.parametrize("how", JOINS)
def test_a_member_joins_by_exactly_the_calls_that_are_told(web, how):
    """Red when: a row is taken out of doors._ROWS, or the listener is not told in processes that were forked."""
    told = agree(web, "join", "web", *JOINS[how], "--", "sh", "-c", "exit 0")
    assert any("setns" in one.call for task in told.values() for one in task)
