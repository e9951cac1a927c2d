"""Bridges and cables: they carry at once, nothing foreign is touched, a failure leaves nothing."""

import json
import os
import signal
import subprocess
import time

import pytest
from netlab import (BRIDGE, BRIDGE_ALIAS, GATEWAYS, end, mac, netlabs, owner, port, reaches, v4, v6)
from portlab import NET, inside, sockets
from procfs import until

from nsbox.errors import NsboxError, one_line
from nsbox.linux import apart as linux_apart
from nsbox.net import apart, links, shape, tunables
from nsbox.net.links import End
from nsbox.net.shape import Shape

pytestmark = pytest.mark.needs_root


@pytest.fixture
def lab(bare_host):
    yield from netlabs(bare_host)


def failure(body):
    """What the person reads, or "" if it did not fail."""
    try:
        body()
    except NsboxError as err:
        return one_line(err)
    return ""


def plug_failure(lab, pod, number, **changes):
    pidfd = os.pidfd_open(pod.pid)
    try:
        return lab.on_host(lambda: failure(lambda: links.plug(
            port(number), owner(number), BRIDGE, pidfd, end(number, **changes))))
    finally:
        os.close(pidfd)


# ---- what works ----

def test_pods_on_a_bridge_reach_each_other_and_the_host_at_once(lab):
    """Red when: v6 addresses are given without IFA_F_NODAD (a second of "tentative")."""
    lab.bridge()
    one, two = lab.plugged(2), lab.plugged(3)
    with two.server(v4(3), 80), two.server(v6(3), 80):
        assert [reaches(one.pid, address) for address in (v4(3), v6(3))] == [True, True]
        assert [reaches(lab.host.pid, address) for address in (v4(3), v6(3))] == [True, True]


def test_the_end_in_the_pod_is_as_it_was_asked_for(lab):
    lab.bridge()
    pod = lab.plugged(7, mtu=1400)
    [link] = json.loads(lab.show("ip", "-j", "addr", "show", "eth0", pod=pod))
    found = {(one["local"], one["prefixlen"]) for one in link["addr_info"] if one["scope"] == "global"}
    assert (link["address"], link["mtu"], found) == (mac(7), 1400, {(v4(7), 16), (v6(7), 64)})
    for version, gateway in zip(("-4", "-6"), GATEWAYS, strict=True):
        [route] = json.loads(lab.show("ip", "-j", version, "route", "show", "default", pod=pod))
        assert (route["gateway"], route["dev"]) == (gateway, "eth0")


def test_of_two_networks_the_first_has_the_way_out(lab):
    lab.bridge()
    pod = lab.plug(lab.plugged(2), 3, ifname="eth1")
    found = json.loads(lab.show("ip", "-j", "route", "show", "default", pod=pod))
    assert [route["dev"] for route in sorted(found, key=lambda one: one.get("metric", 0))] == ["eth0", "eth1"]


def test_a_bridge_is_made_once_and_removed(lab):
    lab.bridge()
    lab.bridge()
    assert lab.on_host(lambda: (links.alias_of(BRIDGE), links.ours("nsbox:"), links.bridges())) == (
        BRIDGE_ALIAS, {BRIDGE: BRIDGE_ALIAS}, [BRIDGE])
    lab.plugged(2)
    assert lab.on_host(lambda: (links.port_count(BRIDGE), links.ours("nsbox:pod:"))) == (1, {port(2): owner(2)})
    assert lab.on_host(lambda: (links.unplug(port(2), owner(2)), links.unplug(port(2), owner(2)))) == (True, False)
    assert lab.on_host(lambda: (links.remove(BRIDGE, BRIDGE_ALIAS), links.remove(BRIDGE, BRIDGE_ALIAS))) == (
        True, False)
    assert lab.on_host(lambda: (links.alias_of(BRIDGE), links.port_count(BRIDGE))) == (None, 0)


def test_a_pod_with_a_user_namespace_of_its_own_is_plugged_in(lab):
    lab.bridge()
    pod = lab.plug(lab.pod("true", "--user", "--map-root-user"), 2)
    with pod.server(v4(2), 80):
        assert reaches(lab.host.pid, v4(2))


def test_two_pods_are_tied_without_the_host(lab):
    one, two = lab.pod(), lab.pod()
    ends = [End("eth5", "", (f"10.5.0.{number}/30", f"fd05::{number}/64"), (), 1500) for number in (1, 2)]
    fds = [os.pidfd_open(pod.pid) for pod in (one, two)]
    before = lab.link_names()
    lab.on_host(lambda: links.tie(fds[0], ends[0], fds[1], ends[1], "nsbox:tie:1"))
    with two.server("10.5.0.2", 80), two.server("fd05::2", 80):
        assert reaches(one.pid, "10.5.0.2") and reaches(one.pid, "fd05::2")
    assert lab.link_names() == before
    for pod in (one, two):
        assert lab.read("/proc/sys/net/ipv6/conf/eth5/accept_ra", pod) == "0"
    lab.ip("link add mine type veth peer name other", pid=two.pid)
    drop = [(fds[1], alias) for alias in ("", "nsbox:tie:2", "nsbox:tie:1", "nsbox:tie:1")]
    assert lab.on_host(lambda: [links.drop_inside(fd, alias) for fd, alias in drop]) == [False, False, True, False]
    assert lab.link_names(one) == ["lo"]
    assert "mine" in lab.link_names(two)
    for fd in fds:
        os.close(fd)


def test_a_host_without_v6_has_networks_of_v4(lab):
    """Red when: give_addresses() knows no EACCES of disable_ipv6."""
    off = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"  # for links that are made from now on
    lab.host.run(["sh", "-c", off], check=True)
    lab.bridge()
    pod = lab.plug(lab.pod(off), 2)
    with pod.server(v4(2), 80):
        assert reaches(lab.host.pid, v4(2))


def test_what_the_host_is_connected_to(lab):
    lab.neighbour(1)
    lab.ip("route add 10.99.0.0/16 via 10.66.1.2", "route add blackhole 10.98.0.0/16",
           "route add default via 10.66.1.2", "link set nsbl1 mtu 1380")
    found = lab.on_host(lambda: (links.routes(), links.uplink_mtu()))
    assert ({"10.66.1.0/24", "10.98.0.0/16", "10.99.0.0/16"} <= set(found[0]), found[1]) == (True, 1380)
    assert not [word for word in found[0] if word.endswith(("/0", "/32"))]
    lab.ip("route del default", "route del blackhole 10.98.0.0/16")
    assert lab.on_host(links.uplink_mtu) == 1500


# ---- what must not happen ----

def test_D11_nobody_on_a_bridge_believes_a_router_advertisement(lab):
    """Red when: refuse_advertisements() is not called for one of the three."""
    lab.bridge()
    pod = lab.plugged(2)
    where = [(BRIDGE, None), (port(2), None), ("eth0", pod)]
    assert [lab.read(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", pod) for name, pod in where] == ["0"] * 3


@pytest.mark.parametrize("alias", ["", "somebody", "nsbox:net:other"])
def test_D23_a_foreign_link_of_our_name_is_never_touched(lab, alias):
    """Red when: make_bridge() takes what is there, or remove() does not look at the alias."""
    lab.bridge()
    other = "nsb0000bbbb"
    for name, kind in ((other, "bridge"), (port(2), "veth peer name nsbp")):
        lab.ip(f"link add {name} type {kind}", *([f"link set {name} alias {alias}"] if alias else []))
    before = lab.show("ip", "addr")
    said = lab.on_host(lambda: failure(lambda: links.make_bridge(other, BRIDGE_ALIAS, ("10.1.0.1/24",), 1500)))
    assert said == f"the link {other} belongs to somebody else"
    assert plug_failure(lab, lab.pod(), 2) == f"the link {port(2)} belongs to somebody else"
    assert lab.on_host(lambda: (links.remove(other, BRIDGE_ALIAS), links.unplug(port(2), owner(2)))) == (False, False)
    assert lab.show("ip", "addr") == before
    lab.ip(f"link del {other}", f"link del {port(2)}")


def test_a_link_whose_maker_was_killed_before_it_had_its_alias_is_still_ours(lab):
    """Red when: the MAC address is not made from the alias."""
    lab.bridge()
    lab.plugged(2)
    lab.host.run(["sh", "-c", f"ip link set {BRIDGE} alias ''; ip link set {port(2)} alias ''"], check=True)
    assert lab.on_host(lambda: (links.alias_of(BRIDGE), links.alias_of(port(2)))) == ("", "")
    lab.bridge()
    assert lab.on_host(lambda: (links.alias_of(BRIDGE), links.unplug(port(2), owner(2)))) == (BRIDGE_ALIAS, True)


def test_D22_the_name_of_a_pod_that_is_being_taken_apart_is_waited_for(lab):
    """Red when: _lay() gives up at the first EEXIST."""
    lab.bridge()
    old = lab.plugged(2)
    [keeper] = sockets(old.pid)  # the namespace lives as long as a socket of it
    old.kill()
    new = lab.pod()
    told, tell = os.pipe()
    child = os.fork()  # it has the socket too
    if child == 0:
        os.read(told, 1)
        time.sleep(0.5)
        os._exit(0)
    keeper.close()
    assert port(2) in lab.link_names()
    os.write(tell, b"!")
    lab.plug(new, 2)
    os.waitpid(child, 0)
    os.close(told)
    os.close(tell)
    assert lab.link_names(new) == ["eth0", "lo"]


@pytest.mark.parametrize("trouble, said", [
    ("name", "the pod has a link eth0 already"),
    ("address", "cannot plug eth0 into"),
    ("gateway", "cannot plug eth0 into"),
])
def test_a_plug_that_fails_leaves_nothing(lab, trouble, said):
    """Red when: plug() does not delete what it has laid."""
    lab.bridge()
    pod = lab.pod()
    if trouble == "name":
        lab.ip("link add eth0 type veth peer name eth9", pid=pod.pid)
    changes = {"address": {"addresses": ("10.77.0.300/16",)}, "gateway": {"gateways": ("192.0.2.1",)}}.get(trouble, {})
    before = lab.link_names(), lab.link_names(pod)
    assert said in plug_failure(lab, pod, 2, **changes)
    assert (lab.link_names(), lab.link_names(pod)) == before


def test_no_bridge_and_no_process_are_errors(lab):
    pod = lab.pod()
    assert plug_failure(lab, pod, 2) == f"there is no bridge {BRIDGE}"
    lab.bridge()
    pidfd = os.pidfd_open(pod.pid)
    pod.kill()
    for _ in until(5.0):
        said = lab.on_host(lambda: failure(lambda: links.plug(
            port(2), owner(2), BRIDGE, pidfd, end(2))))
        if said:
            break
    os.close(pidfd)
    assert said.startswith("cannot enter the network of the pod: setns")
    assert lab.link_names() == ["lo", BRIDGE]


@pytest.mark.slow
def test_D24_a_full_bridge_is_said_in_words(lab):
    """Red when: _to_bridge() knows no EXFULL."""
    lab.bridge()
    full = lab.pod()
    lines = "".join(f"link add f{number} master {BRIDGE} type veth peer name g{number} netns {full.pid}\n"
                    for number in range(1023))
    inside(lab.host.pid, lambda: subprocess.run(["ip", "-batch", "-"], input=lines.encode(), check=True), NET)
    assert lab.on_host(lambda: links.port_count(BRIDGE)) == links.PORTS_MAX
    before = lab.link_names()
    assert plug_failure(lab, lab.pod(), 2) == "bridge is full: 1023 ports"
    assert lab.link_names() == before
    full.kill()  # the kernel removes the links of a namespace in one go
    for _ in until(10.0):
        if len(lab.link_names()) == 2:
            break


# ---- the child that does it ----

def disturbed(times):
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

    left = [times]

    def dump():
        yield "a"
        left[0] -= 1
        if left[0] >= 0:
            raise NetlinkDumpInterrupted()
        yield "b"
    return dump


def test_D26_a_dump_that_was_disturbed_is_done_again_and_never_taken_for_whole():
    """Red when: dumped() returns what it has."""
    assert apart.dumped(disturbed(3)) == ["a", "b"]
    with pytest.raises(NsboxError, match="changes all the time"):
        apart.dumped(disturbed(1000))


def test_D28_a_kernel_that_does_not_answer_is_an_error(monkeypatch):
    """Red when: run() waits without a deadline."""
    monkeypatch.setattr(linux_apart, "DEADLINE_S", 0.3)
    monkeypatch.setattr(linux_apart, "_GRACE_S", 0.2)
    start = time.monotonic()
    with pytest.raises(NsboxError, match="cannot wait: the kernel did not answer"):
        apart.run("wait", lambda: time.sleep(60))
    assert time.monotonic() - start < 5


def test_a_signal_does_not_stop_the_work_half_way(tmp_path):
    """Red when: the child has not all signals blocked, or is not waited for."""
    class Stop(BaseException):
        pass

    def stop(*args):
        raise Stop

    def work():
        for pid in (os.getpid(), tested):  # as Ctrl-C comes to all of a terminal
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        (tmp_path / "done").touch()

    tested, before = os.getpid(), signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stop):
            apart.run("work", work)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "done").exists()


def test_what_goes_wrong_in_the_child_is_told(lab):
    def broken():
        raise ValueError("no such thing")
    assert failure(lambda: apart.run("do it", broken)) == "cannot do it: ValueError: no such thing"
    assert failure(lambda: apart.run("do it", lambda: os.stat("/nowhere"))) == (
        "cannot do it: No such file or directory")


# ---- tunables, shapes ----

def test_forwarding_is_switched_and_put_back(lab):
    def body():
        before = tunables.forwarding()
        tunables.set_forwarding(True)
        on = tunables.forwarding()
        tunables.set_forwarding(False)
        return before, on, tunables.forwarding()
    assert inside(lab.host.pid, body) == (False, True, False)


def test_a_cable_has_a_rate_and_loses_it_again(lab):
    lab.bridge()
    pod = lab.plugged(2)
    pidfd = os.pidfd_open(pod.pid)
    for bits, shown in ((10_000_000, "rate 10Mbit"), (20_000_000, "rate 20Mbit"), (0, "noqueue")):
        lab.on_host(lambda bits=bits: shape.apply("eth0", Shape(0, 0, bits), pidfd))
        assert shown in lab.show("tc", "qdisc", "show", "dev", "eth0", pod=pod)
    os.close(pidfd)
    lab.on_host(lambda: shape.apply(port(2), Shape(0, 0, 1_000_000)))
    assert "rate 1Mbit" in lab.show("tc", "qdisc", "show", "dev", port(2))


def test_a_delay_works_or_the_missing_module_is_named(lab):
    lab.bridge()
    said = lab.on_host(lambda: failure(lambda: shape.apply(BRIDGE, Shape(10, 1.5, 1_000_000))))
    if not said:
        assert "delay 10ms" in lab.show("tc", "qdisc", "show", "dev", BRIDGE)
    else:
        assert said.endswith("no queueing discipline netem: it needs the module sch_netem")


@pytest.mark.parametrize("bad", [Shape(-1, 0, 0), Shape(0, 101, 0), Shape(0, 0, 7), Shape(float("nan"), 0, 0)])
def test_a_shape_that_is_none_is_refused(bad):
    with pytest.raises(NsboxError):
        shape.apply("lo", bad)
