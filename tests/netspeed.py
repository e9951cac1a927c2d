"""What `scripts/bench net` measures: the ways from the host into a pod, one beside the other.

One server in one pod, reached directly over a veth, and by everything that publishes a port. Each
way is measured once in a round, and the rounds are interleaved. The server and the client are the
same for all; at a mebibyte a call they wait for the kernel, not for Python.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from procfs import TOP, until

MIB = 1 << 20
HOST, POD, SERVED = "10.55.1.1", "10.55.1.2", 5000
OUTER = "192.0.2.1"  # an address of the host that is not loopback, for DNAT
ROUNDS, PINGS, CONNECTIONS, SIZE_MIB = 15, 500, 100, 512
START_S = 10.0
SEARCHED = os.environ.get("PATH", "") + ":/usr/lib/podman"  # no program for people, so not in the PATH
DNAT = f"""
table ip bench {{
    chain out {{
        type nat hook output priority -100;
        ip daddr {OUTER} tcp dport 8004 dnat to {POD}:{SERVED}
    }}
}}
"""


class Way(NamedTuple):
    """One way to the server: by its name, and where a client connects to."""

    name: str
    address: str
    port: int


# ---- the server, in the pod ----

def serve() -> None:
    """One thread a client: the first byte says what it wants."""
    with socket.create_server(("0.0.0.0", SERVED), backlog=256) as listening:
        while True:
            sock, _ = listening.accept()
            threading.Thread(target=answer, args=(sock,), daemon=True).start()


def answer(sock: socket.socket) -> None:
    """"s": take all that comes and count it. "p": give each byte back."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock:
        if sock.recv(1) == b"p":
            while word := sock.recv(1):
                sock.sendall(word)
            return
        buffer, count = bytearray(MIB), 0
        while got := sock.recv_into(buffer):
            count += got
        sock.sendall(count.to_bytes(8, "big"))


# ---- the client, on the host ----

def connect(way: Way, kind: bytes) -> socket.socket:
    sock = socket.create_connection((way.address, way.port), timeout=START_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(kind)
    return sock


def throughput(way: Way, mib: int) -> float:
    """MiB a second, one connection; every byte has arrived."""
    block = bytes(MIB)
    with connect(way, b"s") as sock:
        began = time.perf_counter()
        for _ in range(mib):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        arrived = int.from_bytes(sock.recv(8), "big")
        took_s = time.perf_counter() - began
    if arrived != mib * MIB:
        raise RuntimeError(f"{way.name}: {arrived} of {mib * MIB} bytes arrived")
    return mib / took_s


def round_trip(way: Way, count: int) -> float:
    """Microseconds for one byte there and back, the median of `count`."""
    times = []
    with connect(way, b"p") as sock:
        for _ in range(count):
            began = time.perf_counter()
            sock.sendall(b"x")
            if sock.recv(1) != b"x":
                raise RuntimeError(f"{way.name}: the connection was cut")
            times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)


def first_byte(way: Way, count: int) -> float:
    """Microseconds from connect(2) to the first byte back, the median of `count` connections."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        with connect(way, b"p") as sock:
            sock.sendall(b"x")
            if sock.recv(1) != b"x":
                raise RuntimeError(f"{way.name}: the connection was cut")
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)


# ---- the ways ----

class Ways:
    """Sets the pod, the server and the ways up; `with` ends what was started."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.found: list[Way] = []
        self.left_out: dict[str, str] = {}

    def __enter__(self) -> "Ways":
        with self._stack:
            self._pod()
            self._add("veth, direct", POD, SERVED, lambda: None)
            self._add("nsbox publish", "127.0.0.1", 8001, lambda: nsbox("publish", "web", f"8001:{SERVED}"))
            self._add("docker-proxy", "127.0.0.1", 8002, self._docker_proxy, "docker-proxy")
            self._add("socat", "127.0.0.1", 8003, lambda: self._start(
                "socat", "TCP-LISTEN:8003,bind=127.0.0.1,fork,reuseaddr,nodelay", f"TCP:{POD}:{SERVED},nodelay"),
                "socat")
            self._add("podman rootlessport", "127.0.0.1", 8005, self._rootlessport, "rootlessport")
            self._add("nftables DNAT", OUTER, 8004, self._dnat, "nft")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _pod(self) -> None:
        self._server_pid = pid = nsbox("create", "web")
        self._stack.callback(nsbox, "rm", "--force", "web")
        inside = ["nsenter", "--net", "--target", pid]
        for command in (f"link add bench0 type veth peer name eth0 netns {pid}",
                        f"addr add {HOST}/24 dev bench0", "link set bench0 up", f"addr add {OUTER}/32 dev lo"):
            run("ip", *command.split())
        for command in (f"addr add {POD}/24 dev eth0", "link set eth0 up", f"route add default via {HOST}"):
            run(*inside, "ip", *command.split())
        self._start(*inside, sys.executable, __file__, "serve")

    def _add(self, name: str, address: str, port: int, set_up: Callable[[], object], program: str = "") -> None:
        if program and not shutil.which(program, path=SEARCHED):
            self.left_out[name] = f"{program} is not installed"
            return
        way = Way(name, address, port)
        try:
            set_up()
            for _ in until(START_S, pause=0.02):
                with contextlib.suppress(OSError, RuntimeError):
                    first_byte(way, 1)
                    self.found.append(way)
                    return
            raise RuntimeError(f"nothing answers at {address}:{port}")
        except RuntimeError as err:
            if not program:
                raise
            self.left_out[name] = str(err)

    def _start(self, *argv: str, **options: Any) -> None:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)
        self._stack.callback(child.wait)
        self._stack.callback(child.kill)

    def _docker_proxy(self) -> None:
        """It tells on descriptor 3 whether it listens; nobody reads that here."""
        told = os.open("/dev/null", os.O_WRONLY)
        self._stack.callback(os.close, told)
        self._start(
            "sh", "-c", f'exec "$0" "$@" 3>&{told}', "docker-proxy", "-proto", "tcp", "-host-ip", "127.0.0.1",
            "-host-port", "8002", "-container-ip", POD, "-container-port", str(SERVED), pass_fds=(told,))

    def _rootlessport(self) -> None:
        """It reads what to do on stdin, and ends when the pipe on its descriptor 3 is closed."""
        pid, scratch = self._server_pid, self._stack.enter_context(tempfile.TemporaryDirectory())
        exit_r, exit_w = os.pipe()
        ready_r, ready_w = os.pipe()
        mapping = {"host_ip": "127.0.0.1", "host_port": 8005, "container_port": SERVED, "range": 1, "protocol": "tcp"}
        config = {"Mappings": [mapping], "NetNSPath": f"/proc/{pid}/ns/net", "ExitFD": 3, "ReadyFD": 4,
                  "TmpDir": scratch, "ChildIP": POD, "ContainerID": "bench", "RootlessCNI": False}
        child = subprocess.Popen(
            ["sh", "-c", f'exec "$0" 3<&{exit_r} 4>&{ready_w}', shutil.which("rootlessport", path=SEARCHED) or ""],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(exit_r, ready_w))
        self._stack.callback(child.wait)
        self._stack.callback(os.close, exit_w)
        for fd in (exit_r, ready_w):
            os.close(fd)
        assert child.stdin is not None
        with child.stdin:
            child.stdin.write(json.dumps(config).encode())
        os.read(ready_r, 1)
        os.close(ready_r)

    def _dnat(self) -> None:
        run("nft", "-f", "-", said=DNAT)


def nsbox(*words: str) -> str:
    return run(sys.executable, "-P", "-m", "nsbox", *words).strip()


def run(*argv: str, said: str = "") -> str:
    """What a command prints. Raises RuntimeError with its words."""
    done = subprocess.run(argv, input=said, capture_output=True, text=True, check=False, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(TOP)})
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout


# ---- the measurement ----

MEASURES: dict[str, Callable[[Way, int], float]] = {
    "throughput_mib_s": throughput, "round_trip_us": round_trip, "first_byte_us": first_byte,
}


def measure(quick: bool) -> dict[str, Any]:
    """Rounds of all the ways, each measured in each way; medians and their ratio to the direct one."""
    rounds = 2 if quick else ROUNDS
    counts = {"throughput_mib_s": 16 if quick else SIZE_MIB, "round_trip_us": 20 if quick else PINGS,
              "first_byte_us": 5 if quick else CONNECTIONS}
    with Ways() as ways:
        values: dict[tuple[Way, str], list[float]] = {(way, name): [] for way in ways.found for name in MEASURES}
        for _ in range(rounds):
            for (way, name), found in values.items():
                found.append(MEASURES[name](way, counts[name]))
        rows = [row_of(way, ways.found[0], values) for way in ways.found]
    return {"rounds": rounds, "rows": rows, "left_out": ways.left_out}


def row_of(way: Way, direct: Way, values: dict[tuple[Way, str], list[float]]) -> dict[str, Any]:
    """Medians, and their ratios to those of the direct way."""
    row: dict[str, Any] = {"name": way.name}
    for name in MEASURES:
        row[name] = statistics.median(values[way, name])
        row[f"{name}_to_direct"] = row[name] / statistics.median(values[direct, name])
    return row


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(json.dumps({"net": measure(sys.argv[1:] == ["quick"])}))
