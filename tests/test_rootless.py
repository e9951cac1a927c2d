"""An ordinary user: all but bridges works, touches nothing of root's, is nobody else's."""

import json
import os

import pytest
from fakehost import NSBOX, UID
from manywords import run_each

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]

OTHER = UID + 1


@pytest.fixture
def web(user_host):
    """A host of an ordinary user, who has a pod "web" of busybox from a store of his own."""
    user_host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield user_host
    user_host.nsbox("rm", "--force", "web", check=True)


def pid_of(host, name="web") -> int:
    [pid] = [
        row["pid"]
        for row in json.loads(host.nsbox("ls", "--json", check=True).stdout)
        if row["name"] == name
    ]
    return pid


def namespaces(host, pid: int) -> dict[str, str]:
    real = host.host_pid(pid)
    return {
        kind: os.readlink(f"/proc/{real}/ns/{kind}")
        for kind in ("user", "pid", "uts", "ipc", "mnt", "net", "cgroup")
    }


def test_a_user_namespace_is_added_and_the_host_s_are_untouched(web):
    """Red when: _kinds in create.py does not add "user" without root."""
    mine, hosts = namespaces(web, pid_of(web)), namespaces(web, 1)
    assert {kind for kind in mine if mine[kind] != hosts[kind]} == {
        "user",
        "pid",
        "uts",
        "ipc",
        "mnt",
        "net",
    }
    assert web.nsbox("join", "web", "--", "id", "-u").stdout == "0\n"
    assert web.nsbox("join", "web", "--", "cat", "/proc/self/uid_map").stdout.split() == [
        "0",
        str(UID),
        "1",
    ]
    assert os.stat(f"/proc/{web.host_pid(pid_of(web))}").st_uid == UID


def test_the_whole_life_of_a_pod(web):
    """create, join by name and PID, ls, ps, inspect, logs, wait, stop, rm: as for root."""
    assert web.nsbox("join", "web", "--", "hostname").stdout == "web\n"
    assert web.nsbox("join", str(pid_of(web)), "--", "hostname").stdout == "web\n"
    pid = int(
        web.nsbox("join", "-d", "web", "--", "sh", "-c", "echo said; exit 3", check=True).stdout
    )
    assert web.nsbox("wait", str(pid)).stdout == "3\n"
    assert web.nsbox("logs", "web").stdout == "said\n"
    sleeper = int(web.nsbox("join", "-d", "web", "--", "sleep", "1000", check=True).stdout)
    rows = json.loads(web.nsbox("ps", "--json", "web", check=True).stdout)
    assert [row["pid"] for row in rows] == [pid_of(web), sleeper]
    assert "running" in web.nsbox("ls").stdout and "busybox" in web.nsbox("inspect", "web").stdout
    web.nsbox("kill", "-s", "TERM", "web", check=True)
    assert web.nsbox("wait", str(sleeper)).stdout == "143\n"
    web.nsbox("stop", "web", check=True)
    assert "dead" in web.nsbox("ls").stdout
    assert web.nsbox("join", "web", "--", "true").returncode == 125
    web.nsbox("rm", "web", check=True)
    assert web.nsbox("ls", "-q").stdout == ""


def test_run_and_its_root_file_system(user_host):
    """pivot_root, overlay, /proc, /dev, mqueue, volumes: all of it without root."""
    script = """
        touch /written && echo written; echo x > /proc/sys/kernel/core_pattern || echo refused
        echo x > /dev/null && head -c 3 /dev/zero | od -An -tx1
        ls /dev/mqueue /dev/pts/ptmx; ls /mnt; stat -f -c %T /shm
        cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l; hostname
    """
    (user_host.work / "shared").mkdir()
    (user_host.work / "shared/file").write_text("x")
    os.chown(user_host.work / "shared", UID, UID)
    done = user_host.nsbox(
        "run",
        "--name",
        "r",
        "--rootfs",
        "busybox",
        "-v",
        f"{user_host.work}/shared:/mnt",
        "--tmpfs",
        "/shm",
        "--",
        "sh",
        "-c",
        script,
        check=True,
    )
    assert done.stdout.split("\n")[:3] == ["written", "refused", " 00 00 00"], done
    assert (
        "/dev/pts/ptmx" in done.stdout
        and "file" in done.stdout
        and "tmpfs" in done.stdout
        and "pause" in done.stdout
    )
    assert done.stdout.endswith("\nr\n")
    assert not (user_host.store / "busybox/rootfs/written").exists()
    done = user_host.nsbox(
        "run",
        "--",
        "sh",
        "-c",
        "echo $$ > /proc/self/comm; id -u; test -w /etc/passwd || echo kept",
        check=True,
    )
    assert done.stdout.split() == ["0", "kept"]


def test_members_with_roots_of_their_own(web):
    before = sorted(os.listdir(web.store / "busybox/rootfs"))
    for number in range(2):
        done = web.nsbox(
            "join",
            "web",
            "--rootfs",
            "busybox",
            "--",
            "sh",
            "-c",
            f"touch /m{number}; ls /; readlink /proc/self/ns/net",
        )
        assert done.returncode == 0, done.stderr
        assert f"m{number}" in done.stdout.split() and f"m{1 - number}" not in done.stdout.split()
        assert namespaces(web, pid_of(web))["net"] in done.stdout
    assert sorted(os.listdir(web.store / "busybox/rootfs")) == before
    apart = web.nsbox(
        "join", "web", "--share", "net,ipc,uts", "--", "sh", "-c", "echo $$; hostname", check=True
    )
    assert apart.stdout.split() == ["1", "web"]


def test_exit_statuses_and_a_program_of_one_s_own_as_pid_1(user_host):
    for status, words in (
        (42, ["sh", "-c", "exit 42"]),
        (127, ["nope"]),
        (126, ["/etc"]),
        (137, ["sh", "-c", "kill -9 $$"]),
    ):
        assert user_host.nsbox("run", "--", *words).returncode == status
    user_host.nsbox("create", "own", "--init", "sleep 1000", check=True)
    assert "sleep" in user_host.nsbox("ps", "own").stdout
    user_host.nsbox("rm", "--force", "own", check=True)


def test_A19_another_user_sees_and_joins_nothing(web):
    """By name, by PID, through the state directory: nothing, and not whether it exists.

    Red when: _open_checked_dir opens the directories to all (fchmod 0755) and does not look at
    whose they are.
    """
    pid = str(pid_of(web))
    reachable = {"NSBOX_STATE": str(web.work / "state")}  # no wall above it, as $XDG_RUNTIME_DIR is
    web.nsbox("create", "web", env=reachable, check=True)
    lines = [
        ["ls"],
        ["join", "web", "--", "true"],
        ["inspect", "web"],
        ["rm", "--force", "web"],
        ["stop", "web"],
        ["prune"],
    ]
    absent = [[word.replace("web", "no") for word in words] for words in lines]
    walled = {"XDG_RUNTIME_DIR": str(web.state.parent)}
    for env in (walled, {"NSBOX_STATE": str(web.state)}, reachable, {}):
        said = run_each(web, lines + absent, user=OTHER, env=env)
        for done, missing in zip(said[: len(lines)], said[len(lines) :], strict=True):
            assert done.returncode == 125 and done.stderr == missing.stderr.replace(
                "'no'", "'web'"
            ), done
    lines = [["join", pid, "--", "true"], ["inspect", pid], ["kill", pid], ["ps", pid]]
    for done in run_each(web, lines, user=OTHER, env={"NSBOX_STATE": "/run/lock/other"}):
        assert done.returncode == 125 and done.stderr.startswith("nsbox: cannot "), done
    assert web.run(["ls", str(web.state)], user=OTHER).returncode != 0
    assert web.nsbox("join", "web", "--", "hostname").stdout == "web\n"
    web.run(["rm", "-rf", "/run/lock/other"], user=0, check=True)
    web.nsbox("rm", "web", env=reachable, check=True)


def test_A19_root_and_a_user_have_their_own_pods(web):
    """Red when: root trusts XDG_RUNTIME_DIR, which sudo -E passes on. Also I06, I14."""
    env = {"XDG_RUNTIME_DIR": str(web.state.parent), "NSBOX_STORE": None}
    assert web.nsbox("ls", "-q", user=0, env=env).stdout == ""
    web.nsbox("create", "web", user=0, env=env, check=True)
    assert web.nsbox("ls", "-q", user=0, env=env).stdout == "web\n"
    assert namespaces(web, pid_of(web))["user"] != namespaces(web, 1)["user"]
    web.nsbox("rm", "web", user=0, env=env, check=True)
    assert web.nsbox("ls", "-q").stdout == "web\n"
    # Root may join a user's pod by its PID, as it may everything.
    shared = web.nsbox(
        "join", str(pid_of(web)), "--share", "uts,net", "--", "hostname", user=0, env=env
    )
    assert shared.stdout == "web\n"
    web.run(["rm", "-rf", "/run/nsbox"], user=0, check=True)


def test_the_library_works_for_a_user_too(user_host):
    done = user_host.python(
        """
import nsbox
with nsbox.Pod(rootfs="busybox") as pod:
    print(pod.run(["id", "-u"], capture_output=True, text=True).stdout, len(nsbox.pods()))
print(nsbox.pods())
""",
        check=True,
    )
    assert done.stdout == "0\n 1\n[]\n"


LIMITED = """
import os, sys
from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag
limit, uid, argv = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
ready_r, ready_w = os.pipe()
mapped_r, mapped_w = os.pipe()
pid = os.fork()
if pid == 0:
    syscalls.unshare(CloneFlag.CLONE_NEWUSER)
    os.write(ready_w, b".")
    os.read(mapped_r, 1)
    with open(f"/proc/sys/user/max_{limit}_namespaces", "w") as file:
        file.write("0")
    os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
    os.execv(argv[0], argv)
os.read(ready_r, 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{pid}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(mapped_w, b".")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("limit", ["user", "pid", "net", "mnt"])
def test_a_limit_on_namespaces_is_named_and_nothing_is_left(user_host, limit):
    """The limit holds in a user namespace made for this test, so the machine is untouched.

    Red when: HINTS has no line for (clone3, ENOSPC).
    """
    for words in (["create", "x"], ["run", "--", "true"]):
        uid = UID if limit == "user" else 0  # nsbox adds a user namespace where it is not root
        done = user_host.python(
            LIMITED,
            limit,
            str(uid),
            *NSBOX,
            *words,
            user=0,
            env={"XDG_RUNTIME_DIR": str(user_host.state.parent), "NSBOX_STATE": None},
        )
        assert done.returncode == 125 and done.stdout == "", done
        line, hint = done.stderr.splitlines()
        assert line.startswith("nsbox: cannot create pod ") and line.endswith(
            "clone3: No space left on device"
        ), line
        assert "/proc/sys/user/max_*_namespaces" in hint
    user_host.run(["rm", "-rf", "/run/nsbox"], user=0, check=True)


def test_without_a_runtime_directory_the_hint_says_what_to_set(user_host):
    done = user_host.nsbox("create", "x", env={"XDG_RUNTIME_DIR": None})
    assert (
        done.returncode == 125
        and "XDG_RUNTIME_DIR is not set" in done.stderr
        and "hint: " in done.stderr
    )
    done = user_host.nsbox("create", "x", env={"XDG_RUNTIME_DIR": "relative"})
    assert done.returncode == 125 and "not an absolute path" in done.stderr
    done = user_host.nsbox("create", "x", env={"XDG_RUNTIME_DIR": "/run"})
    assert done.returncode == 125 and "/run/nsbox" in done.stderr
