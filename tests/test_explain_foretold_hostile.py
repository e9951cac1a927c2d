"""--dry-run of what is done to a pod whose members want the worst, or that comes while it is rehearsed.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import pytest

pytestmark = pytest.mark.needs_root

SYSCTL = "/proc/sys/net/ipv6/conf/all"
MEANWHILE = """
import runpy, subprocess, sys
from nsbox.explain import standins
real = standins.parts
def parts(*args, **kw):
    found = real(*args, **kw)
    subprocess.run([sys.executable, "-P", "-m", "nsbox", "create", "late", "--rootfs", "busybox"], check=True, capture_output=True)
    return found
standins.parts = parts
sys.argv = ["nsbox", "net", "link", "--dry-run", "web", "late"]
runpy.run_module("nsbox", run_name="__main__")
"""


def test_nothing_of_a_pods_own_proc_is_used(host):
    """A privileged member may cover /proc, and lead what is written there to wherever it likes.

    Red when: _change_namespaces() looks at the pod's addresses, or furnishes lo, after it has joined the pod's mounts.
    """
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    host.nsbox("create", "web", "--privileged", check=True)
    canary = host.work / "canary"
    canary.write_text("precious")
    lead = f"mount -t tmpfs none /proc && mkdir -p {SYSCTL} && ln -s {canary} {SYSCTL}/disable_ipv6"
    host.nsbox("join", "web", "--privileged", "--", "sh", "-c", lead, check=True)
    done = host.nsbox("net", "connect", "--dry-run", "web", "lan")
    host.nsbox("rm", "--force", "web", check=True)
    host.nsbox("net", "rm", "lan", check=True)
    assert canary.read_text() == "precious"
    assert done.returncode == 0, done.stderr


def test_a_pod_that_comes_meanwhile_is_not_touched(host):
    """Nobody stands in for it, so it is not to be in the copy.

    Red when: _begin() does not call _refuse_unplayed().
    """
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    done = host.python(MEANWHILE)
    mounts = host.nsbox("join", "late", "--", "cat", "/proc/self/mountinfo", check=True).stdout
    host.nsbox("rm", "--force", "web", "late", check=True)
    assert "/etc/hosts" not in mounts and "/etc/resolv.conf" not in mounts
    assert done.returncode == 125 and "has changed meanwhile" in done.stderr, done.stderr
