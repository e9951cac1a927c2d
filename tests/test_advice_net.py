"""Why the kernel refused a message of netlink: each is refused for real, and the reason is tied to the message."""

import json

import pytest
from fakehost import NSBOX, FakeHost

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

REFUSED = """
import json, sys
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from nsbox.explain import advice
from nsbox.linux import apart

with IPRoute() as ipr:
    try:
        match sys.argv[1]:
            case "EEXIST":
                ipr.link("add", ifname="lo", kind="bridge")
            case "EOPNOTSUPP":
                ipr.link("add", ifname="new", kind="nosuchkind")
            case "ENODEV":
                ipr.link("set", index=4711, state="up")
            case "EPERM":
                ipr.link("add", ifname="new", kind="bridge")
    except NetlinkError as err:
        failure = OSError(apart.code_of(err), apart.reason(err))
        print(json.dumps([one._asdict() for one in advice.advice(advice.case_of(failure))]))
"""
SAYS = {
    "EEXIST": ("something of that name or address is there already", "cannot be told"),
    # Those that nsbox makes can be made here, so it must have been another kind: as it was.
    "EOPNOTSUPP": ("the kernel has no such kind of link", "does not apply here"),
    "ENODEV": ("the link, or the namespace that it was for, is gone by now", "cannot be told"),
    "EPERM": ("changing a network needs CAP_NET_ADMIN in the user namespace that owns it", "applies here"),
}
WITHOUT_RIGHT = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]


@pytest.mark.parametrize("name", SAYS)
def test_what_the_kernel_refuses_has_a_reason(host: FakeHost, name: str) -> None:
    """Red when: the row of netlink for the errno is taken out of advice/others.py, or its look says the opposite."""
    before = WITHOUT_RIGHT if name == "EPERM" else []
    done = host.run([*before, NSBOX[0], "-c", REFUSED, name], check=True)
    found = {one["rule"]: one["verdict"] for one in json.loads(done.stdout)}
    rule, verdict = SAYS[name]
    assert found.pop(rule) == verdict
    assert "applies here" not in found.values(), found


def test_the_reason_is_tied_to_the_message(host: FakeHost) -> None:
    """By its number with --explain, and in its event. Red when: told_of looks for a call of the name netlink."""
    host.nsbox("net", "create", "lan", check=True)
    host.nsbox("create", "web", check=True)
    events = host.work / "events"
    done = host.run([*WITHOUT_RIGHT, *NSBOX, "net", "connect", "web", "lan", "--explain", "--events", events])
    assert done.returncode == 125 and "netlink: Operation not permitted" in done.stderr
    [failed] = [one for one in map(json.loads, events.read_text().splitlines()) if one["error"] == "EPERM"]
    assert failed["call"] == "sendto"
    assert [one["rule"] for one in failed["advice"] if one["verdict"] == "applies here"] == [SAYS["EPERM"][0]]
    assert f"call {failed['number']}, sendto(" in done.stderr
    host.nsbox("rm", "-f", "web", check=True)
    host.nsbox("net", "rm", "lan", check=True)
