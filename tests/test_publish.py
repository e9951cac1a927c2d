"""Publishing ports of real pods: the words, at birth and later, and what happens when things die."""

import json
import os
import signal

import pytest
from fakehost import FakeHost
from procfs import comm, until
from refusals import refusal

from nsbox.ports import Port, parse_publish

WWW = ["httpd", "-f", "-p", "80", "-h", "/etc"]

GOOD = {
    "8080:80": [Port("tcp", "127.0.0.1", 8080, 80)],
    "80": [Port("tcp", "127.0.0.1", 0, 80)],
    ":80": [Port("tcp", "127.0.0.1", 0, 80)],
    "0.0.0.0:5353:53/udp": [Port("udp", "0.0.0.0", 5353, 53)],
    "127.0.0.2::80": [Port("tcp", "127.0.0.2", 0, 80)],
    "[::1]:8080:80/tcp": [Port("tcp", "::1", 8080, 80)],
    "[::0001]:8080:80": [Port("tcp", "::1", 8080, 80)],
    "[FD00:0::A1]::80/udp": [Port("udp", "fd00::a1", 0, 80)],
    "[::FFFF:1.2.3.4]:8080:80": [Port("tcp", "::ffff:1.2.3.4", 8080, 80)],
    "[FE80:0::1%Br-0]:8080:80": [Port("tcp", "fe80::1%Br-0", 8080, 80)],
    "1-2:65534-65535": [Port("tcp", "127.0.0.1", 1, 65534), Port("tcp", "127.0.0.1", 2, 65535)],
}
BAD = ["0", "65536", "-1", "+80", "8_0", "８０", "80:80:80:80", "80/sctp", "", ":", "a", "99999999999999",
       "010.0.0.1:80:80", "[::1]:80:80:80", "1.2.3:80:80", "1.2.3.4:80", "256.0.0.1:80:80", "08:80", " 80:80",
       "[1.2.3.4]:80:80", "[::g]:80:80", "[1::2::3]:80:80", "[fe80::1%]:80:80", "[fe80::1%a%b]:80:80",
       "80:80\n", "1-3:1-2", "9-8:9-8", "1-2000:1-2000", "80:80/", "[]:80:80/x", "::1:80:80"]


@pytest.mark.parametrize("text", GOOD)
def test_H04_a_port_spec_is_understood(text: str) -> None:
    """Red when: an address, a range or the protocol is dropped, or a v6 address is taken as it is spelled."""
    assert parse_publish(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_H04_a_bad_port_spec_is_refused(text: str) -> None:
    """Red when: _NUMBER is \\d+, or fullmatch becomes match."""
    refusal(parse_publish, text)


def fetch(host: FakeHost, url: str) -> str:
    """What answers at `url` in the fake host, or "" where nothing does."""
    code = ("import sys, urllib.request as r\ntry: print(r.urlopen(sys.argv[1], timeout=5).status)\n"
            "except OSError as e: print(getattr(e, 'code', ''))")
    return host.python(code, url).stdout.strip()


def serve(host: FakeHost, pod: str) -> None:
    host.nsbox("join", pod, "-d", "--", *WWW, check=True)


def answers(host: FakeHost, url: str, wanted: str) -> bool:
    return any(fetch(host, url) == wanted for _ in until(10, pause=0.05))


@pytest.mark.parametrize("rows", ["host", "user_host"])
def test_a_port_published_at_birth_answers_for_root_and_for_an_ordinary_user(
    rows: str, request: pytest.FixtureRequest
) -> None:
    """Red when: create does not start the proxy, or the proxy cannot enter the user's namespace."""
    host = request.getfixturevalue(rows)
    done = host.nsbox("create", "web", "--rootfs", "busybox", "-p", "8080:80", "-p", ":81", check=True)
    assert done.stdout.strip().isdigit()
    assert "127.0.0.1:8080 -> 80/tcp" in done.stderr
    serve(host, "web")
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    [row] = json.loads(host.nsbox("ls", "--json").stdout)
    assert row["members"] == 1  # the proxy is none
    host.nsbox("rm", "-f", "web", check=True)
    assert fetch(host, "http://127.0.0.1:8080/") == ""


def test_a_port_is_published_and_unpublished_on_a_running_pod(host: FakeHost) -> None:
    """Red when: unpublish leaves the socket open, or publish lists what it did not do."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    serve(host, "web")
    assert host.nsbox("publish", "web").stdout == ""
    said = host.nsbox("publish", "web", "8080:80", "[::1]:9090:80", check=True).stdout
    assert said == "127.0.0.1:8080 -> 80/tcp\n[::1]:9090 -> 80/tcp\n"
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    assert answers(host, "http://[::1]:9090/passwd", "200")
    host.nsbox("unpublish", "web", "8080:80", check=True)
    assert fetch(host, "http://127.0.0.1:8080/passwd") == ""
    assert host.nsbox("publish", "web").stdout == "[::1]:9090 -> 80/tcp\n"
    host.nsbox("unpublish", "web", "[0::0001]:9090:80", check=True)
    assert host.nsbox("publish", "web").stdout == ""
    again = host.nsbox("unpublish", "web", "8080:80")
    assert (again.returncode, "does not publish it" in again.stderr) == (125, True)
    host.nsbox("rm", "-f", "web", check=True)


def test_D13_a_port_in_use_is_an_error_and_the_first_pod_keeps_it(host: FakeHost) -> None:
    """Red when: create binds after making the pod and does not undo it, or uses SO_REUSEPORT."""
    host.nsbox("create", "one", "--rootfs", "busybox", "-p", "8080:80", check=True)
    serve(host, "one")
    second = host.nsbox("create", "two", "--rootfs", "busybox", "-p", "8080:80")
    assert second.returncode == 125 and second.stdout == ""
    assert "cannot publish 127.0.0.1:8080: bind: Address already in use" in second.stderr
    assert host.nsbox("ls", "-q").stdout == "one\n"
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    host.nsbox("rm", "-f", "one", check=True)


def test_D15_a_killed_proxy_is_shown_and_the_next_publish_mends_it(host: FakeHost) -> None:
    """Red when: published() says open for every row, or publish() starts no new proxy."""
    host.nsbox("create", "web", "--rootfs", "busybox", "-p", "8080:80", check=True)
    serve(host, "web")
    proxy = proxy_of(host)
    os.kill(proxy, signal.SIGKILL)
    assert any(host.nsbox("publish", "web").stdout == "127.0.0.1:8080 -> 80/tcp (down)\n" for _ in until(20.0))
    host.nsbox("publish", "web", ":81", check=True)
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    host.nsbox("rm", "-f", "web", check=True)


def test_D15_the_port_closes_with_the_pod_and_can_be_used_at_once(host: FakeHost) -> None:
    """Red when: the proxy does not watch the pod's pidfd."""
    pid = int(host.nsbox("create", "web", "--rootfs", "busybox", "-p", "8080:80", check=True).stdout)
    os.kill(host.host_pid(pid), signal.SIGKILL)
    assert any(not bound(host) for _ in until(5.0))
    host.nsbox("rm", "web", check=True)
    host.nsbox("create", "web", "--rootfs", "busybox", "-p", "8080:80", check=True)
    host.nsbox("rm", "web", check=True)


def test_kill_and_stop_do_not_take_the_proxy_for_a_member(host: FakeHost) -> None:
    """Red when: inside.processes() does not leave proxies out."""
    host.nsbox("create", "web", "--rootfs", "busybox", "-p", "8080:80", check=True)
    proxy = proxy_of(host)
    none = host.nsbox("kill", "web")
    assert none.returncode == 125 and "no process is there" in none.stderr
    os.kill(proxy, 0)
    host.nsbox("stop", "web", check=True)
    host.nsbox("rm", "web", check=True)


def test_run_publishes_for_as_long_as_its_command(host: FakeHost) -> None:
    """Red when: run ignores -p."""
    script = "httpd -p 80 -h /etc; sleep 100"
    running = host.nsbox_popen("run", "-p", "8080:80", "--rootfs", "busybox", "--", "sh", "-c", script)
    assert answers(host, "http://127.0.0.1:8080/passwd", "200")
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 143
    assert any(not bound(host) for _ in until(5.0))


def proxy_of(host: FakeHost) -> int:
    """The host PID of the one proxy in the fake host."""
    [pid] = [pid for pid in host.processes().values() if comm(pid) == "nsbox:proxy"]
    return pid


def bound(host: FakeHost) -> bool:
    return ":8080" in host.run(["ss", "-Hltn"]).stdout


