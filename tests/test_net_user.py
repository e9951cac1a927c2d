"""`--net user`: out by pasta, for an ordinary user and for root, and not to what is the host's own."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import needs_program
from fakehost import FakeHost
from procfs import until
from uplink import FAR, MTU, PORT, uplink

pytestmark = pytest.mark.needs_root
both = pytest.mark.parametrize("world", ["host", "user_host"])

# What a member says of each address: what it heard there, or "-".
ASK = """
import socket, sys
for word in sys.argv[1:]:
    kind, address, port = word.split(",")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.settimeout(1.0 if port == "9009" else 10.0)
    try:
        sock.connect((address, int(port)))
        if kind == "udp":
            sock.send(b"?")
        print(sock.recv(100).decode())
    except OSError:
        print("-")
"""
# Of the host's own: TCP and UDP, on each of its loopback addresses; each packet that comes is told.
SECRET = """
import select, socket
socks = []
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    tcp, udp = socket.socket(family), socket.socket(family, socket.SOCK_DGRAM)
    tcp.bind((address, 9009)); tcp.listen(); udp.bind((address, 9009))
    socks += [tcp, udp]
print("ready", flush=True)
while True:
    for sock in select.select(socks, [], [])[0]:
        if sock.type == socket.SOCK_STREAM:
            connection, peer = sock.accept(); connection.sendall(b"secret"); connection.close()
        else:
            peer = sock.recvfrom(100)[1]; sock.sendto(b"secret", peer)
        print("came", peer, flush=True)
"""


@pytest.fixture
def here(world: str, request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    needs_program("pasta")
    with uplink(request.getfixturevalue(world)) as host:
        yield host


def ask(host: FakeHost, pod: str, *places: str) -> list[str]:
    """What is heard at each place, asked by a member of a pod in the host's tree."""
    return str(host.nsbox("join", pod, "--", sys.executable, "-c", ASK, *places, check=True).stdout).split()


def named(host: FakeHost, *names: str) -> list[int]:
    """The processes in the host's network (PIDs of the real host) whose command name begins so."""
    found = []
    for pid in host.processes().values():
        try:
            here = os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{host.pid}/ns/net")
            with open(f"/proc/{pid}/comm") as file:
                if here and file.read().startswith(names):
                    found.append(pid)
        except OSError:
            continue
    return found


@both
def test_D08_a_pod_reaches_out_and_nothing_of_the_host_s_loopback(here: FakeHost) -> None:
    """Red when: pasta is started without --no-map-gw: the gateway leads to the host's 127.0.0.1 then."""
    secret = here.popen([sys.executable, "-c", SECRET], user=0)
    assert secret.stdout is not None and secret.stdout.readline() == "ready\n"
    assert here.python(ASK, "tcp,127.0.0.1,9009").stdout == "secret\n"  # the spy works
    assert secret.stdout.readline().startswith("came")
    here.nsbox("create", "u", "--net", "user", check=True)
    out = [f"{kind},{address},{PORT}" for kind in ("tcp", "udp") for address in FAR]
    assert any(ask(here, "u", *out) == ["far"] * 4 for _ in until(30))  # a datagram may be lost
    guesses = ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "169.254.1.1",
               "10.0.2.2", "0.0.0.0", "169.254.1.2", "::ffff:127.0.0.1", "127.0.0.53"]  # fmt: skip
    tries = [f"{kind},{address},9009" for kind in ("tcp", "udp") for address in guesses]
    assert ask(here, "u", *tries) == ["-"] * len(tries)
    assert not select.select([secret.stdout], [], [], 0.1)[0], os.read(secret.stdout.fileno(), 1000)
    # No port of the pod is opened on the host.
    listening = here.run(["ss", "-Hltn"], check=True).stdout.splitlines()
    assert len(listening) == 2 and all(":9009" in line for line in listening), listening
    secret.send_signal(signal.SIGKILL)
    secret.communicate()
    here.nsbox("rm", "-f", "u", check=True)


@both
def test_D25_what_a_pod_finds_when_its_pid_1_starts(here: FakeHost) -> None:
    """lo is up, the link has the uplink's MTU, names can be looked up elsewhere; nobody is counted.

    Red when: pasta gets no --mtu, or the pod is let go before it has its route.
    """
    script = "ip link; ip route; cat /etc/resolv.conf /etc/hosts"
    said = here.nsbox("run", "--name", "u", "--net", "user", "--rootfs", "busybox", "--", "sh", "-c", script,
                      check=True).stdout  # fmt: skip
    assert "LOOPBACK,UP" in said and f"mtu {MTU} " in said and "default via 192.0.2.1" in said
    assert "127.0.1.1 u\n" in said and "nameserver 127." not in said
    here.nsbox("create", "u", "--net", "user", "--rootfs", "busybox", check=True)
    [row] = json.loads(here.nsbox("ls", "--json", check=True).stdout)
    [facts] = json.loads(here.nsbox("inspect", "--json", "u", check=True).stdout)
    assert row["members"] == 0 and [one["command"][0] for one in facts["processes"]] == ["pause"]
    assert facts["network"] == "user" and "net" in facts["holds"]
    here.nsbox("rm", "-f", "u", check=True)


@both
def test_what_serves_the_network_ends_with_the_pod_and_the_pod_not_with_it(here: FakeHost) -> None:
    """pod killed: all gone. pasta or its watcher killed: the pod is shown as down, and can be removed.

    Red when: the watcher waits for pasta alone; when pasta does not die with its watcher.
    """
    for victim in ("pod", "pasta", "watcher"):
        pid = here.host_pid(int(here.nsbox("create", "u", "--net", "user", check=True).stdout))
        [watcher], [pasta] = named(here, "nsbox:user"), named(here, "passt", "pasta")
        held = [os.readlink(f"/proc/{watcher}/fd/{fd}") for fd in os.listdir(f"/proc/{watcher}/fd")]
        assert sorted(set(held)) == ["/dev/null", "anon_inode:[pidfd]"], held
        os.kill({"pod": pid, "pasta": pasta, "watcher": watcher}[victim], signal.SIGKILL)
        assert any(not named(here, "nsbox:user", "passt", "pasta") for _ in until(20.0))
        if victim != "pod":
            assert "network: user (down)" in here.nsbox("inspect", "u", check=True).stdout
        here.nsbox("rm", "-f", "u", check=True)


@both
def test_a_create_that_is_killed_half_way_leaves_nothing_that_serves(here: FakeHost) -> None:
    """Red when: the watcher holds what the waiting PID 1 reads from, so that neither ever ends."""
    for wait_s in (0.1, 0.15, 0.2, 0.25, 0.3):
        creating = here.nsbox_popen("create", "u", "--net", "user")
        time.sleep(wait_s)
        creating.send_signal(signal.SIGKILL)
        creating.communicate()
        here.nsbox("rm", "-f", "u", check=True)
        here.nsbox("prune", check=True)
        assert any(not named(here, "nsbox:user", "passt", "pasta") for _ in until(20.0)), wait_s


@both
def test_a_published_port_of_a_pod_that_reaches_out(here: FakeHost) -> None:
    """The proxy serves it as that of any pod; its peer is not 127.0.0.1."""
    here.nsbox("create", "u", "--net", "user", "--rootfs", "busybox", "-p", "8080:80", check=True)
    here.nsbox("join", "-d", "u", "--", "httpd", "-f", "-p", "80", "-h", "/etc", check=True)
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/hosts', timeout=5).read().decode())"
    assert any("127.0.1.1 u" in here.python(code).stdout for _ in until(10))
    here.nsbox("rm", "-f", "u", check=True)


def test_without_a_way_out_or_without_pasta_nothing_is_left(host: FakeHost) -> None:
    """Red when: the failure of pasta is not heard of, or its hint does not name the package."""
    needs_program("pasta")
    done = host.nsbox("create", "u", "--net", "user")
    assert done.returncode == 125 and "cannot start pasta" in done.stderr, done
    assert host.nsbox("ls", "-q").stdout == ""
    host.run(["sh", "-c", ": > /run/no; mount --bind /run/no /usr/bin/pasta"], check=True)
    done = host.nsbox("create", "u", "--net", "user")
    assert done.returncode == 125 and "install the package passt" in done.stderr, done
    host.run(["sh", "-c", "umount /usr/bin/pasta; rm /run/no"], check=True)
    assert host.nsbox("ls", "-q").stdout == ""
