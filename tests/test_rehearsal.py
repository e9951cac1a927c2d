"""A dry run leaves the lists of owners alone, which are in no directory of nsbox's records."""

import faults
import pytest
from fakehost import NSBOX, UID

pytestmark = pytest.mark.needs_root

TOP = "/run/nsbox-owners"


def test_a_dry_run_under_sudo_writes_no_owner_down(host):
    """Red when: stage() leaves owners.TOP what it is."""
    argv = ["env", f"SUDO_UID={UID}", f"SUDO_GID={UID}", *NSBOX, "create", "lab", "--userns", "--rootfs", "busybox"]
    calls = "trace=mkdir,mkdirat,rename,renameat,renameat2"
    status, out, err, log = faults.strace(host, calls, [*argv, "--dry-run"])
    assert status == 0, out + err
    assert f'"{TOP}' not in log and '/owners"' in log, "the rehearsal has a list of its own"
