"""Published ports of real pods: what the proxy may do, and what is left when a command ends half way."""

import json

import neighbours
import pytest
from fakehost import FakeHost
from procfs import until
from test_publish import answers, bound, proxy_of, serve

pytestmark = pytest.mark.needs_root

INTEND = """
import sys
from nsbox.pod import publish, store
from nsbox.ports import Port
bound = publish.bind([Port("tcp", "127.0.0.1", 8080, 80)])
with store.lock("web") as held:
    publish.intend(held.fd, [one.forward for one in bound])
if sys.argv[1:]:
    publish.publish("web", bound)
"""


@pytest.mark.parametrize("rows, net", [("host", "none"), ("host", "bridge"), ("user_host", "none")])
def test_the_proxy_has_no_rights_and_works_without(rows: str, net: str, request: pytest.FixtureRequest) -> None:
    """Red when: publish.py starts it without `confine`, or give_up_all() leaves something."""
    host = request.getfixturevalue(rows)
    host.nsbox("create", "web", "--rootfs", "busybox", "-p", "8080:80", "--net", net, check=True)
    serve(host, "web")
    lines = open(f"/proc/{proxy_of(host)}/status").read().split("\n")
    rights = [line.split() for line in lines if line.startswith(("Cap", "NoNewPrivs"))]
    assert [int(value, 16) for _, value in rights] == [0, 0, 0, 0, 0, 1], rights
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    host.nsbox("publish", "web", "8081:80", "[::1]:8082:80", check=True)  # later, by the same proxy
    assert answers(host, "http://127.0.0.1:8081/passwd", "200")
    assert answers(host, "http://[::1]:8082/passwd", "200")
    host.nsbox("rm", "-f", "web", check=True)
    assert any(not bound(host) for _ in until(5.0))


def test_a_port_that_was_intended_is_listed_as_down_and_the_next_publish_opens_it(host: FakeHost) -> None:
    """So it is where `create` was killed after the pod was ready. Red when: intend() writes nothing."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    serve(host, "web")
    host.python(INTEND, check=True)
    assert host.nsbox("publish", "web", check=True).stdout == "127.0.0.1:8080 -> 80/tcp (down)\n"
    [row] = json.loads(host.nsbox("ls", "--json", check=True).stdout)
    assert (row["status"], row["members"], [port["state"] for port in row["ports"]]) == ("running", 1, ["down"])
    host.nsbox("ls", check=True)
    host.nsbox("inspect", "web", check=True)
    host.nsbox("publish", "web", "8081:80", check=True)
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    assert host.nsbox("publish", "web").stdout == "127.0.0.1:8080 -> 80/tcp\n127.0.0.1:8081 -> 80/tcp\n"
    host.nsbox("rm", "-f", "web", check=True)


def test_a_port_that_was_intended_can_be_unpublished_and_leaves_no_file(host: FakeHost) -> None:
    """Red when: portfile.write() keeps a file without a port and a proxy."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    host.python(INTEND, check=True)
    host.nsbox("unpublish", "web", "8080:80", check=True)
    assert host.nsbox("publish", "web", check=True).stdout == ""
    assert not list(host.state.glob("pods/web/ports.json"))
    host.nsbox("rm", "-f", "web", check=True)


def test_what_was_intended_is_published_by_the_sockets_that_are_bound_already(host: FakeHost) -> None:
    """Red when: publish() binds the rows of the file a second time."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    serve(host, "web")
    host.python(INTEND, "and publish", check=True)
    assert host.nsbox("publish", "web", check=True).stdout == "127.0.0.1:8080 -> 80/tcp\n"
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    host.nsbox("rm", "-f", "web", check=True)


KILLED = """
import os, signal
from nsbox import cli
from nsbox.pod import publish
publish.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cli.main(["create", "web", "--rootfs", "busybox", "-p", "8080:80"])
"""


def test_a_create_that_is_killed_after_the_pod_is_ready_leaves_its_ports_listed(host: FakeHost) -> None:
    """Red when: create() makes the pod ready before its ports are written down."""
    assert host.python(KILLED).returncode in (-9, 137)
    assert host.nsbox("publish", "web", check=True).stdout == "127.0.0.1:8080 -> 80/tcp (down)\n"
    serve(host, "web")
    host.nsbox("publish", "web", ":81", check=True)
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    host.nsbox("rm", "-f", "web", check=True)


@pytest.mark.slow
def test_thousands_of_ports_of_one_pod_are_published_and_listed(host: FakeHost) -> None:
    """Red when: the proxy's list is one packet."""
    host.nsbox("create", "web", check=True)
    for start in range(10000, 50000, 10000):
        host.nsbox("publish", "web", f"{start}-{start + 899}:1000-1899", check=True)
    said = host.nsbox("publish", "web", check=True).stdout.splitlines()
    assert len(said) == 3600 and not [line for line in said if "down" in line]
    [row] = json.loads(host.nsbox("ls", "--json", check=True).stdout)
    assert len(row["ports"]) == 3600
    host.nsbox("unpublish", "web", "10000-10899:1000-1899", "20000-20899:1000-1899", check=True)
    assert len(host.nsbox("publish", "web", check=True).stdout.splitlines()) == 1800
    host.nsbox("rm", "-f", "web", check=True)


@pytest.mark.slow
def test_unpublish_of_a_port_that_is_not_published_touches_no_rule(host: FakeHost) -> None:
    """Nor is more than one of two ports taken for `:80`.

    Red when: undo() drops the rules before all words are found, or by the words.
    """
    for lan in neighbours.lans(host):
        lan.create("web", "--rootfs", "busybox", "--net", "bridge", "-p", "0.0.0.0:8080:80", "-p", "0.0.0.0:8081:80",
                   "--publish-mode", "nat")
        rules = lan.ruleset()
        failed = host.nsbox("unpublish", "web", "0.0.0.0:8080:80", "9:9")
        assert failed.returncode == 125 and "does not publish it" in failed.stderr
        assert lan.ruleset() == rules
        assert host.nsbox("publish", "web").stdout == "0.0.0.0:8080 -> 80/tcp (nat)\n0.0.0.0:8081 -> 80/tcp (nat)\n"
        host.nsbox("unpublish", "web", ":80", check=True)
        assert host.nsbox("publish", "web").stdout == "0.0.0.0:8081 -> 80/tcp (nat)\n"
        lan.rm("web")


@pytest.mark.slow
def test_a_pod_that_is_disconnected_keeps_its_ports(host: FakeHost) -> None:
    """Red when: the proxy gives a pod with a link no address on `lo`."""
    host.nsbox("net", "create", "lan", check=True)
    host.nsbox("create", "web", "--rootfs", "busybox", "--net", "lan", "-p", "8080:80", check=True)
    serve(host, "web")
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    host.nsbox("net", "disconnect", "web", "lan", check=True)
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    host.nsbox("rm", "-f", "web", check=True)
    host.nsbox("net", "rm", "lan", check=True)
