"""What a person types: all of it without sudo, or sudo once and never again."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs_program
from fakehost import NSBOX, SETTLE_S, UID, FakeHost
from procfs import until
from test_owner import OWNERS, inside_of

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]

CAROL = UID + 1
FRESH = {"HOME": None, "NSBOX_STORE": None, "LANG": None}


def bodies(host: FakeHost, port: int) -> str:
    """What the web server behind a port of the host says, as soon as it is there."""
    said = ""
    for _ in until(SETTLE_S, pause=0.05):
        said = host.run(["curl", "-s", f"http://127.0.0.1:{port}/group"], env=FRESH).stdout
        if said:
            break
    return said


def test_a_user_who_never_had_nsbox_needs_no_sudo(user_host: FakeHost) -> None:
    """create, join, run, -p, stop and rm; nobody but the user runs anything; nothing is left.

    Red when: _kinds in create.py does not add "user" without root.
    """
    host, root = user_host, str(user_host.store / "busybox/rootfs")

    def nsbox(*words: str, status: int = 0) -> str:
        done = host.nsbox(*words, env=FRESH)
        assert (done.returncode, done.stderr) == (status, ""), done
        uids = {os.stat(f"/proc/{real}").st_uid for pid, real in host.processes().items() if pid != 1}
        assert uids <= {UID}, uids
        return str(done.stdout)

    pid = nsbox("create", "web", "--rootfs", root, "-p", "8080:80").strip()
    server = nsbox("join", "-d", "web", "--", "httpd", "-f", "-p", "80", "-h", "/etc").strip()
    assert bodies(host, 8080).startswith("root:x:0:")
    assert nsbox("join", "web", "--", "hostname") == "web\n"
    assert nsbox("join", pid, "--", "id", "-u") == "0\n"
    assert nsbox("join", "web", "--rootfs", root, "--", "sh", "-c", "touch /x; exit 7", status=7) == ""
    assert nsbox("run", "--rootfs", root, "-p", "8081:80", "--", "sh", "-c", "echo $$") == "2\n"
    assert [row["name"] for row in json.loads(nsbox("ls", "--json"))] == ["web"]
    nsbox("stop", "web")
    assert nsbox("wait", server) in ("143\n", "137\n")
    assert host.run(["curl", "-s", "http://127.0.0.1:8080/"], env=FRESH).returncode != 0
    nsbox("rm", "web")
    assert nsbox("ls", "-q") == ""  # and the fixture compares all the rest


PASSWD = f"""\
root:x:0:0::/root:/bin/sh
bob:*:{UID}:{UID}::/:/bin/sh
carol:*:{CAROL}:{CAROL}::/:/bin/sh
"""
SUDOERS = "Defaults !fqdn, !syslog\nroot ALL=(ALL:ALL) ALL\nbob ALL=(ALL:ALL) NOPASSWD: ALL\n"


@pytest.fixture
def bobs(user_host: FakeHost) -> Iterator[FakeHost]:
    """A host where bob may call the real sudo, and carol is another user."""
    needs_program("sudo")
    put = {"/etc/passwd": PASSWD, "/etc/sudoers": SUDOERS}
    for file, text in put.items():
        over = user_host.scratch / f"over.{Path(file).name}"
        over.write_text(text)
        over.chmod(0o440 if file == "/etc/sudoers" else 0o644)
        user_host.run(["mount", "--bind", str(over), file], user=0, check=True)
    yield user_host
    user_host.run(["umount", *put], user=0, check=True)
    assert not inside_of(user_host, OWNERS).exists()
    user_host.run(["rm", "-rf", "/run/nsbox", "/run/sudo"], user=0, check=True)


@pytest.mark.parametrize("real", [True, False], ids=["sudo", "its variables"])
def test_A19_who_called_sudo_once_joins_without_it(bobs: FakeHost, real: bool) -> None:
    """With the real sudo, and with what it leaves in the environment.

    Red when: sudo_caller looks for other names.
    """
    host, root = bobs, str(bobs.store / "busybox/rootfs")

    def sudo(*words: str) -> str:
        if real:
            done = host.run(["sudo", "-n", *NSBOX, *words])
        else:
            env = {"SUDO_UID": str(UID), "SUDO_GID": str(UID), "XDG_RUNTIME_DIR": None}
            done = host.nsbox(*words, user=0, env=env)
        assert (done.returncode, done.stderr) == (0, ""), done
        return str(done.stdout)

    pid = sudo("create", "lab", "--userns", "--rootfs", root).strip()
    for target in ("lab", pid):
        uids = host.nsbox("join", target, "--", "sh", "-c", "id -u; awk '{ print $2 }' /proc/self/uid_map", check=True)
        inside, outside = uids.stdout.split()
        assert inside == "0" and int(outside) >= 100000
    carol: dict = {"user": CAROL, "env": {"XDG_RUNTIME_DIR": "/run/lock/carol"}}
    host.run(["mkdir", "-m", "700", "/run/lock/carol"], user=CAROL, check=True)
    lines = []
    for name in ("lab", "nil"):
        done = host.nsbox("join", name, "--", "id", **carol)
        lines.append((done.returncode, done.stdout, done.stderr.replace(name, "NAME")))
    assert lines[0] == lines[1] and lines[0][:2] == (125, ""), lines
    assert host.nsbox("join", pid, "--", "id", **carol).returncode == 125
    host.run(["rm", "-r", "/run/lock/carol"], user=0, check=True)
    assert sudo("join", "lab", "--", "id", "-u") == "0\n"
    [about] = json.loads(sudo("inspect", "--json", "lab"))
    assert about["userns_owner"] == {"uid": UID, "name": "bob"}
    sudo("rm", "lab")
    assert host.nsbox("join", "lab", "--", "true").returncode == 125


def test_with_sudo_in_a_program_the_library_does_the_same(bobs: FakeHost) -> None:
    """Red when: Pod does not ask who called sudo."""
    root = str(bobs.store / "busybox/rootfs")
    code = f"""
import nsbox, subprocess, sys
with nsbox.Pod("lab", rootfs={root!r}, userns="auto") as pod:
    join = [sys.executable, "-P", "-m", "nsbox", "join", "lab", "--", "id", "-u"]
    done = subprocess.run(["setpriv", "--reuid={UID}", "--regid={UID}", "--clear-groups", *join], capture_output=True, text=True)
    print(done.stdout, done.stderr, pod.inspect()["userns_owner"]["name"])
"""
    done = bobs.run(["sudo", "-n", sys.executable, "-P", "-c", code], check=True)
    assert done.stdout == "0\n  bob\n", done
