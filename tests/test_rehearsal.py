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


def under_run(host):
    """Every path below the host's /run, with what a write would change."""
    done = host.run(["find", "/run", "-xdev", "-printf", "%p %y %m %U %s %T@\n"], user=0, check=True)
    return sorted(done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("net", ["bridge", "none"])
@pytest.mark.parametrize("owned", ["no directory of the state", "a directory", "a pod of his"])
def test_a_dry_run_under_sudo_writes_nothing_whether_there_is_a_state_or_not(user_host, net, owned):
    """With a network the copy covers the records themselves, also where there are none yet.

    Red when: stage() leaves owners.TOP what it is; or _cover opens a directory of the state that is not there.
    """
    env = {"NSBOX_STATE": None, "XDG_RUNTIME_DIR": None, "SUDO_UID": str(UID), "SUDO_GID": str(UID)}

    def sudo(*words, **kw):
        return user_host.nsbox(*words, user=0, env=env, **kw)

    rootfs = ["--rootfs", str(user_host.store / "busybox/rootfs")]
    if owned == "a directory":
        user_host.run(["mkdir", "-m", "700", "/run/nsbox"], user=0, check=True)
    elif owned == "a pod of his":
        sudo("create", "mine", "--userns", *rootfs, check=True)
    files, before = under_run(user_host), user_host.snapshot()
    done = sudo("create", "lab", "--userns", *rootfs, "--net", net, "--dry-run")
    assert done.returncode == 0 and done.stderr.endswith("nsbox: rehearsed: nothing of it is left\n"), done.stderr
    assert "/owners" in done.stdout or "clone3" in done.stdout
    assert under_run(user_host) == files
    user_host.assert_same_as(before)
    assert user_host.nsbox("ls", "-q", check=True).stdout.split() == (["mine"] if owned == "a pod of his" else [])
    sudo("rm", "-f", "mine")
    sudo("prune", check=True)
    user_host.run(["rm", "-rf", "/run/nsbox"], user=0, check=True)
