"""What the tests of networks need: a fake host with bridges, pods plugged into them, and a LAN."""

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from fakehost import FakeHost
from portlab import NET, Lab, Pod, inside, sockets

from nsbox.net import links, rules
from nsbox.net.links import End
from nsbox.net.rules import Guarded, Pin

BRIDGE, BRIDGE_ALIAS = "nsb0000aaaa", "nsbox:net:0000aaaa"
SUBNETS = ("10.77.0.0/16", "fd6e:7362:6f78:1::/64")
GATEWAYS = ("10.77.0.1", "fd6e:7362:6f78:1::1")
SCOPE = "0badcafe"
ETH_ARP, ETH_V4, ETH_V6 = 0x0806, 0x0800, 0x86DD


def v4(number: int) -> str:
    return f"10.77.0.{number}"


def v6(number: int) -> str:
    return f"fd6e:7362:6f78:1::{number:x}"


def mac(number: int) -> str:
    return f"02:00:00:00:77:{number:02x}"


def end(number: int, **changes: Any) -> End:
    """The end of a pod's cable: its addresses end in `number`."""
    return End("eth0", mac(number), (f"{v4(number)}/16", f"{v6(number)}/64"), GATEWAYS, 1500)._replace(**changes)


def port(number: int) -> str:
    return f"nsv0000{number:04x}"


def owner(number: int) -> str:
    return f"nsbox:pod:{number}"


def pin(number: int) -> Pin:
    return Pin(port(number), mac(number), (v4(number), v6(number)))


def guarded(*numbers: int, internal: bool = False) -> Guarded:
    return Guarded(BRIDGE, SUBNETS, internal, tuple(pin(number) for number in numbers))


class NetLab(Lab):
    """A lab whose pods can be plugged into a bridge."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self._made: list[tuple[str, str]] = []

    def __exit__(self, *exc: object) -> None:
        def clean() -> None:
            rules.remove(SCOPE)
            for ifname, alias in self._made:
                links.remove(ifname, alias)
        super().__exit__(*exc)
        self.on_host(clean)

    def on_host(self, body: Callable[[], Any]) -> Any:
        return inside(self.host.pid, body)

    def bridge(self, ifname: str = BRIDGE, alias: str = BRIDGE_ALIAS, addresses: tuple[str, ...] = ()) -> None:
        addresses = addresses or tuple(f"{gateway}/{subnet.partition('/')[2]}"
                                       for gateway, subnet in zip(GATEWAYS, SUBNETS, strict=True))
        self._made.append((ifname, alias))
        self.on_host(lambda: links.make_bridge(ifname, alias, addresses, 1500))

    def plug(self, pod: Pod, number: int, bridge: str = BRIDGE, **changes: Any) -> Pod:
        """Plug a pod in; its addresses end in `number`, and so do its port's name and alias."""
        pidfd = os.pidfd_open(pod.pid)
        try:
            self.on_host(lambda: links.plug(port(number), owner(number), bridge, pidfd,
                                            end(number, **changes)))
        finally:
            os.close(pidfd)
        return pod

    def plugged(self, number: int, **changes: Any) -> Pod:
        return self.plug(self.pod(), number, **changes)

    def guard(self, *networks: Guarded, router: bool = False, **options: Any) -> None:
        self.on_host(lambda: rules.install(SCOPE, rules.render(SCOPE, networks, router=router, **options)))

    def show(self, *words: str, pod: Pod | None = None) -> str:
        """What a command says in the network namespace of a pod, or of the host."""
        return str(inside(pod.pid if pod else self.host.pid, lambda: subprocess.run(
            words, capture_output=True, text=True, check=True).stdout))

    def read(self, path: str, pod: Pod | None = None) -> str:
        """A file under /proc/sys/net, of a pod or of the host."""
        return str(inside(pod.pid if pod else self.host.pid, lambda: open(path).read().strip(), NET))

    def link_names(self, pod: Pod | None = None) -> list[str]:
        found = json.loads(self.show("ip", "-j", "link", pod=pod))
        return sorted(link["ifname"] for link in found)

    def neighbour(self, number: int) -> Pod:
        """Somebody on a LAN of the host, 10.66.N.2, whose way to everywhere is the host, 10.66.N.1."""
        pod = self.pod()
        self.ip(f"link add nsbl{number} type veth peer name eth0 netns {pod.pid}",
                f"addr add 10.66.{number}.1/24 dev nsbl{number}", f"link set nsbl{number} up")
        self.ip(f"addr add 10.66.{number}.2/24 dev eth0", "link set eth0 up",
                f"route add default via 10.66.{number}.1", pid=pod.pid)
        return pod

    def forwarding(self, on: bool) -> None:
        def write() -> None:
            with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
                file.write("1" if on else "0")
        inside(self.host.pid, write, NET)


def reaches(pid: int, address: str, port: int = 80, timeout: float = 0.5) -> bool:
    """Whether a TCP connection can be made from the network namespace of `pid`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    [sock] = sockets(pid, 1, family)
    with sock:
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
        except (TimeoutError, OSError):
            return False
        return True


# ---- frames ----

def packet_socket(pod: Pod) -> socket.socket:
    """A raw socket on eth0 of a pod, to send and to get whole frames."""
    [sock] = sockets(pod.pid, 1, socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind(("eth0", 0x0003))  # ETH_P_ALL
    return sock


def frame(to: str, sender: str, kind: int, body: bytes) -> bytes:
    raw = bytes.fromhex((to + sender).replace(":", ""))
    return raw + struct.pack("!H", kind) + body


def ip4(source: str, to: str, data: bytes) -> bytes:
    """A v4 packet of an experimental protocol (253, RFC 3692)."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 253, 0,
                       socket.inet_aton(source), socket.inet_aton(to))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def ip6(source: str, to: str, data: bytes, protocol: int = 253, hops: int = 64) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(data), protocol, hops) + packed6(source) + packed6(to) + data


def arp(mac_word: str, sender: str, asked: str, operation: int = 2) -> bytes:
    raw = bytes.fromhex(mac_word.replace(":", ""))
    return (struct.pack("!HHBBH", 1, ETH_V4, 6, 4, operation) + raw + socket.inet_aton(sender)
            + bytes(6) + socket.inet_aton(asked))


def icmp6(source: str, to: str, kind: int, body: bytes) -> bytes:
    """An ICMPv6 message with a good checksum, as neighbour discovery wants it."""
    plain = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = packed6(source) + packed6(to) + struct.pack("!II", len(plain), 58)
    return ip6(source, to, struct.pack("!BBH", kind, 0, checksum(pseudo + plain)) + body, 58, 255)


def packed6(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def checksum(raw: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(raw) + 1) // 2}H", raw + bytes(len(raw) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def netlabs(host: FakeHost) -> Iterator[NetLab]:
    """For a fixture."""
    with NetLab(host) as lab:
        yield lab
