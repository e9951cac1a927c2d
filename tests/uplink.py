"""A fake host with a way out: a default route by v4 and v6 to a machine that answers on FAR.

    fake host                         the machine beyond
    up0 192.0.2.2, 2001:db8::2   ---  192.0.2.1, 2001:db8::1; lo has FAR
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fakehost import FakeHost

FAR = ("198.51.100.7", "2001:db8:7::7")
PORT = 7007
MTU = 1400

_BEYOND = """
import os, socket, sys, threading
print(os.getpid(), flush=True)
sys.stdin.readline()
os.system('''ip link set lo up; ip addr add 198.51.100.7/32 dev lo; ip addr add 2001:db8:7::7/128 dev lo nodad
    ip addr add 192.0.2.1/24 dev up1; ip addr add 2001:db8::1/64 dev up1 nodad; ip link set up1 up''')
tcp = socket.create_server(("::", 7007), family=socket.AF_INET6, dualstack_ipv6=True)
def echo(family, address):
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.bind((address, 7007))  # not all: the answer would come from another address
    while True:
        text, peer = udp.recvfrom(100)
        udp.sendto(b"far", peer)
for address in ("198.51.100.7", "2001:db8:7::7"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    threading.Thread(target=echo, args=(family, address), daemon=True).start()
print("ready", flush=True)
while True:
    connection, _ = tcp.accept()
    connection.sendall(b"far")
    connection.close()
"""


@contextmanager
def uplink(host: FakeHost) -> Iterator[FakeHost]:
    """The host with its way out; afterwards it has none again.

    It has a /dev/net/tun of its own, open to all as on an ordinary machine.
    """
    host.run(["sh", "-ec", """
        mkdir /run/.tun; mount -t tmpfs tun /run/.tun; mknod -m 666 /run/.tun/tun c 10 200
        mount --bind /run/.tun/tun /dev/net/tun; umount /run/.tun; rmdir /run/.tun
    """], user=0, check=True)  # fmt: skip
    beyond = host.popen(["unshare", "-n", sys.executable, "-c", _BEYOND], user=0, stdin=-1)
    assert beyond.stdout is not None and beyond.stdin is not None
    pid = beyond.stdout.readline().strip()
    host.run(["sh", "-ec", f"""
        ip link add up0 mtu {MTU} type veth peer name up1 mtu {MTU} netns {pid}
        ip addr add 192.0.2.2/24 dev up0; ip addr add 2001:db8::2/64 dev up0 nodad; ip link set up0 up
        ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1
    """], user=0, check=True)  # fmt: skip
    beyond.stdin.write("\n")
    beyond.stdin.flush()
    assert beyond.stdout.readline() == "ready\n"
    try:
        yield host
    finally:
        host.run(["ip", "link", "del", "up0"], user=0, check=True)
        host.run(["umount", "-l", "/dev/net/tun"], user=0, check=True)
        host.run(["kill", "-9", pid], user=0, check=True)
        beyond.end()
