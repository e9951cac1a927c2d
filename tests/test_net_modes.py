"""`create --net`: the words, and the networks that a pod shares: the host's, another pod's, a named one."""

import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from fakehost import FakeHost
from procfs import until
from refusals import refusal

from nsbox import parse, spec
from nsbox.pod import record as records

GOOD = {
    "none": "none", "bridge": "bridge", "host": "host", "user": "user", "lab": "lab", "pod:web": "pod:web",
    "ns:blue": "ns:/run/netns/blue", "ns:/run/netns/blue": "ns:/run/netns/blue", "ns://a//b": "ns:/a/b",
}
BAD = ["", ":", "pod:", "ns:", "pod:../x", "pod:7", "ns:..", "ns:.", "ns:a/b", "container:web", "Lab", "a b", "7",
       "host\n", "ns:/a\0b", "pod:a:b", "../x", "-x"]


@pytest.mark.parametrize("word", GOOD)
def test_a_network_is_understood(word: str) -> None:
    assert parse.parse_net(word) == GOOD[word]
    assert spec.net_fault(GOOD[word]) == ""


@pytest.mark.parametrize("word", BAD)
def test_a_bad_network_is_refused(word: str) -> None:
    """Red when: net_fault takes whatever stands before a colon."""
    refusal(parse.parse_net, word)


@pytest.mark.parametrize("word", ["", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4/24", "::1", "a", "1.2.3.4\n",
                                  "１.2.3.4"])  # fmt: skip
def test_a_bad_address_is_refused(word: str) -> None:
    refusal(parse.parse_ip, word)
    assert parse.parse_ip("10.77.0.9") == "10.77.0.9"


def test_a_spec_with_a_network_is_checked_again_when_read_back() -> None:
    pod = spec.PodSpec("web", "web", spec.RootSpec(""), net="pod:a", ip="10.77.0.9")
    data = spec.pod_spec_to_dict(pod)
    assert spec.pod_spec_from_dict(data) == pod
    for change in ({"net": "x:y"}, {"net": 1}, {"ip": "a"}, {"ip": None}):
        refusal(spec.pod_spec_from_dict, data | change)


def test_a_record_without_a_network_is_one_of_a_pod_without() -> None:
    """Red when: pod_from_dict demands the key, and the pods of an older nsbox are corrupt."""
    pod = records.PodRecord("0" * 16, "a", "intent", records.Identity("b", 2, 3), None, 0.0, "a", net="user")
    data = json.loads(json.dumps(records.pod_to_dict(pod)))
    assert records.pod_from_dict(data).net == "user"
    del data["net"]
    assert records.pod_from_dict(data).net == "none"


def made(host: FakeHost, name: str, *words: str) -> int:
    """A pod of busybox; the host PID, on the real host, of its PID 1."""
    done = host.nsbox("create", name, "--rootfs", "busybox", *words, check=True)
    return host.host_pid(int(done.stdout))


def net_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def inside(host: FakeHost, pod: str, *words: str) -> str:
    return str(host.nsbox("join", pod, "--", *words, check=True).stdout)


def rows(host: FakeHost) -> dict[str, int]:
    return {row["name"]: row["members"] for row in json.loads(host.nsbox("ls", "--json", check=True).stdout)}


def commands(host: FakeHost, pod: str) -> list[str]:
    return [row["command"][0] for row in json.loads(host.nsbox("ps", "--json", pod, check=True).stdout)]


both = pytest.mark.parametrize("world", ["host", "user_host"])


@pytest.fixture
def here(world: str, request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    yield request.getfixturevalue(world)


LISTEN = """
import socket, sys, time
sock = socket.socket(socket.AF_UNIX); sock.bind("\\0of-the-host"); sock.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@both
def test_D10_a_pod_in_the_host_s_network_is_warned_of_and_changes_nothing(here: FakeHost) -> None:
    """Its abstract sockets are the host's; nsbox itself has none there. lo is left as it is; /sys shows links.

    Red when: _pid_one brings lo up whatever the mode, or the rootless /sys is not bound, or not read-only.
    """
    here.run(["ip", "link", "set", "lo", "down"], user=0, check=True)
    listening = here.popen([sys.executable, "-c", LISTEN], user=0, stdin=-1)
    assert listening.stdout is not None and listening.stdout.readline() == "ready\n"
    done = here.nsbox("create", "h", "--net", "host", "--rootfs", "busybox", check=True)
    assert "warning" in done.stderr and "abstract sockets" in done.stderr
    pid = here.host_pid(int(done.stdout))
    assert net_of(pid) == net_of(here.pid)
    assert "@of-the-host" in inside(here, "h", "cat", "/proc/net/unix")
    assert "@nsbox" not in here.run(["cat", "/proc/net/unix"], user=0).stdout
    assert "UP" not in here.run(["ip", "-o", "link", "show", "lo"]).stdout.split("<")[1].split(">")[0].split(",")
    here.run(["ip", "link", "set", "lo", "up"], user=0, check=True)
    links = here.run(["ls", "/sys/class/net"], check=True).stdout
    assert inside(here, "h", "ls", "/sys/class/net") == links
    below = [line.split() for line in inside(here, "h", "cat", "/proc/mounts").splitlines()]
    below = [words for words in below if words[1] == "/sys" or words[1].startswith("/sys/")]
    assert below and all("ro" in words[3].split(",") for words in below), below
    own = here.nsbox("join", "h", "--rootfs", "busybox", "--", "ls", "/sys/class/net", check=True).stdout
    assert "lo" in own.split()
    [facts] = json.loads(here.nsbox("inspect", "--json", "h", check=True).stdout)
    assert "net" not in facts["holds"] and facts["network"] == "host"
    assert commands(here, "h") == ["pause"] and rows(here) == {"h": 0}
    here.nsbox("rm", "-f", "h", check=True)
    listening.communicate("")


@both
def test_ports_of_a_shared_network_are_not_published(here: FakeHost) -> None:
    """Wrong use: the proxy would give an address to a network that is not the pod's."""
    made(here, "a")
    for net in ("host", "pod:a", "ns:/proc/1/ns/net"):
        done = here.nsbox("create", "x", "--net", net, "-p", "8080:80")
        assert (done.returncode, done.stdout) == (2, "") and "cannot publish" in done.stderr
    made(here, "h", "--net", "host")
    late = here.nsbox("publish", "h", "8080:80")
    assert late.returncode == 2 and "cannot publish" in late.stderr
    here.nsbox("rm", "-f", "a", "h", check=True)


@both
def test_a_pod_shares_the_network_of_another_and_neither_is_counted_for_the_other(here: FakeHost) -> None:
    """Red when: inside.py tells members by the network alone, so that rm of one ends the other's."""
    a, b = made(here, "a"), made(here, "b", "--net", "pod:a")
    assert net_of(a) == net_of(b) and os.readlink(f"/proc/{a}/ns/ipc") != os.readlink(f"/proc/{b}/ns/ipc")
    c = made(here, "c", "--net", "pod:b")
    assert net_of(a) == net_of(c)
    for pod, command in (("a", "1001"), ("b", "1002"), ("b", "1003")):
        here.nsbox("join", "-d", pod, "--", "sleep", command, check=True)
    here.nsbox("join", "-d", "a", "--share", "net", "--", "sleep", "1004", check=True)
    assert rows(here) == {"a": 2, "b": 2, "c": 0}
    assert commands(here, "b") == ["pause", "sleep", "sleep"] and commands(here, "c") == ["pause"]
    assert commands(here, "a") == ["pause", "sleep", "sleep"]
    for signum in ("TERM", "KILL"):
        here.nsbox("kill", "-s", signum, "a", check=True)
    assert rows(here)["b"] == 2
    here.nsbox("rm", "-f", "a", check=True)
    assert rows(here) == {"b": 2, "c": 0}
    assert "LOOPBACK,UP" in inside(here, "b", "ip", "link")
    here.nsbox("stop", "-t", "0", "b", check=True)
    assert rows(here)["c"] == 0 and commands(here, "c") == ["pause"]
    here.nsbox("rm", "-f", "b", "c", check=True)


@both
def test_a_pod_that_cannot_be_shared_with_is_said_and_nothing_is_left(here: FakeHost) -> None:
    pid = made(here, "a")
    made(here, "h", "--net", "host")
    os.kill(pid, signal.SIGKILL)
    assert any("dead" in here.nsbox("ls").stdout for _ in until(5))
    for net, said in (("pod:nope", "cannot find pod 'nope'"), ("pod:a", "it is dead"), ("pod:h", "it is the host's"),
                      ("pod:x", "cannot find pod 'x'")):  # fmt: skip
        done = here.nsbox("create", "x", "--net", net)
        assert done.returncode == 125 and said in done.stderr, done
    assert rows(here) == {"a": 0, "h": 0}
    here.nsbox("rm", "-f", "a", "h", check=True)


@pytest.fixture
def blue(host: FakeHost) -> Iterator[FakeHost]:
    """A host with a network namespace that `ip netns` calls blue."""
    host.run(["ip", "netns", "add", "blue"], check=True)
    yield host
    host.run(["ip", "netns", "del", "blue"], check=True)
    host.run(["umount", "/run/netns"], check=True)
    host.run(["rmdir", "/run/netns"], check=True)


@pytest.mark.parametrize("word", ["ns:blue", "ns:/run/netns/blue"])
def test_a_pod_in_a_named_namespace_leaves_it_as_it_is(blue: FakeHost, word: str) -> None:
    """Red when: lo is brought up in a network that is not the pod's own."""
    blue.run(["ip", "-n", "blue", "link", "add", "mark", "type", "veth", "peer", "name", "mark2"], check=True)
    before = blue.run(["ip", "-n", "blue", "addr"], check=True).stdout
    made(blue, "a", "--net", word)
    assert "mark" in inside(blue, "a", "ls", "/sys/class/net").split()
    assert blue.nsbox("publish", "a", "8080:80").returncode == 2
    assert rows(blue) == {"a": 0}
    blue.nsbox("rm", "-f", "a", check=True)
    assert blue.run(["ip", "-n", "blue", "addr"], check=True).stdout == before


def test_what_is_no_network_namespace_is_refused(host: FakeHost) -> None:
    """Red when: the path goes to setns(2) unlooked at, or a FIFO is waited for."""
    os.mkfifo(host.work / "fifo")
    (host.work / "link").symlink_to("/proc/1/ns/uts")
    for path, said in (("/etc/passwd", "no network namespace"), ("/proc/self/ns/mnt", "no network namespace"),
                       (f"{host.work}/fifo", "no network namespace"), (f"{host.work}/link", "no network namespace"),
                       ("/dev/null", "no network namespace"), ("/nope", "No such file"),
                       ("/etc", "no network namespace"),
                       ("/proc/self/ns/net", "the host's own")):  # fmt: skip
        done = host.nsbox("create", "x", "--net", f"ns:{path}", timeout=10)
        assert done.returncode == 125 and said in done.stderr, done
    assert rows(host) == {}


def test_an_ordinary_user_enters_what_is_his_and_is_told_what_is_not(user_host: FakeHost) -> None:
    """Red when: NS_GET_USERNS is not asked, so that the kernel's EPERM comes from the middle of the work."""
    pid = made(user_host, "a")
    inner = next(number for number, real in user_host.processes().items() if real == pid)
    b = made(user_host, "b", "--net", f"ns:/proc/{inner}/ns/net")
    assert net_of(b) == net_of(pid) and os.readlink(f"/proc/{b}/ns/user") == os.readlink(f"/proc/{pid}/ns/user")
    assert inside(user_host, "b", "id", "-u") == "0\n" and rows(user_host) == {"a": 0, "b": 0}
    other = user_host.popen(["unshare", "-n", "sh", "-c", "echo $$; exec sleep 1000"], user=0)
    assert other.stdout is not None
    root_s = other.stdout.readline().strip()
    user_host.run(["sh", "-c", f": > /run/red; mount --bind /proc/{root_s}/ns/net /run/red"], user=0, check=True)
    done = user_host.nsbox("create", "x", "--net", "ns:/run/red")
    assert done.returncode == 125 and "belongs to somebody else" in done.stderr and "needs root" in done.stderr, done
    done = user_host.nsbox("create", "x", "--net", "bridge")
    assert done.returncode == 125 and "needs root" in done.stderr and "--net user" in done.stderr
    user_host.run(["sh", "-c", "umount /run/red; rm /run/red"], user=0, check=True)
    other.end()
    user_host.run(["sh", "-c", f"kill {root_s} 2>/dev/null; true"], user=0)
    user_host.nsbox("rm", "-f", "a", "b", check=True)


def test_an_address_belongs_to_a_network(host: FakeHost) -> None:
    for net in ("none", "host", "user"):
        done = host.nsbox("create", "x", "--net", net, "--ip", "10.77.0.9")
        assert done.returncode == 2 and "without a network" in done.stderr


def test_the_library_takes_the_same_words(host: FakeHost) -> None:
    code = """
import nsbox, urllib.request
with nsbox.Pod("a", publish=["8080:80"]) as a, nsbox.Pod("b", net="pod:a") as b:
    print(a.inspect()["network"], b.inspect()["network"], len(b.processes()))
    print(nsbox.join("a", ["readlink", "/proc/self/ns/net"], capture_output=True).stdout
          == nsbox.join("b", ["readlink", "/proc/self/ns/net"], capture_output=True).stdout)
for words in ({"net": "x:y"}, {"net": "host", "publish": ["80:80"]}, {"ip": "a"}):
    try:
        nsbox.Pod("c", **words)
    except nsbox.SpecError as err:
        print(err)
print(nsbox.pods())
"""
    lines = host.python(code, check=True).stdout.splitlines()
    assert lines[:2] == ["none pod:a 1", "True"] and len(lines) == 6 and lines[-1] == "[]", lines


def test_a_pod_that_shares_a_bridged_network_and_a_port_published_there(host: FakeHost) -> None:
    """The proxy serves a pod with a link as any other; who shares its network is reached by it too."""
    made(host, "a", "--net", "bridge", "-p", "8080:80")
    made(host, "b", "--net", "pod:a")
    host.nsbox("join", "-d", "b", "--", "httpd", "-f", "-p", "80", "-h", "/etc", check=True)
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/hosts', timeout=5).read().decode())"
    assert any("10.77.0.2 a" in host.python(code).stdout for _ in until(10))
    assert "10.77.0.2 a" in inside(host, "b", "cat", "/etc/hosts")
    host.nsbox("rm", "-f", "a", "b", check=True)
