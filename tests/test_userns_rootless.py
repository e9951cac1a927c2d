"""--userns as an ordinary user: what the machine's owner allows, by newuidmap and newgidmap, and no more."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs_program
from fakehost import NSBOX, SETTLE_S, UID, FakeHost
from inpod import inside, pod, refused
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]

SUBUID, SUBGID = f"bob:1:2\nalice:300000:65536\n{UID}:7:100\n", "alice:400000:65536\n"
SAFE = ("--userns", "--rootfs", "busybox")
ENTRY = f"alice:x:{UID}:{UID}::/:/bin/sh\n"


@pytest.fixture
def alice(user_host: FakeHost) -> Iterator[FakeHost]:
    """A host whose user has a name; what is put over its files is taken off at the end."""
    needs_program("newuidmap")
    put(user_host, "/etc/passwd", Path("/etc/passwd").read_text() + ENTRY)
    put(user_host, "/etc/subuid", "")
    put(user_host, "/etc/subgid", "")
    yield user_host
    user_host.run(["umount", "/etc/passwd", "/etc/subuid", "/etc/subgid"], user=0, check=True)


def put(host: FakeHost, file: str, text: str) -> None:
    """Mount a file of this text over another one of the fake host."""
    path = host.scratch / f"over.{Path(file).name}"
    path.write_text(text)
    path.chmod(0o644)
    host.run(["mount", "--bind", str(path), file], user=0, check=True)


def give(host: FakeHost, subuid: str = SUBUID, subgid: str = SUBGID) -> None:
    """What stands in the two files from now on."""
    for name, text in (("subuid", subuid), ("subgid", subgid)):
        (host.scratch / f"over.{name}").write_text(text)


def test_auto_maps_root_to_the_user_and_the_rest_to_the_range(alice: FakeHost) -> None:
    """Red when: _of_user gives the range from 0 on."""
    give(alice)
    work = alice.work
    with pod(alice, "web", *SAFE, "-v", f"{work}:/v", "-p", "8080:80") as pid:
        said = inside(alice, "web", "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u")
        assert said.split() == ["0", str(UID), "1", "1", "300000", "65536",
                                "0", str(UID), "1", "1", "400000", "65536", "allow", "0"]  # fmt: skip
        assert os.stat(f"/proc/{alice.host_pid(pid)}").st_uid == UID
        script = "touch /x /v/mine /v/other; chown 5:6 /x; chown 3:4 /v/other; stat -c %u:%g /x /bin"
        said = inside(alice, "web", script)
        assert said.split() == ["5:6", "0:0"]
        server = ["httpd", "-f", "-p", "80", "-h", "/etc"]
        alice.nsbox("join", "web", "-d", "--rootfs", "busybox", "--", *server, check=True)
        for _ in until(SETTLE_S, pause=0.05):
            done = alice.run(["curl", "-s", "http://127.0.0.1:8080/group"])
            if done.stdout:
                break
        assert done.stdout.startswith("root:x:0:"), done
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in work.iterdir()}
    assert owners == {"mine": (UID, UID), "other": (300002, 400003)}  # C07


def test_keep_id_keeps_the_id_with_and_without_a_range(alice: FakeHost) -> None:
    """Red when: identity_in says root for every pod."""
    script = "cat /proc/self/uid_map /proc/self/setgroups; id -u; id -g; touch /x; stat -c %u /x"
    alone = [str(UID), str(UID), "1", "deny"]
    many = ["0", "300000", str(UID), str(UID), str(UID), "1",
            str(UID + 1), str(300000 + UID), str(65536 - UID), "allow"]  # fmt: skip
    for wanted in (alone, many):
        with pod(alice, "web", "--userns", "keep-id", "--rootfs", "busybox"):
            for options in ([], ["--rootfs", "busybox"]):
                assert inside(alice, "web", script, *options).split() == [*wanted, str(UID), str(UID), str(UID)]
        give(alice)


@pytest.mark.parametrize("userns", ["auto", "keep-id"])
def test_a_pause_in_python_can_be_looked_at_by_its_own_user(alice: FakeHost, userns: str) -> None:
    """Red when: _sight() is nothing for an ordinary user, whose process was hidden while it got its ids."""
    give(alice)
    with pod(alice, "web", "--userns", userns, "--rootfs", "busybox", "--pause", "python"):
        assert inside(alice, "web", "id -u") == ("0" if userns == "auto" else str(UID))


def test_without_userns_one_id_is_mapped_as_before(alice: FakeHost) -> None:
    """Red when: create.py takes a range that it finds although nobody asked for it."""
    give(alice)
    with pod(alice, "web", "--rootfs", "busybox"):
        said = inside(alice, "web", "cat /proc/self/uid_map /proc/self/setgroups")
        assert said.split() == ["0", str(UID), "1", "deny"]


def test_C04_a_group_that_is_denied_something_stays_denied_without_a_range_of_groups(alice: FakeHost) -> None:
    """Red when: write in userns.py leaves setgroups as it is for a single id."""
    file = alice.scratch / "negative"
    file.write_text("secret")
    os.chown(file, 0, 4)
    file.chmod(0o604)
    caller = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--groups", "4"]
    env = {"XDG_RUNTIME_DIR": str(alice.state.parent), "NSBOX_STATE": None}
    assert alice.run([*caller, "cat", str(file)], user=0, env=env).returncode != 0
    for options in ([], ["--userns", "keep-id"], [f"--userns=0:{UID}:1"]):
        script = f"cat /proc/self/setgroups; cat {file}"
        done = alice.run([*caller, *NSBOX, "run", *options, "--", "sh", "-c", script], user=0, env=env)
        assert done.stdout == "deny\n" and "Permission denied" in done.stderr, (options, done)


@pytest.mark.parametrize("subuid, subgid, file, line", [
    ("", "", "/etc/subuid", "alice:100000:65536"),
    ("bob:100000:65536\n", SUBGID, "/etc/subuid", "alice:165536:65536"),
    (SUBUID, "", "/etc/subgid", "alice:100000:65536"),
])  # fmt: skip
def test_C06_a_missing_line_is_named(alice: FakeHost, subuid: str, subgid: str, file: str, line: str) -> None:
    """Red when: _choose asks for the users' range alone."""
    give(alice, subuid, subgid)
    done = alice.nsbox("create", "web", *SAFE)
    assert done.returncode == 125 and f"{file} has no line for alice" in done.stderr, done
    assert done.stderr.splitlines()[1] == f"hint: as root, add the line {line} to {file}"
    refused(alice, "create", "web", *SAFE)


def test_C06_a_map_beyond_what_is_given_is_refused_by_the_helper(alice: FakeHost) -> None:
    """Red when: _help passes over the status of the helper: the kernel's word would be all there is."""
    give(alice)
    for text, why in ((f"0:{UID}:1,1:300000:65537", "newuidmap: uid range"), ("0:0:1", "newuidmap: uid range")):
        assert why in refused(alice, "create", "web", f"--userns={text}")


def test_C06_a_missing_helper_is_named(alice: FakeHost) -> None:
    """Red when: check_helpers looks at one of the two."""
    give(alice)
    for helper in ("/usr/bin/newuidmap", "/usr/bin/newgidmap"):
        put(alice, helper, "")
        try:
            done = alice.nsbox("create", "web", *SAFE)
            assert done.returncode == 125 and f"there is no program {helper}" in done.stderr, done
            assert "hint: install the package uidmap" in done.stderr
        finally:
            alice.run(["umount", helper], user=0, check=True)


def test_a_helper_without_its_right_says_what_it_needs(alice: FakeHost) -> None:
    """Red when: _help does not tell what the helper said."""
    give(alice)
    copy = alice.scratch / "copy"
    shutil.copyfile("/usr/bin/newuidmap", copy)
    copy.chmod(0o755)
    alice.run(["mount", "--bind", str(copy), "/usr/bin/newuidmap"], user=0, check=True)
    try:
        done = alice.nsbox("create", "web", *SAFE)
        assert done.returncode == 125 and "newuidmap: " in done.stderr and "setuid root" in done.stderr, done
        refused(alice, "create", "web", *SAFE)
    finally:
        alice.run(["umount", "/usr/bin/newuidmap"], user=0, check=True)


def test_C16_the_helpers_are_not_looked_for_in_the_path(alice: FakeHost) -> None:
    """Red when: HELPERS are names that are looked up in PATH."""
    give(alice)
    evil = alice.scratch / "evil"
    evil.mkdir()
    for name in ("newuidmap", "newgidmap"):
        (evil / name).write_text(f"#!/bin/sh\ntouch {alice.work}/PWNED\n")
        (evil / name).chmod(0o755)
    path = {"PATH": f"{evil}:{os.environ['PATH']}", "LD_PRELOAD": None}
    alice.nsbox("create", "web", *SAFE, env=path, check=True)
    alice.nsbox("rm", "-f", "web", check=True)
    assert not (alice.work / "PWNED").exists()


def test_root_joins_a_user_s_pod_and_is_the_user_there(alice: FakeHost) -> None:
    """By its PID, with a rootfs of root's too. Red when: for_member looks at pods of its own state alone."""
    give(alice)
    with pod(alice, "web", *SAFE) as pid:
        env = {"XDG_RUNTIME_DIR": None, "NSBOX_STATE": "/run/lock/root"}
        rootfs = str(alice.store / "busybox/rootfs")
        done = alice.nsbox("join", str(pid), "--rootfs", rootfs, "--", "sh", "-c", "touch /x; stat -c %u /x; id -u",
                           user=0, env=env)  # fmt: skip
        assert done.stdout.split() == ["0", "0"], done
    alice.run(["rm", "-rf", "/run/lock/root"], user=0, check=True)
