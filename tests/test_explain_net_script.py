"""--sh of networks: the script lays the same cables by ip, gives the same addresses and the same rules by nft.

Both are done in one fake host, one after the other: what nsbox made is looked at and removed, then the
script is run, and what it made is looked at in the same way.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import re
from collections.abc import Iterator

import pytest
from fakehost import FakeHost
from procfs import until
from test_explain_script import mounts, partition

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
LINK = ("ifname", "address", "mtu", "operstate", "ifalias", "master", "flags", "qdisc")
ADDRESS = ("local", "prefixlen", "scope", "label", "nodad", "deprecated")
ROUTE = ("dst", "gateway", "dev", "protocol", "scope", "metric", "flags")
CREATES = {
    "on the bridge that comes by itself": ["--net", "bridge"],
    "on a network, with a rootfs": ["--net", "lan", "--ip", "10.9.0.77", "--rootfs", "busybox"],
    "on an internal network": ["--net", "inner"],
    "on the host's network": ["--net", "host"],
}


@pytest.fixture
def host(host: FakeHost) -> Iterator[FakeHost]:
    """A fake host in which nothing runs any more afterwards, and no link of ours is left."""
    yield host
    host.run(["sh", "-c", "kill -9 -1"])
    host.nsbox("rm", "--force", "web", "other")
    host.nsbox("net", "rm", "--force", "lan", "inner", "bridge")
    for name in links_of(host, "1"):
        host.run(["ip", "link", "del", name])
    host.run(["sh", "-c", "nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward; rm -f /run/netns-*"])


def links_of(host: FakeHost, pid: str) -> list[str]:
    rows = json.loads(host.run(["nsenter", "-t", pid, "-n", "ip", "-j", "link"], check=True).stdout)
    return [row["ifname"] for row in rows if row["ifname"].startswith("nsb")]


def network(host: FakeHost, pid: str) -> dict[str, object]:
    """Links, addresses and routes where a process is, without what counts itself."""
    def asked(*words: str) -> list[dict[str, object]]:
        said = host.run(["nsenter", "-t", pid, "-n", "ip", "-j", *words], check=True).stdout
        return json.loads(said or "[]")

    found: dict[str, object] = {}
    for row in asked("-d", "address"):
        about = {key: row.get(key) for key in LINK} | {"kind": row.get("linkinfo", {}).get("info_kind")}
        about["snooping"] = row.get("linkinfo", {}).get("info_data", {}).get("mcast_snooping")
        about["addresses"] = [{key: one.get(key) for key in ADDRESS} for one in row["addr_info"]]
        found[str(row["ifname"])] = about
    for family in ("-4", "-6"):
        found[family] = sorted(str({key: row.get(key) for key in ROUTE}) for row in asked(family, "route"))
    shaped = json.loads(host.run(["nsenter", "-t", pid, "-n", "tc", "-j", "qdisc"]).stdout or "[]")
    found["queues"] = queues = [row for row in shaped if row["kind"] in ("netem", "tbf")]
    for row in queues:
        for word in {"burst", "lat"} & set(row["options"]):
            row["options"][word] //= 16  # the kernel counts in ticks: a little is lost on each way
    return found


def rules(host: FakeHost) -> list[object]:
    rows = json.loads(host.run(["nft", "-j", "list", "ruleset"], check=True).stdout)["nftables"]
    for row in rows:
        for about in row.values():
            about.pop("handle", None)
    return rows[1:]


def whole(host: FakeHost, pid: str) -> dict[str, object]:
    forwards = host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout
    hosts = host.run(["nsenter", "-t", pid, "-m", "cat", "/etc/hosts"]).stdout
    return {"pod": network(host, pid), "host": network(host, "1"), "rules": rules(host), "forwards": forwards,
            "hosts": hosts, "mounts": [_without_home(row) for row in mounts(host, pid)], "partition": partition(host, pid)}


def _without_home(row: str) -> str:
    """A file with names is mounted from where it lies: nsbox's records, or the script's own directory."""
    return row.partition(" [")[0] if row.startswith(("/etc/hosts ", "/etc/resolv.conf ")) else row


def settled(host: FakeHost, pid: str) -> dict[str, object]:
    """When v6 has its link-local addresses, and each end has a carrier."""
    seen = whole(host, pid)
    for _ in until(10, pause=0.3):
        if seen == (seen := whole(host, pid)) and "DOWN" not in str([seen["pod"], seen["host"]]):
            break
    return seen


@pytest.mark.parametrize("how", CREATES)
def test_the_script_makes_the_same_pod_on_the_same_network(host, how):
    """Red when: iproute leaves nodad, proto or the alias out, or Script does not go in before `go`."""
    script = host.scratch / "by-hand.sh"
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    host.nsbox("net", "create", "inner", "--internal", check=True)
    ours = host.nsbox("create", "web", "--sh", script, *CREATES[how], check=True).stdout.strip()
    made = settled(host, ours)
    host.nsbox("rm", "--force", "web", check=True)
    theirs = host.run(["sh", script], check=True, timeout=60).stdout.strip()
    hand = settled(host, theirs)
    for what, seen in made.items():
        assert hand[what] == seen, what
    assert len(str(made["rules"])) > 1000 or how == "on the host's network"


def test_the_script_of_a_cable_ties_the_same_pods(host):
    """Red when: the end of a peer's network is not named, or the burst of a tbf is left out."""
    script = host.scratch / "by-hand.sh"
    one, two = (host.nsbox("create", name, "--rootfs", "busybox", check=True).stdout.strip() for name in ("web", "other"))
    before = network(host, one)
    host.nsbox("net", "link", "web", "other", "--rate", "10m", "--sh", script, check=True)
    made = [network(host, pid) for pid in (one, two)]
    host.nsbox("net", "disconnect", "web", "other", check=True)
    assert network(host, one) == before
    host.run(["sh", script], check=True, timeout=60)
    hand = [network(host, pid) for pid in (one, two)]
    assert hand == made
    assert "10.76.0.1" in str(made) and "tbf" in str(made)


def test_the_script_of_a_network_makes_the_same_bridge(host):
    """Red when: the address of a bridge, which says whose it is, is left out."""
    script = host.scratch / "by-hand.sh"
    host.nsbox("net", "create", "--sh", script, "lan", check=True)
    made = network(host, "1")
    host.nsbox("net", "rm", "lan", check=True)
    host.run(["sh", script], check=True, timeout=60)
    assert network(host, "1") == made and "nsb" in str(made)


def test_published_ports_are_socat_by_hand(host):
    """Red when: listen() notes no purpose, or Aside takes the host's PID for the pod's."""
    script = host.nsbox("create", "web", "-p", "8080:80", "-p", "[::1]:8081:81/udp", "--sh", "-", check=True).stdout
    assert re.search(r"^setsid socat TCP-LISTEN:8080,bind=127.0.0.1,fork,reuseaddr EXEC:\"nsenter --target \$pause --net socat - "
                     r"TCP\\:127.0.0.1\\:80\"", script, re.M)  # fmt: skip
    assert re.search(r"^setsid socat UDP6-LISTEN:8081,bind=\[::1\],fork EXEC:", script, re.M)
    assert host.run(["sh", "-n"], input=script.partition("\n")[2], check=True).returncode == 0
