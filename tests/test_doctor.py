"""`nsbox doctor`: it says what is so, on machines that were made to refuse something."""

import json
import os
import platform
import re
import struct
import sys

import pytest
from fakehost import NSBOX, UID
from underfilter import FILTERED

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

UNSHARE_NUMBER = {"x86_64": 272, "aarch64": 97}.get(platform.machine())
EPERM = 1


def examine(host, *before, **kw):
    """What the doctor finds, by key, and its exit status; `before` starts it."""
    done = host.run([*before, *NSBOX, "doctor", "--json"], **kw)
    assert "Traceback" not in done.stderr, done.stderr
    return {row["key"]: row for row in json.loads(done.stdout)}, done.returncode


def with_mounts(script, uid=0):
    """Words that start a command in a mount namespace of its own, after a script of mounts."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f'{script}; exec "$@"', "sh", *become]


def missing(found):
    return {key for key, row in found.items() if row["status"] == "missing"}


@pytest.fixture
def usual(host):
    """What this machine lacks by itself."""
    return missing(examine(host)[0])


def test_the_exit_status_says_whether_something_is_missing(host, usual):
    """Red when: run in cli/doctor.py returns 0 in any case."""
    found, status = examine(host)
    assert status == int(bool(usual))
    assert all(row["seen"] and row["title"] for row in found.values())
    assert all(row["costs"] and row["mend"] for row in found.values() if row["status"] == "missing")


def test_nothing_is_left_behind(host):
    """Red when: bridge in doctor/network.py works in the host's own network namespace."""
    before = host.snapshot()
    host.run([*NSBOX, "doctor"])
    host.assert_same_as(before)


def test_an_ordinary_user_is_told_what_he_can_do(user_host):
    """Red when: in_new in doctor/finding.py makes no user namespace without root."""
    found, _ = examine(user_host)
    for key in ("userns", "kinds", "calls", "proc", "filesystems", "time", "veth", "bridge", "nft"):
        assert found[key]["status"] == "ok", found[key]
    assert found["userns-users"]["status"] == "note"


def test_a_user_without_ranges_learns_how_to_get_some(user_host):
    """Red when: ranges in doctor/machine.py takes any line for the user's."""
    found, status = examine(user_host)
    assert found["subids"]["status"] == "missing" and status == 1
    assert re.search(rf"^usermod .* {UID}, ", found["subids"]["mend"])


def test_no_user_namespaces_are_left(host, usual):
    """Red when: user_namespace in doctor/kernel.py is not tried, or the sysctl is not read."""
    found, status = examine(
        host, "unshare", "--user", "--map-root-user", "sh", "-c",
        'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh",
    )  # fmt: skip
    assert status == 1 and {"userns", "limits"} <= missing(found) - usual
    assert found["userns"]["seen"].startswith("unshare: ")
    assert found["userns"]["mend"] == "sysctl -w user.max_user_namespaces=15000"
    assert "max_user_namespaces" in found["limits"]["seen"]
    assert {"L11", "L12"} <= set(found["userns"]["labs"])


def test_a_masked_proc(user_host):
    """Red when: fresh_proc in doctor/kernel.py makes no PID namespace of its own."""
    found, status = examine(user_host, *with_mounts("mount -t tmpfs mask /proc/bus", uid=UID), user=0)
    assert status == 1 and found["proc"]["status"] == "missing"
    assert found["proc"]["seen"].endswith("Operation not permitted")
    assert "/proc/bus" in found["proc"]["mend"] and "L04" in found["proc"]["labs"]


def denying(number):
    """A classic BPF program: EPERM for one system call, all others are allowed. See seccomp(2)."""
    lines = (
        (0x20, 0, 0, 0),                   # load the number
        (0x15, 0, 1, number),              # is it this one?
        (0x06, 0, 0, 0x0005_0000 | EPERM),
        (0x06, 0, 0, 0x7FFF_0000),
    )  # fmt: skip
    return b"".join(struct.pack("HBBI", *line) for line in lines).hex()


@pytest.mark.skipif(UNSHARE_NUMBER is None, reason="the number of unshare is not known here")
def test_a_filter_that_denies_unshare(user_host):
    """Red when: has_filter in linux/policy.py is always false, or refused calls count as fine."""
    found, status = examine(user_host, sys.executable, "-I", "-c", FILTERED, denying(UNSHARE_NUMBER))
    assert status == 1 and {"userns", "kinds"} <= missing(found)
    assert found["userns"]["seen"] == "unshare: Operation not permitted"
    assert "seccomp" in found["userns"]["mend"]
    assert found["seccomp"]["status"] == "note"


@pytest.mark.parametrize(
    ("key", "programs", "package"),
    [("nft", ("/usr/sbin/nft",), "nftables"), ("newuidmap", ("/usr/bin/newuidmap", "/usr/bin/newgidmap"), "uidmap"),
     ("pasta", ("/usr/bin/pasta",), "passt"), ("mmdebstrap", ("/usr/bin/mmdebstrap",), "mmdebstrap")],
)  # fmt: skip
def test_a_program_that_is_not_there(host, key, programs, package):
    """Red when: the check of that key does not look for the program."""
    note = host.work / "no-program"
    note.write_text("covers a program: it cannot be executed\n")
    assert all(os.access(program, os.X_OK) for program in programs)
    script = ";".join(f'mount --bind "{note}" {program}' for program in programs)
    found, status = examine(host, *with_mounts(script))
    assert status == 1 and found[key]["status"] == "missing"
    assert package in found[key]["mend"] and found[key]["costs"]


def test_what_is_missing_is_explained_to_people(host):
    """Red when: run in cli/doctor.py does not print costs, labs or how to mend it."""
    note = host.work / "no-program"
    note.write_text("\n")
    said = host.run([*with_mounts(f'mount --bind "{note}" /usr/sbin/nft'), *NSBOX, "doctor"]).stdout
    [block] = re.findall(r"\nmissing: nftables\n((?:  .*\n)+)", said)
    assert [line.split()[0] for line in block.splitlines()] == ["found", "costs", "labs", "mend"]
    assert "a bridge, and publishing" in block and "nftables" in block
    assert re.search(r"\n\d+ of \d+ are fine, \d+ missing\n$", said)
