"""`nsbox map` below the matrix: networks with their cables, PIDs at each level, owners."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fakehost import FakeHost
from inpod import detached, pod
from procfs import until
from test_map import picture

pytestmark = pytest.mark.needs_root


def tree(host: FakeHost, part: str, *words: str) -> str:
    return host.nsbox("map", *words, "--only", part, check=True).stdout


def nets(taken: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Networks by the name of the pod that has them; the host's is ""."""
    holder = {one["namespaces"].get("net"): one["pid"] for one in taken["processes"]}
    named = {holder_of["pause"]: holder_of["name"] for holder_of in taken["groups"] if holder_of["what"] == "pod"}
    homes = {one["namespaces"]["net"]: named[one["pid"]] for one in taken["processes"] if one["pid"] in named}
    assert set(homes) <= set(holder)
    return {homes.get(net["id"], ""): net for net in taken["nets"]}


def link(net: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [one for one in net["links"] if one["name"] == name]
    return found


@contextlib.contextmanager
def empty_net(host: FakeHost) -> Iterator[int]:
    """A process in a network namespace of its own; its PID in the fake host."""
    command = host.popen(["unshare", "--net", "sh", "-c", "echo $$; exec sleep 1000"], user=0)
    try:
        yield int(command.stdout.readline())
    finally:
        command.end()


# ---- networks ----

def test_both_ends_of_each_cable_are_known(host):
    """Red when: _connect takes the index for the name of a namespace."""
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    with pod(host, "left", "--net", "lan"), pod(host, "right", "--net", "lan"):
        taken = picture(host)
        found = nets(taken)
        [bridge] = [one for one in found[""]["links"] if one["kind"] == "bridge"]
        ports = [one for one in found[""]["links"] if one["master"] == bridge["index"]]
        assert len(ports) == 2 and bridge["addresses"][0] == "10.9.0.1/24"
        for name in ("left", "right"):
            end = link(found[name], "eth0")
            [port] = [one for one in ports if one["index"] == end["peer"]["index"]]
            assert end["peer"] == {"net": found[""]["id"], "index": port["index"]}
            assert port["peer"] == {"net": found[name]["id"], "index": end["index"]}
            assert end["kind"] == port["kind"] == "veth" and end["addresses"][0].startswith("10.9.0.")
        said = tree(host, "networks")
        assert re.search(r"^[├└]─ nsb\w+ bridge 10\.9\.0\.1/24.*\n[│ ]  [├└]─ nsv\w+ ↔ eth0 of ◆[BC] pod (left|right)$", said, re.MULTILINE)
        assert re.search(r"eth0 10\.9\.0\.\d+/24 .*↔ nsv\w+ of ○A yours", said)
    host.nsbox("net", "rm", "lan", check=True)


def test_cables_with_the_same_numbers_are_not_mixed_up(host):
    """Links 10 and 20 at both ends of two cables: only what a namespace calls the other tells them apart.

    Red when: _connect takes the first of several ends that fit.
    """
    with empty_net(host) as a, empty_net(host) as b, empty_net(host) as c, empty_net(host) as d:
        for near, far in ((a, c), (b, d)):
            host.run(["ip", "link", "add", "name", "near", "index", "10", "netns", str(near), "type", "veth",
                      "peer", "name", "far", "index", "20", "netns", str(far)], user=0, check=True)
        taken = picture(host)
        net_of = {one["pid"]: one["namespaces"]["net"] for one in taken["processes"]}
        links = {net["id"]: net for net in taken["nets"]}
        for near, far in ((a, c), (b, d)):
            assert link(links[net_of[near]], "near")["peer"] == {"net": net_of[far], "index": 20}
            assert link(links[net_of[far]], "far")["peer"] == {"net": net_of[near], "index": 10}


def test_published_ports_lead_to_their_pod(host):
    """Red when: _listener compares the pod's port with the host's."""
    with pod(host, "web", "--rootfs", "busybox", "-p", "8080:80"), \
         detached(host, "web", argv=("httpd", "-f", "-p", "80")) as server:
        for _ in until(20):
            taken = picture(host)
            listens = nets(taken)["web"]["listens"]
            if listens:
                break
        assert [(one["proto"], one["port"], one["pid"]) for one in listens] == [("tcp", 80, server)]
        [published] = taken["published"]
        assert (published["pod"], published["host_port"], published["pod_port"]) == ("web", 8080, 80)
        said = tree(host, "networks")
        assert re.search(r"listens 127\.0\.0\.1:8080/tcp nsbox:proxy → 80 of ■B pod web$", said, re.MULTILINE)
        assert re.search(r"listens 80/tcp httpd$", said, re.MULTILINE)


LISTEN = """
import socket, sys
kept = []
for family, kind, address in ((socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"), (socket.AF_INET6, socket.SOCK_STREAM, "::1"),
                              (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"), (socket.AF_INET6, socket.SOCK_DGRAM, "::")):
    one = socket.socket(family, kind)
    one.bind((address, 7000 + len(kept)))
    if kind == socket.SOCK_STREAM:
        one.listen()
    kept.append(one)
client = socket.create_connection(("127.0.0.1", 7000))
print(*(one.fileno() for one in kept), flush=True)
import time
time.sleep(1000)
"""
ASK = """
import json
from nsbox.net import ask, survey
print(json.dumps([sorted(map(list, ask.listeners())), sorted(map(list, survey.listeners_of_proc()))]))
"""


def test_who_listens_is_what_the_tables_of_proc_say(host):
    """Red when: listeners asks for other states; or _address turns the bytes round."""
    keeper = host.popen([sys.executable, "-c", LISTEN], user=0)
    try:
        assert keeper.stdout.readline(), keeper.communicate()
        quick, slow = json.loads(host.python(ASK, check=True).stdout)
        assert quick == slow
        assert [(proto, address, port) for proto, address, port, _ in quick] == [
            ("tcp", "127.0.0.1", 7000), ("tcp", "::1", 7001), ("udp", "0.0.0.0", 7002), ("udp", "::", 7003)]
        said = tree(host, "networks")
        for where in ("127.0.0.1:7000/tcp", "[::1]:7001/tcp", "7002/udp", "7003/udp"):
            assert f"listens {where} python" in said
    finally:
        keeper.end()


LISTEN_ONCE = """
import socket, sys, time
one = socket.socket(getattr(socket, sys.argv[1]), getattr(socket, sys.argv[2]))
one.bind((sys.argv[3], 7000))
if sys.argv[2] == "SOCK_STREAM":
    one.listen()
print(flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("words, found", [
    (("AF_INET", "SOCK_STREAM", "0.0.0.0"), ("tcp", "0.0.0.0")), (("AF_INET6", "SOCK_STREAM", "::"), ("tcp", "::")),
    (("AF_INET", "SOCK_DGRAM", "0.0.0.0"), ("udp", "0.0.0.0")), (("AF_INET6", "SOCK_DGRAM", "::"), ("udp", "::"))])
def test_who_listens_alone_in_a_network_is_found_by_each_table(host, words, found):
    """Red when: _tables_in_use passes a table over whatever its count is."""
    keeper = host.popen(["unshare", "--net", sys.executable, "-c", LISTEN_ONCE, *words], user=0)
    try:
        assert keeper.stdout.readline(), keeper.communicate()
        taken = picture(host)
        listens = [one for net in taken["nets"] if net["id"] != taken["own"]["net"] for one in net["listens"]]
        assert [(one["proto"], one["address"], one["port"]) for one in listens] == [(*found, 7000)]
    finally:
        keeper.end()


def test_networks_with_nothing_in_them_share_one_line(host):
    """Red when: networks() draws each of a hundred empty pods."""
    with empty_net(host), empty_net(host), empty_net(host):
        said = tree(host, "networks")
        assert "nothing but lo, and nobody listens: ◆B ◆C ◆D" in said
        assert len([line for line in said.splitlines() if line.startswith("net ")]) == 1


def test_an_ordinary_user_looks_into_the_networks_of_their_pods(user_host):
    """Red when: survey_all does not try again from inside the user namespace."""
    with pod(user_host, "web", "-p", "8080:80"):
        taken = picture(user_host)
        found = nets(taken)
        assert found["web"]["problem"] == "" and link(found["web"], "lo")["up"]
        assert found[""]["problem"] == "" and link(found[""], "lo")["up"]
        assert [one["port"] for one in found[""]["listens"]] == [8080]


# ---- PIDs ----

def test_a_process_has_its_number_at_every_level(host):
    """Red when: _numbers shows the first and the last only."""
    nest = ["unshare", "--pid", "--fork", "--kill-child"]
    command = host.popen([*nest, *nest, "sleep", "1000"], user=0)
    try:
        for _ in until(20):
            sleeping = [one for one in picture(host)["processes"] if one["command"] == ["sleep", "1000"]]
            if sleeping:
                break
        [one] = sleeping
        assert len(one["pids"]) == 3 and one["pids"][2] == 1
        said = tree(host, "pids").splitlines()
        [line] = [line for line in said if line.endswith(" = ".join(map(str, one["pids"])) + " sleep")]
        assert line.startswith("   " * 2) and said[1].startswith("pid ○A yours")
    finally:
        command.end()


def test_many_processes_of_one_name_are_one_line(host):
    """Red when: _numbers folds PID 1 away, or three."""
    with pod(host, "web", "--rootfs", "busybox"):
        for _ in range(5):
            host.nsbox("join", "web", "-d", "--", "sleep", "1000", check=True)
        said = tree(host, "pids", "web")
        assert re.search(r"\d+ = \d+ sleep and 4 more$", said, re.MULTILINE) and said.count("sleep") == 1
        assert re.search(r"\d+ = 1 nsbox:pause$", said, re.MULTILINE)


# ---- owners ----

def test_the_owner_tree_shows_who_has_rights_over_what(host):
    """Red when: a namespace hangs below its maker's user namespace instead of its owner."""
    with pod(host, "web"), pod(host, "odd", "--with", "user"):
        said = tree(host, "owners").splitlines()
        assert said[1] == "user ○A yours every uid is itself"
        assert said[2] == "├─ yours pid ○A mnt ○A net ○A uts ○A ipc ○A cgroup ○A time ○A"
        [web] = [line for line in said if "pod web" in line]
        assert re.fullmatch(r"├─ pod web pid ◆\w mnt ◆\w net ◆\w uts ◆\w ipc ◆\w", web)
        start = said.index("└─ user ◆B pod odd made by uid 0 every uid is itself")
        assert re.fullmatch(r"   └─ pod odd pid ◆\w mnt ◆\w net ◆\w uts ◆\w ipc ◆\w", said[start + 1])


@pytest.mark.parametrize("uid_map, words", [
    ([], "no uid is mapped"), ([[0, 1000, 1]], "uid 0 is 1000 outside"), (None, ""),
    ([[0, 1000, 1], [1, 165536, 65535]], "uid 0 is 1000 outside, 1-65535 is 165536-231070 outside"),
    ([[0, 0, 4294967295]], "every uid is itself"),
])  # fmt: skip
def test_a_uid_map_in_words(uid_map, words):
    """Red when: _ids gives the length of a range for its end."""
    from nsbox.show import trees

    assert trees.ids_in_words(uid_map) == words


def test_the_rootless_pod_belongs_to_its_user(user_host):
    """Red when: the uid of the maker is that of the caller, whoever made it."""
    with pod(user_host, "web"):
        said = tree(user_host, "owners", "web")
        assert f"made by uid {user_host.uid}" in said and f"uid 0 is {user_host.uid} outside" in said


def test_parts_are_checked(host):
    done = host.nsbox("map", "--only", "matrix,foo")
    assert done.returncode == 2 and "'foo'" in done.stderr
    assert "Networks" not in tree(host, "matrix") and "user  pid" not in tree(host, "owners")
