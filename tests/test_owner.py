"""A pod of root's that belongs to the user who called sudo: he joins it without sudo, and nobody else does."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakehost import SETTLE_S, UID, FakeHost
from inpod import refused
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]

FIXED = 0x7000_0000
OTHER = UID + 1
NOWHERE = {"NSBOX_STATE": None, "XDG_RUNTIME_DIR": None}
SUDO = {**NOWHERE, "SUDO_UID": str(UID), "SUDO_GID": str(UID)}
ELSE = {**NOWHERE, "SUDO_UID": str(OTHER), "SUDO_GID": str(OTHER)}
OWNERS = "/run/nsbox-owners"


@pytest.fixture
def bob(user_host: FakeHost) -> Iterator[FakeHost]:
    """The host of an ordinary user, on which root makes pods too; at the end there is none left of them."""
    yield user_host
    sudo(user_host, "prune", check=True)
    names = sudo(user_host, "ls", "-q", check=True).stdout.split()
    sudo(user_host, "rm", "-f", *names or ["none"], check=True)
    assert not inside_of(user_host, OWNERS).exists()
    user_host.run(["rm", "-rf", "/run/nsbox"], user=0, check=True)


def sudo(host: FakeHost, *args, env=SUDO, **kw):
    """nsbox as sudo would start it."""
    return host.nsbox(*args, user=0, env=env, **kw)


def make(host: FakeHost, name: str, *options, env=SUDO) -> int:
    rootfs = ["--rootfs", str(host.store / "busybox/rootfs")]
    return int(sudo(host, "create", name, "--userns", *rootfs, *options, env=env, check=True).stdout)


def inside_of(host: FakeHost, path: str) -> Path:
    return Path(f"/proc/{host.pid}/root{path}")


def said(host: FakeHost, name: str, script: str, *options, **kw) -> str:
    done = host.nsbox("join", name, *options, "--", "sh", "-c", script, **kw)
    assert done.returncode == 0, done
    return done.stdout.strip()


def about(host: FakeHost, name: str) -> dict:
    return json.loads(sudo(host, "inspect", "--json", name, check=True).stdout)[0]


def test_A19_the_owner_joins_without_sudo(bob: FakeHost) -> None:
    """By name and by PID, with and without a state directory of his own; root of the pod is nobody outside.

    Red when: userns.make does not act for the owner, or the pause's memfd cannot be read in the pod; take() of the
    map leaves out what root lent, or asks for a state directory.
    """
    pid = make(bob, "lab")
    for target in ("lab", str(pid)):
        for env in ({}, NOWHERE):
            script = "id -u; id -g; hostname; cat /proc/self/uid_map; touch /x; grep ^Groups /proc/self/status"
            words = said(bob, target, script, env=env).split()
            assert words == ["0", "0", "lab", "0", str(FIXED), "65536", "Groups:"], words
    script = "for kind in user pid net mnt; do readlink /proc/self/ns/$kind; done"
    ours = [os.readlink(f"/proc/{bob.host_pid(pid)}/ns/{kind}") for kind in ("user", "pid", "net", "mnt")]
    assert said(bob, "lab", script).split() == ours
    for env in ({}, NOWHERE):
        assert "\npod lab\n" in bob.nsbox("map", "lab", "--only", "matrix", check=True, env=env).stdout
    status = Path(f"/proc/{bob.host_pid(pid)}/status").read_text()
    assert f"Uid:\t{FIXED}\t{FIXED}\t{FIXED}\t{FIXED}\n" in status
    assert about(bob, "lab")["userns_owner"] == {"uid": UID, "name": str(UID)}
    assert bob.nsbox("run", "--", "true").returncode == 0  # his own pods are as ever
    # What he wrote into it root sees, and root joins too.
    assert sudo(bob, "join", "lab", "--", "ls", "/x", check=True).stdout == "/x\n"


def test_the_names_of_a_network_are_in_the_pod_s_root_and_not_in_one_that_the_owner_brings(bob: FakeHost) -> None:
    """They lie in files of root's. README.md says so.

    Red when: netmodes leaves them out of the pod's own root. For the other half no break is known that turns it red.
    """
    sudo(bob, "net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    try:
        make(bob, "lab", "--net", "lan")
        make(bob, "other", "--net", "lan")
        assert "10.9.0.3 other" in said(bob, "lab", "cat /etc/hosts")
        assert "10.9.0." not in said(bob, "lab", "cat /etc/hosts; ip addr | grep -c 'inet 10.9' > /dev/null", "--rootfs", "busybox")
    finally:
        sudo(bob, "rm", "-f", "lab", "other")
        sudo(bob, "net", "rm", "lan", check=True)


def test_A19_nobody_else_learns_that_it_exists(bob: FakeHost) -> None:
    """Every verb says the same of it as of a pod that there never was, and /run tells no name.

    Red when: the directory of a user below /run/nsbox-owners is open to all.
    """
    pid = make(bob, "lab")
    env = {"XDG_RUNTIME_DIR": "/run/lock/other"}
    bob.run(["install", "-d", "-m", "700", "-o", str(OTHER), "-g", str(OTHER), "/run/lock/other"], user=0, check=True)
    for verb, *rest in (["join", "--", "true"], ["inspect"], ["ps"], ["stop"], ["kill"], ["rm"], ["rm", "-f"],
                        ["logs"], ["wait"], ["publish"]):  # fmt: skip
        lines = []
        for name in ("lab", "nil"):
            done = bob.nsbox(verb, name, *rest, user=OTHER, env=env)
            lines.append((done.returncode, done.stdout, done.stderr.replace(name, "NAME")))
        assert lines[0] == lines[1], (verb, lines)
    assert bob.nsbox("ls", "-q", user=OTHER, env=env).stdout == ""
    script = "sleep 1000 > /dev/null 2>&1 & echo $!"
    stranger = bob.run(["sh", "-c", script], user=0, check=True).stdout.strip()
    lines = []
    for number in (str(pid), stranger):
        for options in ([], ["--share", "user"]):
            done = bob.nsbox("join", number, *options, "--", "true", user=OTHER, env=env)
            lines.append((done.returncode, done.stdout, done.stderr.replace(number, "PID")))
    bob.run(["kill", stranger], user=0, check=True)
    assert lines[:2] == lines[2:] and lines[0][0] == 125, lines
    script = f"cat {OWNERS}/{UID}/*; ls -a {OWNERS} {OWNERS}/{UID}; stat {OWNERS}/{UID}/../{UID}/x; find /run -name '*lab*'"
    done = bob.run(["sh", "-c", script], user=OTHER)
    assert "lab" not in done.stdout and "json" not in done.stdout, done
    own = bob.run(["sh", "-c", f"grep -h lab {OWNERS}/{UID}/*.json; touch {OWNERS}/{UID}/x {OWNERS}/x"])
    assert '"name": "lab"' in own.stdout and own.stderr.count("Permission denied") == 2, own
    for secret in ("rootfs\": \"/", "SECRET"):
        assert secret not in own.stdout
    bob.run(["rm", "-rf", "/run/lock/other"], user=0, check=True)


def test_the_owner_looks_at_it_and_ends_it_and_root_forgets_it(bob: FakeHost) -> None:
    """ls, ps, inspect, join -d, kill and stop, and what is root's to do.

    Red when: summaries or stop pass over what is lent.
    """
    make(bob, "lab", "--label", "token=SECRET")
    bob.nsbox("create", "mine", check=True)
    assert bob.nsbox("ls", "-q").stdout.split() == ["lab", "mine"]
    pid = int(bob.nsbox("join", "-d", "lab", "--", "sleep", "1000", check=True).stdout)
    rows = json.loads(bob.nsbox("ps", "--json", "lab", check=True).stdout)
    assert [row["pid"] for row in rows][1:] == [pid] and rows[1]["uid"] == FIXED
    facts = json.loads(bob.nsbox("inspect", "--json", "lab", check=True).stdout)[0]
    assert (facts["name"], facts["userns_owner"]["uid"], facts["rootfs"], facts["labels"]) == ("lab", UID, "", {})
    assert bob.nsbox("inspect", "lab").returncode == 0
    bob.nsbox("kill", "-s", "TERM", "lab", check=True)
    for _ in until(SETTLE_S, pause=0.05):
        if len(json.loads(bob.nsbox("ps", "--json", "lab", check=True).stdout)) == 1:
            break
    done = bob.nsbox("rm", "-f", "lab")
    assert done.returncode == 125 and "root made it for you" in done.stderr, done
    for env in ({}, NOWHERE):
        bob.nsbox("stop", "lab", env=env, check=True)
        assert "cannot find pod 'lab'" in bob.nsbox("join", "lab", "--", "true").stderr
        assert sudo(bob, "ls", "--json", check=True).stdout.count('"dead"') == 1
        sudo(bob, "rm", "lab", check=True)
        make(bob, "lab")
    bob.nsbox("rm", "-f", "mine", check=True)


@pytest.mark.parametrize("env, options", [
    (NOWHERE, ()), ({**SUDO, "SUDO_UID": "0"}, ()), ({**SUDO, "SUDO_UID": "1x"}, ()), ({**SUDO, "SUDO_GID": None}, ()),
    ({**SUDO, "SUDO_UID": str(2**32 - 1)}, ()), (SUDO, ("--userns=0:100000:65536",)), (SUDO, ("--pause", "python")),
], ids=["no sudo", "root's sudo", "no number", "no group", "no id", "a map", "an interpreter"])  # fmt: skip
def test_A19_else_it_stays_root_s(bob: FakeHost, env: dict, options: tuple) -> None:
    """Red when: reserve gives every pod to its owner."""
    pid = make(bob, "lab", *options, env=env)
    assert about(bob, "lab")["userns_owner"] == {"uid": 0, "name": "root"}
    refused(bob, "join", "lab", "--", "true")
    assert bob.nsbox("join", str(pid), "--", "true").returncode == 125
    assert not inside_of(bob, OWNERS).exists()


def test_the_library_knows_it_too(bob: FakeHost) -> None:
    """Red when: Pod does not ask who called sudo, or pods() forgets what is lent."""
    rootfs = str(bob.store / "busybox/rootfs")
    code = f"import nsbox; nsbox.Pod('lab', rootfs={rootfs!r}, userns='auto', keep=True).create()"
    bob.python(code, user=0, env=SUDO, check=True)
    done = bob.python("""
import nsbox
[pod] = nsbox.pods()
print(pod.name, nsbox.join("lab", ["id", "-u"], capture_output=True, text=True).stdout.strip(),
      nsbox.join(pod.pid, ["hostname"], capture_output=True, text=True).stdout.strip())
try:
    nsbox.join("nil", ["true"])
except nsbox.PodNotFound:
    print("not found")
""", check=True)
    assert done.stdout == "lab 0 lab\nnot found\n"


FOREIGN = """
import os, sys
from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag
os.umask(0)
syscalls.unshare(CloneFlag.CLONE_NEWUSER)
if sys.argv[1:]:
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"{sys.argv[1]} {sys.argv[2]} 1")
    open("/proc/self/gid_map", "w").write(f"{sys.argv[1]} {sys.argv[2]} 1")
print(os.getpid(), flush=True)
os.execvp("sleep", ["sleep", "1000"])
"""


@pytest.mark.parametrize("known", [True, False])
def test_root_is_not_root_where_a_user_chose_what_runs(bob: FakeHost, known: bool) -> None:
    """In a user namespace of his that has no root: root's member is the user, or there is none.

    Red when: identity_in says None for every target without a root.
    """
    secret = bob.scratch / "secret"
    secret.write_text("SECRET")
    secret.chmod(0o600)
    program = bob.popen([sys.executable, "-c", FOREIGN, *(["7", str(UID)] if known else [])])
    try:
        pid = program.stdout.readline().strip()
        done = sudo(bob, "join", pid, "--", "sh", "-c", f"id -u; cat {secret}", env=NOWHERE)
        if known:
            assert done.stdout == "7\n" and "Permission denied" in done.stderr, done
        else:
            assert done.returncode == 125 and "knows neither root nor its own user" in done.stderr, done
        shared = sudo(bob, "join", pid, "--share", "none", "--", "id", "-u", env=NOWHERE)
        assert shared.stdout == "0\n"  # outside of it root is root
    finally:
        program.end()
