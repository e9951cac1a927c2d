"""`nsbox why A B`: for each kind the kernel's ids and a live probe, which must say the same."""

import json
import os
import signal

import pytest
from fakehost import UID
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

KINDS = ("user", "cgroup", "ipc", "uts", "net", "pid", "time", "mnt")


def why(host, a, b, **kw):
    done = host.nsbox("why", "--json", str(a), str(b), check=True, **kw)
    return {row["kind"]: row for row in json.loads(done.stdout)}


def inodes(host, pid):
    real = host.host_pid(pid)
    return {kind: os.stat(f"/proc/{real}/ns/{kind}").st_ino for kind in KINDS}


def start(host, *words, name="sleep", **kw):
    """Start `words`, which end in a long sleep; the PID of that sleep, inside the fake host."""
    before = set(host.processes())
    host.popen([*words, "sleep", "300"], **kw)
    for _ in until(10.0):
        for pid, real in host.processes().items():
            if pid not in before and comm(real) == name:
                return pid
    raise AssertionError(f"no sleep from {words}")


def comm(real):
    try:
        with open(f"/proc/{real}/comm") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def end(host, *pids):
    for pid in pids:
        os.kill(host.host_pid(pid), signal.SIGKILL)


def check(host, a, b, *, pids, undecided=frozenset(), **kw):
    """The answer for two: ids as /proc has them, no probe against them, all decided but `undecided`."""
    before = host.snapshot()
    rows = why(host, a, b, **kw)
    host.assert_same_as(before)
    one, other = (inodes(host, pid) for pid in pids)
    for kind in KINDS:
        row = rows[kind]
        assert (row["relation"] == "same") == (one[kind] == other[kind]), row
        assert row["agree"] is not False, row
        if kind not in undecided:
            assert row["agree"] is True, row
        assert row["reason"] and row["change"], row
    return {kind: row["relation"] or row["proved"] for kind, row in rows.items()}


def make(host, name, *words, **kw):
    return int(host.nsbox("create", name, *words, check=True, **kw).stdout)


def join(host, name, *words, **kw):
    return int(host.nsbox("join", name, "-d", *words, "--", "sleep", "300", check=True, **kw).stdout)


@pytest.fixture
def pods(host):
    """A host on which all pods are removed at the end."""
    yield host
    names = host.nsbox("ls", "-q", check=True).stdout.split()
    if names:
        host.nsbox("rm", "--force", *names, check=True)


def test_two_members_that_share_all(pods):
    """Red when: _net or _ipc in why/probes.py joins one side only."""
    make(pods, "web", "--rootfs", "busybox")
    one, two = join(pods, "web"), join(pods, "web")
    found = check(pods, one, two, pids=(one, two))
    assert set(found.values()) == {"same"}


def test_a_pod_and_its_member(pods):
    """Red when: _pid in why/probes.py takes one direction for both."""
    pause = make(pods, "web", "--rootfs", "busybox")
    member = join(pods, "web")
    found = check(pods, "web", member, pids=(pause, member))
    assert {found[kind] for kind in KINDS} == {"same"}


def test_a_member_with_its_own_pid_namespace_and_root(pods):
    """Red when: _pid in why/probes.py asks with the host's numbers."""
    pause = make(pods, "web", "--rootfs", "busybox")
    member = join(pods, "web", "--rootfs", "busybox", "--share", "net,ipc,uts")
    found = check(pods, "web", member, pids=(pause, member))
    assert (found["pid"], found["mnt"], found["root"]) == ("different", "different", "different")
    assert (found["net"], found["ipc"], found["uts"], found["shm"]) == ("same", "same", "same", "same")


def test_a_member_and_the_host(pods):
    """Red when: _number in why/probes.py does not look for who has that number."""
    make(pods, "web", "--rootfs", "busybox")
    member = join(pods, "web")
    found = check(pods, member, 1, pids=(member, 1))
    assert found["pid"] == "inside" and found["user"] == "same"
    assert {found[kind] for kind in ("net", "ipc", "uts", "mnt", "root", "shm")} == {"different"}
    assert check(pods, 1, member, pids=(1, member))["pid"] == "around"


def test_two_pods_with_one_hostname(pods):
    """Red when: _uts in why/probes.py believes equal names."""
    pids = [make(pods, name, "--rootfs", "busybox", "--hostname", "twin") for name in ("one", "two")]
    found = check(pods, "one", "two", pids=pids)
    assert {found[kind] for kind in ("net", "ipc", "uts", "pid", "mnt", "root", "shm")} == {"different"}


def test_two_pods_with_one_network(pods):
    """Red when: net is taken from the pod's record instead of the kernel."""
    pids = [make(pods, "one", "--rootfs", "busybox"), make(pods, "two", "--rootfs", "busybox", "--net", "pod:one")]
    found = check(pods, "one", "two", pids=pids)
    assert found["net"] == "same" and found["ipc"] == "different"


def test_a_process_and_itself(host):
    """Red when: relation in why/sides.py takes a namespace for one that lies in itself."""
    assert set(check(host, 1, 1, pids=(1, 1)).values()) == {"same"}


def test_a_pod_with_users_of_its_own_and_the_host(pods):
    """Red when: _try_to_enter in why/probes.py does not tell EINVAL from success."""
    pause = make(pods, "web", "--rootfs", "busybox", "--userns")
    found = check(pods, "web", 1, pids=(pause, 1))
    assert (found["user"], found["pid"]) == ("inside", "inside")
    assert "uid 0 out here" in why(pods, "web", 1)["user"]["probe"]


def test_two_pods_with_users_of_their_own(pods):
    """Red when: _try_to_enter in why/probes.py keeps the rights of the caller."""
    pids = [make(pods, name, "--rootfs", "busybox", "--userns") for name in ("one", "two")]
    assert check(pods, "one", "two", pids=pids)["user"] == "different"


def test_user_and_PID_namespaces_in_one_another(host):
    """Red when: relation in why/sides.py looks one level up only."""
    outer = start(host, "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    inner = start(host, "nsenter", "-t", str(outer), "-U", "-p", "--preserve-credentials",
                  "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child",
                  "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")  # fmt: skip
    found = check(host, outer, inner, pids=(outer, inner))
    assert (found["user"], found["pid"]) == ("around", "around")
    assert check(host, inner, outer, pids=(inner, outer))["user"] == "inside"
    end(host, inner, outer)


def test_clocks(host):
    """Red when: _time in why/probes.py reads the clock without a child in the namespace."""
    shifted = start(host, "unshare", "--time", "--boottime", "86400", "--fork", "--kill-child")
    alike = start(host, "unshare", "--time", "--fork", "--kill-child")
    assert check(host, shifted, 1, pids=(shifted, 1))["time"] == "different"
    check(host, alike, 1, pids=(alike, 1), undecided={"time"})
    assert why(host, alike, 1)["time"]["proved"] == ""
    end(host, shifted, alike)


def test_a_cgroup_namespace_with_the_same_root(host):
    """Red when: _cgroup in why/probes.py takes what looks alike for the same."""
    other = start(host, "unshare", "--cgroup")
    check(host, other, 1, pids=(other, 1), undecided={"cgroup"})
    end(host, other)


def test_networks_without_lo(host):
    """Red when: look in _net of why/probes.py does not go on without lo."""
    one = start(host, "unshare", "--net")
    two = start(host, "nsenter", "-t", str(one), "-n")
    assert check(host, one, two, pids=(one, two))["net"] == "same"
    assert "abstract" in why(host, one, two)["net"]["probe"]
    end(host, one, two)


def test_a_chrooted_process_in_the_same_mount_namespace(pods):
    """Red when: go_to_root in why/sides.py does nothing."""
    rootfs = pods.nsbox("rootfs", "ls", "--json", check=True).stdout
    path = json.loads(rootfs)[0]["path"]
    inside = start(pods, "chroot", path, name="sleep")
    found = check(pods, inside, 1, pids=(inside, 1))
    assert (found["mnt"], found["root"]) == ("same", "different")
    end(pods, inside)


def test_an_ordinary_user_and_his_pods(user_host):
    """Red when: enter in why/sides.py does not take the user namespace along."""
    pids = [make(user_host, name, "--rootfs", "busybox") for name in ("one", "two")]
    found = check(user_host, "one", "two", pids=pids)
    assert found["user"] == "different" and found["net"] == "different"
    member = join(user_host, "one")
    assert set(check(user_host, "one", member, pids=(pids[0], member)).values()) == {"same"}
    user_host.nsbox("rm", "--force", "one", "two", check=True)


def test_an_ordinary_users_own_process_has_the_same_root_and_shm(user_host):
    """Although he has no right to go to a root, which is the one that he has.

    Red when: go_to_root in why/sides.py lets the refused chroot(2) be the answer.
    """
    inside = start(user_host)
    assert set(check(user_host, inside, inside, pids=(inside, inside)).values()) == {"same"}
    end(user_host, inside)


def test_somebody_elses_process_is_refused(user_host):
    """Red when: open_side in why/sides.py guesses."""
    own = start(user_host)
    for words in (("1", str(own)), (str(own), "1")):
        done = user_host.nsbox("why", *words)
        assert done.returncode == 125 and done.stdout == "" and "cannot look at process 1: " in done.stderr, done
        assert "try as root" in done.stderr
    end(user_host, own)


def test_what_could_not_be_told_is_not_said_to_be_apart(monkeypatch, capsys):
    """Red when: run in cli/why.py counts whatever is not the same as not shared."""
    from types import SimpleNamespace

    from nsbox.cli import why as verb
    from nsbox.why import sides, verdict

    rows = [verdict.Row("pid", "same", "same", "", True, "", ""), verdict.Row("net", "different", "", "", None, "", ""),
            verdict.Row("shm", "", "", "cannot be tried", None, "", "")]  # fmt: skip
    monkeypatch.setattr(sides, "open_side", lambda word: SimpleNamespace(found=SimpleNamespace(close=lambda: None)))
    monkeypatch.setattr(verdict, "compare", lambda a, b: rows)
    assert verb.run(SimpleNamespace(a="1", b="2", json=False)) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "1 and 2 share: pid", "and do not share: net", "not to be told: shm"]


def test_a_probe_that_disagrees_is_shouted(monkeypatch, capsys):
    """Red when: _print in cli/why.py hides it."""
    from nsbox.cli import why as verb
    from nsbox.why.verdict import Row

    verb._print(Row("net", "same", "different", "a connection was refused", False, "", ""), "a", "b")
    assert "OTHERWISE" in capsys.readouterr().out


def test_what_people_read(pods):
    """Red when: run in cli/why.py prints no summary, or no reason."""
    make(pods, "web", "--rootfs", "busybox")
    said = pods.nsbox("why", "web", "1", check=True).stdout
    assert said.startswith("web and 1 share: user cgroup time\nand do not share: ipc uts net pid mnt root shm\n")
    assert "\npid     nested: that of web lies in that of 1\n        proved:" in said
    assert said.count("because:") == 10 and said.count("change:") == 10
