"""A small internet around a fake host: two networks, with a neighbour on each who attacks.

    H   the fake host        lan0 192.168.77.1, fd77::1      lan1 192.168.88.1, fd88::1
    L   a neighbour          eth0 192.168.77.2, fd77::2
    L2  one on another net   eth0 192.168.88.2, fd88::2

A neighbour sends what he likes: packets for the loopback addresses of H, and for pods, leave to H
(route_localnet, and no lo of his own). Nowhere is rp_filter on, so that what is blocked is blocked
by nsbox and not by chance. Sockets are made where they are wanted and passed here (portlab.py): a
test is client and server itself, and sees as whom a client comes.
"""

import json
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fakehost import FakeHost, HostPopen, Snapshot
from portlab import NET, Pod, family_of, inside, sockets
from procfs import until

PODS = ("10.77.0.0/16", "10.78.0.0/16", "fd6e:7362:6f78::/48")
PATIENCE_S = 1.0  # no answer within it: dropped. What is let through answers within milliseconds
_BLOCKED = ("No route to host", "Network is unreachable", "Connection timed out")


class Place(NamedTuple):
    """A network namespace: `pid` of a process in it, on the real host, and addresses of its own or ""."""

    pid: int
    v4: str
    v6: str


class Lan:
    """A fake host among neighbours. Use `with`, or the generator :func:`lans` for a fixture.

    Attributes:
        h, near, far: the host, and the neighbours L and L2.
    """

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self._kept: list[socket.socket] = []
        self._commands: list[HostPopen] = []
        self.h = Place(host.pid, "192.168.77.1", "fd77::1")
        self.near = self._neighbour("lan0", 77)
        self.far = self._neighbour("lan1", 88)
        for name in ("all", "default", "lan0", "lan1"):
            self.sysctl(self.h, f"ipv4/conf/{name}/rp_filter", "0")

    def __enter__(self) -> "Lan":
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in self._kept:
            sock.close()
        self.ip(self.h, "link del lan0", "link del lan1")
        for command in self._commands:
            command.send_signal(9)
            command.end()

    def _neighbour(self, link: str, number: int) -> Place:
        command = self.host.popen(["unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"])
        assert command.stdout is not None and command.stdout.readline() == "ready\n", command.communicate()
        self._commands.append(command)
        other = Place(command.inner_pid(), f"192.168.{number}.2", f"fd{number}::2")
        gate4, gate6 = f"192.168.{number}.1", f"fd{number}::1"
        self.ip(self.h, f"link add {link} type veth peer name eth0 netns {other.pid}",
                f"addr add {gate4}/24 dev {link}", f"addr add {gate6}/64 dev {link} nodad", f"link set {link} up")
        for name in ("all", "eth0"):
            self.sysctl(other, f"ipv4/conf/{name}/rp_filter", "0")
            self.sysctl(other, f"ipv4/conf/{name}/route_localnet", "1")
        self.ip(other, f"addr add {other.v4}/24 dev eth0", f"addr add {other.v6}/64 dev eth0 nodad", "link set eth0 up",
                *(f"route add {to} via {gate6 if ':' in to else gate4}"
                  for to in ("127.0.0.0/8", "0.0.0.0/0", "::/0", *PODS)))
        return other

    # ---- things done somewhere ----

    def ip(self, where: Place, *commands: str) -> None:
        """Run `ip COMMAND` there."""
        batch = "".join(f"{command}\n" for command in commands)
        inside(where.pid, lambda: subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True), NET)

    def nft(self, rules: str) -> None:
        """Load nft rules on the host."""
        self.host.run(["nft", "-f", "-"], input=rules, check=True)

    def ruleset(self) -> str:
        """The whole ruleset of the host, as text."""
        return str(self.host.run(["nft", "list", "ruleset"], check=True).stdout)

    def sysctl(self, where: Place, name: str, value: str | None = None) -> str:
        """Read, or set, /proc/sys/net/NAME there."""
        def look() -> str:
            path = Path("/proc/sys/net", name)
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()
        return str(inside(where.pid, look, NET))

    def sysctls(self, where: Place, pattern: str) -> dict[str, str]:
        """All of /proc/sys/net/PATTERN there: interface to value."""
        found: dict[str, str] = inside(where.pid, lambda: {
            path.parent.name: path.read_text().strip() for path in Path("/proc/sys/net").glob(pattern)}, NET)
        return found

    def serve(self, where: Place, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that listens there, until the end of the test."""
        sock = Pod(where.pid).server(address, port, kind)
        self._kept.append(sock)
        return sock

    def udp(self, where: Place, port: int = 0) -> socket.socket:
        """A UDP socket there, bound to its own address and `port`."""
        [sock] = sockets(where.pid, 1, kind=socket.SOCK_DGRAM)
        sock.bind((where.v4, port))
        self._kept.append(sock)
        return sock

    # ---- who reaches whom ----

    def reach(self, where: Place, address: str, *ports: int) -> str:
        """What becomes of TCP connections from there: "open", "refused" or "blocked".

        One word if it is the same for all ports, else "PORT:WORD PORT:WORD ...".
        """
        said = self.scan(where, address, ports)
        words = set(said.values())
        return words.pop() if len(words) == 1 else " ".join(f"{port}:{word}" for port, word in said.items())

    def scan(self, where: Place, address: str, ports: Sequence[int]) -> dict[int, str]:
        """The same, by port. All are tried at once."""
        made = sockets(where.pid, len(ports), family_of(address))
        poll, waiting, said = select.poll(), {}, dict.fromkeys(ports, "blocked")
        for sock, port in zip(made, ports, strict=True):
            sock.setblocking(False)
            if where in (self.near, self.far) and address.startswith("127."):
                sock.bind((where.v4, 0))  # else it would come from 127.0.0.1, and no answer find back
            code = sock.connect_ex((address, port))
            said[port] = _word(code)
            if said[port] == "waiting":
                waiting[sock.fileno()] = (sock, port)
                poll.register(sock, select.POLLOUT)
        for left_s in until(PATIENCE_S, pause=0):
            for fd, _events in poll.poll(left_s * 1000) if waiting else ():
                poll.unregister(fd)
                sock, port = waiting.pop(fd)
                said[port] = _word(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            if not waiting:
                break
        for sock in made:
            sock.close()
        return {port: "blocked" if word == "waiting" else word for port, word in said.items()}

    def connect(self, where: Place, address: str, port: int) -> socket.socket:
        """A TCP connection from there."""
        [sock] = sockets(where.pid, 1, family_of(address))
        sock.settimeout(5.0)
        sock.connect((address, port))
        self._kept.append(sock)
        return sock

    def listening(self, flag: str = "t") -> list[str]:
        """What `ss` says about the host: address and port of each TCP listener, or UDP socket ("u")."""
        lines = self.host.run(["ss", f"-Hln{flag}"], check=True).stdout.splitlines()
        return sorted(line.split()[3] for line in lines)

    # ---- pods ----

    def create(self, name: str, *words: str) -> Place:
        """`nsbox create NAME WORDS` on the host; the pod as a place for the calls here."""
        pid = self.host.host_pid(int(self.host.nsbox("create", name, *words, check=True).stdout))
        return Place(pid, *addresses(pid))

    def rm(self, *names: str) -> None:
        """Remove pods."""
        self.host.nsbox("rm", "-f", *names, check=True)


def _word(code: int) -> str:
    text = os.strerror(code)
    known = {"Success": "open", "Connection refused": "refused", "Operation now in progress": "waiting"}
    return "blocked" if text in _BLOCKED else known.get(text, text)


def addresses(pid: int) -> tuple[str, str]:
    """The first v4 and the first v6 address of global scope that are not on lo, where `pid` is."""
    text = inside(pid, lambda: subprocess.run(["ip", "-j", "addr"], capture_output=True, text=True).stdout, NET)
    found = {"inet": "", "inet6": ""}
    for link in json.loads(text):
        for one in link["addr_info"]:
            if link["ifname"] != "lo" and one["scope"] == "global":
                found[one["family"]] = found[one["family"]] or one["local"]
    return found["inet"], found["inet6"]


def peer(server: socket.socket, patience_s: float = 5.0) -> str:
    """The address as which the next client comes."""
    server.settimeout(patience_s)
    sock, where = server.accept()
    sock.close()
    return str(where[0]).removeprefix("::ffff:")


def lans(host: FakeHost) -> Iterator[Lan]:
    """For a fixture."""
    with Lan(host) as lan:
        yield lan


def settled(host: FakeHost) -> Snapshot:
    """A snapshot when no v6 address is tentative any more: that ends by itself, after a second or two."""
    for _ in until(5.0, pause=0.05):
        if " tentative" not in host.run(["ip", "-6", "-o", "addr"], check=True).stdout:
            return host.snapshot()
    raise AssertionError("an address is tentative for ever")


def all_of(count: int, start: Callable[[int], Any]) -> list[Any]:
    """Start `count` commands at once and wait for them; what they are, ended."""
    running = [start(number) for number in range(count)]
    for command in running:
        command.wait(100)
    return running
