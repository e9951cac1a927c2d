"""Parts of linux/mounts.py that a pod needs against a host that changes meanwhile: each tried by itself."""

import json
import sys

import pytest
from fakehost import FakeHost

pytestmark = pytest.mark.needs_root

SWAPPED = """
import errno, os, sys
from nsbox.linux import mounts
top = sys.argv[1]
for name in ("a", "b"):
    os.mkdir(f"{top}/{name}")
known = mounts.open_host_path(f"{top}/a")
os.close(mounts.reopen_host_path(f"{top}/a", known))
os.rename(f"{top}/b", f"{top}/spare")
os.rename(f"{top}/a", f"{top}/b")
os.rename(f"{top}/spare", f"{top}/a")
before = len(os.listdir("/proc/self/fd"))
try:
    mounts.reopen_host_path(f"{top}/a", known)
except OSError as err:
    print(errno.errorcode[err.errno], len(os.listdir("/proc/self/fd")) - before)
"""

APART = """
import json, os, sys
from nsbox.linux import mounts
from nsbox.linux.flags import MountAttr
top = sys.argv[1]
for name in ("from", "to"):
    os.mkdir(f"{top}/{name}")
mounts.attach(mounts.new_filesystem("tmpfs", {}, MountAttr(0)), mounts.open_host_path(f"{top}/from"))
os.mkdir(f"{top}/from/below")
cloned = mounts.clone_apart(mounts.open_host_path(f"{top}/from"), recursive=True)
mounts.attach(cloned, mounts.open_host_path(f"{top}/to"))
mounts.attach(mounts.new_filesystem("tmpfs", {}, MountAttr(0)), mounts.open_host_path(f"{top}/to/below"))
with open("/proc/self/mountinfo") as file:
    rows = [line.split() for line in file]
print(json.dumps({row[4].removeprefix(top): [word for word in row[6:row.index("-")]] for row in rows if row[4].startswith(top)}))
"""


def test_a_path_behind_which_something_else_is_now_is_refused(host: FakeHost) -> None:
    """Red when: reopen_host_path does not compare what it opened; or keeps it open."""
    assert host.python(SWAPPED, str(host.work), check=True).stdout.split() == ["ESTALE", "0"]


def test_what_is_mounted_on_a_tree_for_elsewhere_does_not_travel_back(host: FakeHost) -> None:
    """The tree that it is a copy of is shared, as on a systemd machine. Red when: clone_apart sets no propagation."""
    # First private: what is mounted shall not reach the host that the namespace is a copy of.
    done = host.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh",
                     sys.executable, "-c", APART, str(host.work)], check=True)
    found = json.loads(done.stdout)
    assert set(found) == {"/from", "/to", "/to/below"}
    assert found["/from"][0].startswith("shared:") and found["/from"] != found["/to"]
