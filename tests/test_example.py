"""The example that nsbox exists for, small: real nginx before a server in real node, in one pod.

With the root file systems of the recipes, and Ghost in the place of the small server: test_ghost.py.
"""

import json
import socket
from collections.abc import Iterator

import pytest
from conftest import needs_program
from fakehost import FakeHost
from procfs import TOP, until

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
CONF = TOP / "rootfs/nginx/nginx.conf"
# It says who called it, and whom that one says it has been called by.
SERVER = """
const http = require("http");
const { execFileSync } = require("child_process");

function answer(request, response) {
    const said = {
        server: "node",
        pid: process.pid,
        peer: request.socket.remoteAddress,
        client: request.headers["x-real-ip"],
        path: request.url,
    };
    if (request.url === "/orphan") {
        const script = "(sleep 0.2 >/dev/null 2>&1 & echo $!)";
        said.orphan = Number(execFileSync("sh", ["-c", script]));
    }
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(said));
}

http.createServer(answer).listen(2368, "127.0.0.1");
"""
SERVE = ("--", "node", "-e", SERVER)
NGINX = ("--", "nginx")


@pytest.fixture(params=["root", "user"])
def any_host(request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    """A fake host of root's, and one of an ordinary user's."""
    for name in ("nginx", "node", "curl"):
        needs_program(name)
    yield request.getfixturevalue("host" if request.param == "root" else "user_host")


def create(host: FakeHost, *words: str) -> int:
    """A pod with the host's tree, a /tmp of its own and the example's nginx.conf; the PID of its PID 1."""
    made = host.nsbox("create", "blog", "-p", "8080:80", "--tmpfs", "/tmp",
                      "-v", f"{CONF}:/etc/nginx/nginx.conf:ro", *words, check=True)
    return int(made.stdout)


def join(host: FakeHost, *words: str) -> int:
    return int(host.nsbox("join", "blog", "-d", *words, check=True).stdout)


def get(host: FakeHost, path: str = "/") -> dict[str, object]:
    """What node says, by way of nginx; waits until both are up."""
    for _ in until(30, pause=0.1):
        done = host.run(["curl", "-fsS", "--max-time", "5", f"http://localhost:8080{path}"])
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
    raise AssertionError(f"{done.stderr}\n{host.nsbox('ls').stdout}")


def rows(host: FakeHost) -> list[dict[str, object]]:
    return list(json.loads(host.nsbox("ps", "blog", "--json", check=True).stdout))


def states(host: FakeHost, pod_pid: object) -> list[object]:
    return [row["state"] for row in rows(host) if row["pod_pid"] == pod_pid]


def ns(host: FakeHost, pid: int, kind: str) -> str:
    return host.run(["readlink", f"/proc/{pid}/ns/{kind}"], user=0, check=True).stdout


def test_nginx_and_node_in_one_pod(any_host):
    """Red when: members join no pid namespace; or the proxy connects from 127.0.0.1."""
    pause = create(any_host)
    node, nginx = join(any_host, *SERVE), join(any_host, *NGINX)
    said = get(any_host, "/some/path")
    assert (said["server"], said["path"]) == ("node", "/some/path")
    assert said["peer"] == "127.0.0.1"  # nginx is a neighbour: they share the network
    socket.inet_aton(str(said["client"]))
    assert not str(said["client"]).startswith("127."), "the published port's clients look like loopback: row D09"
    found = rows(any_host)
    assert (found[0]["pod_pid"], found[0]["pid"], found[0]["command"]) == (1, pause, ["pause"])
    commands = {row["pid"]: " ".join(row["command"]) for row in found}  # type: ignore[arg-type]
    assert commands[node].startswith("node -e") and commands[nginx].startswith("nginx: master")
    for kind in ("pid", "ipc", "net", "uts"):
        assert len({ns(any_host, pid, kind) for pid in (pause, node, nginx)}) == 1, kind
    any_host.nsbox("rm", "--force", "blog", check=True)
    assert any_host.run(["curl", "-s", "http://localhost:8080/"]).returncode == 7


def test_the_same_with_pid_not_shared(any_host):
    """Red when: plan() in target.py shares pid whatever is asked."""
    create(any_host)
    node = join(any_host, "--share", "net,ipc,uts", *SERVE)
    nginx = join(any_host, "--share", "net,ipc,uts", *NGINX)
    assert get(any_host)["pid"] == 1
    assert ns(any_host, node, "net") == ns(any_host, nginx, "net")
    assert ns(any_host, node, "pid") != ns(any_host, nginx, "pid")
    any_host.nsbox("rm", "--force", "blog", check=True)


def test_the_pause_reaps_the_orphans_of_node(any_host):
    """Red when: the pause does not wait for its children."""
    create(any_host)
    join(any_host, *SERVE)
    join(any_host, *NGINX)
    orphan = get(any_host, "/orphan")["orphan"]
    assert orphan
    for _ in until(5):
        if not states(any_host, orphan):
            break
    assert not states(any_host, orphan)
    assert not [row for row in rows(any_host) if row["state"] == "Z"]
    any_host.nsbox("rm", "--force", "blog", check=True)


def test_node_as_pid_1_leaves_its_orphans_zombies(any_host):
    """Red when: --init starts the program under the pause."""
    script = any_host.work / "server.js"
    script.write_text(SERVER)
    script.chmod(0o644)
    create(any_host, "-v", f"{any_host.work}:/mnt:ro", "--init", "node /mnt/server.js")
    join(any_host, *NGINX)
    said = get(any_host, "/orphan")
    assert said["pid"] == 1
    for _ in until(5):
        if states(any_host, said["orphan"]) == ["Z"]:
            break
    assert states(any_host, said["orphan"]) == ["Z"]
    get(any_host)
    assert states(any_host, said["orphan"]) == ["Z"], "somebody reaped it after all"
    any_host.nsbox("rm", "--force", "blog", check=True)
