"""The rules as data: each call has its own, each is fit to print, and what cannot be seen is said to be so."""

import errno
import subprocess

import pytest

from nsbox.errors import CommandError, NsboxError
from nsbox.explain import advice, catalogue
from nsbox.explain.advice import case as cases
from nsbox.explain.advice import identity, machine, making, others
from nsbox.linux import policy, trouble

# What the manual pages list. Not here: what only a mistake of nsbox itself could give (EFAULT, EBADF,
# ENOTDIR, ENAMETOOLONG ...), and what a call says that nsbox does not make (a remount, a move by path).
LISTED = {
    "unshare": "EINVAL ENOMEM ENOSPC EPERM EUSERS",
    "clone3": "EACCES EAGAIN EINVAL ENOMEM ENOSPC EPERM EUSERS ENOSYS",
    "clone": "EAGAIN ENOMEM",
    "setns": "EINVAL ENOMEM EPERM ESRCH",
    "mount": "EINVAL ENODEV ENOMEM EPERM EMFILE",
    "umount2": "EBUSY EINVAL ENOMEM EPERM",
    "pivot_root": "EBUSY EINVAL EPERM",
    "mount_setattr": "EINVAL ENOMEM ENOSPC EPERM ENOSYS",
    "fsopen": "EPERM ENODEV EMFILE ENOMEM ENOSYS",
    "fsconfig": "EPERM EINVAL",
    "fsmount": "EPERM EMFILE ENOMEM",
    "move_mount": "EPERM EINVAL ENOSYS",
    "open_tree": "EPERM EINVAL EMFILE ENOMEM ENOSYS",
    "openat2": "ENOSYS",
    "sethostname": "EINVAL EPERM ENAMETOOLONG",
    "setdomainname": "EINVAL EPERM",
    "vfork": "EAGAIN ENOMEM ENOSYS",
    "listen": "EADDRINUSE",
    "setgroups": "EINVAL ENOMEM EPERM",
    "setresuid": "EINVAL EPERM",
    "setresgid": "EINVAL EPERM",
    "write uid_map": "EINVAL EPERM EACCES",
    "write gid_map": "EINVAL EPERM EACCES",
    "write setgroups": "EPERM EACCES",
    "keyctl": "EDQUOT ENOMEM EPERM ENOSYS",
    "seccomp": "EACCES EINVAL ENOMEM ENOSYS",
    "mknodat": "EPERM ENOSPC EROFS EDQUOT ENOMEM",
    "chroot": "EPERM ENOMEM",
    "execve": "E2BIG EACCES EMFILE ENFILE ENOENT ENOEXEC ENOMEM",
    "execveat": "E2BIG EACCES ENOENT ENOEXEC ENOMEM",
    "pidfd_open": "EMFILE ENFILE ENOMEM ESRCH ENOSYS",
    "pidfd_send_signal": "EPERM ESRCH",
    "kill": "EPERM ESRCH",
    "memfd_create": "EMFILE ENFILE ENOMEM",
    "close_range": "EMFILE ENOMEM ENOSYS",
    "capset": "EPERM",
    "prctl": "EPERM EACCES",
    "setsid": "EPERM",
    "socket": "EACCES EAFNOSUPPORT EMFILE ENFILE ENOMEM",
    "bind": "EACCES EADDRINUSE EADDRNOTAVAIL ENOMEM",
    "ioctl": "ENOTTY EPERM EIO",
    "netlink": "EEXIST ENODEV EOPNOTSUPP EPERM ENOMEM",
}
# Calls whose failure is a mistake of nsbox, or of a kind that any call can have: the rules for any call are theirs.
GENERAL = {"fchdir", "chdir", "symlinkat", "mkdirat", "fchmodat", "fchownat", "openat", "fchmod", "fcntl", "prlimit64",
           "setreuid", "setregid", "setuid", "setgid", "write",
           "rename", "sendmsg", "sendto", "pwrite64"}  # fmt: skip


def test_every_call_that_nsbox_makes_has_its_rules():
    """Red when: a row is added to explain/catalogue.py and none here; a rule of the table is taken out."""
    assert set(catalogue.CALLS) <= set(LISTED) | GENERAL
    lacking = [f"{call} {name}" for call, names in LISTED.items() for name in names.split()
               if not advice.rules_for(call, getattr(errno, name))]  # fmt: skip
    assert not lacking


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EDQUOT", "EROFS", "ENOSYS", "EPERM", "EACCES"])
def test_a_call_without_rules_of_its_own_has_those_of_any(name):
    """Red when: rules_for in advice looks for the call's name alone."""
    for call in GENERAL:
        assert advice.rules_for(call, getattr(errno, name)), call


def test_what_has_no_rule_is_told_so():
    """Red when: lines in advice/text.py prints a title and nothing."""
    from nsbox.explain.advice import text

    case = advice.Case("openat", errno.ELOOP, [])
    assert advice.advice(case) == []
    assert "manual page" in list(text.lines("openat", [], 80))[-1]


@pytest.mark.parametrize("rule", advice.RULES, ids=lambda rule: f"{rule.calls[0]} {rule.says[:30]}")
def test_a_rule_is_fit_to_print_and_its_command_to_type(rule):
    """Red when: a rule gets a sentence with a full stop, no manual page, or words in the place of a command."""
    assert rule.says and rule.says.isprintable() and not rule.says.endswith(".")
    assert all(part.endswith(")") for part in rule.source.split(", "))
    assert all(hasattr(errno, name) for name in rule.errors)
    assert subprocess.run(["sh", "-nc", rule.next], check=False).returncode == 0
    known = {"grep", "findmnt", "ls", "lsns", "cat", "sysctl", "nsbox", "sudo", "unshare", "fuser", "ss", "ip", "df", "free",
             "ulimit", "uname", "file", "tty", "readlink", "nsenter", "dmesg", "ps"}  # fmt: skip
    assert all(part.split()[0] in known for part in rule.next.replace("||", ";").split(";")), rule.next


def case_with(**scene: str) -> cases.Case:
    return cases.Case("unshare", errno.EPERM, [0x1000_0000], scene)


def test_what_cannot_be_seen_is_neither_yes_nor_no():
    """Of a process that is gone and left nothing. Red when: a probe takes what it cannot read for a no."""
    blank = {"euid": "1000"}
    for call, code in (("unshare", errno.EPERM), ("setns", errno.EINVAL), ("pivot_root", errno.EINVAL),
                       ("write gid_map", errno.EPERM)):  # fmt: skip
        found = advice.advice(cases.Case(call, code, [], blank))
        assert not [one.rule for one in found if one.verdict == "applies here"], call
        assert [one.rule for one in found if one.verdict == "cannot be told"], call


def test_a_filter_that_only_the_failed_process_had_is_not_tried_here():
    """Red when: denied_by_filter does not compare how many filters there are."""
    seen = machine.denied_by_filter(case_with(status="Seccomp:\t2\nSeccomp_filters:\t3\n"))
    assert seen.verdict == "cannot be told" and "3" in seen.words


@pytest.mark.parametrize("release, verdict", [("5.2.0-arch", "applies here"), ("5.3.1", "does not apply here"),
                                              ("6.18.44-fc", "does not apply here")])  # fmt: skip
def test_an_old_kernel_is_told_by_its_number(monkeypatch, release, verdict):
    """Red when: old_kernel compares text."""
    monkeypatch.setattr(machine.os, "uname", lambda: type("U", (), {"release": release})())
    assert machine.old_kernel(cases.Case("clone3", errno.ENOSYS, [])).verdict == verdict


@pytest.mark.parametrize("line, verdict", [("12345:   200 200/200 199/200 3000/20000", "applies here"),
                                           ("12345:   5 5/5 5/200 300/20000", "does not apply here"),
                                           ("0:   5 5/5 5/1000000 300/25000000", "cannot be told")])  # fmt: skip
def test_a_quota_of_keys_that_is_used_up(monkeypatch, line, verdict):
    """Red when: _keys in advice/identity.py reads the wrong column."""
    monkeypatch.setattr(policy, "read", lambda path: line if path == "/proc/key-users" else "200")
    found = cases.Case("keyctl", errno.EDQUOT, [], {"euid": "12345"})
    assert identity.RULES and [one.verdict for one in advice.advice(found)] == [verdict]


@pytest.mark.parametrize("missing", [(), ("veth",), ("veth", "bridge")])
def test_a_kind_of_link_that_the_kernel_lacks_is_named(monkeypatch, missing):
    """Red when: _kinds_of_links names what it has tried, whatever came of it."""
    monkeypatch.setattr(others, "_cannot_make", lambda kind: kind in missing)
    [one] = advice.advice(cases.Case("netlink", errno.EOPNOTSUPP, []))
    assert one.verdict == ("applies here" if missing else "does not apply here")
    assert all(kind in one.next for kind in missing)


@pytest.mark.parametrize("switch", ["unprivileged_userns_clone", "apparmor_restrict_unprivileged_userns"])
@pytest.mark.parametrize("root", [False, True])
def test_a_switch_of_the_machine_binds_ordinary_users_alone(monkeypatch, switch, root):
    """Red when: setting in advice/case.py does not look who it was."""
    bad = "1" if "apparmor" in switch else "0"
    monkeypatch.setattr(policy, "read", lambda path: bad if path.endswith(switch) else None)
    scene = {"euid": "0", "uid_map": "0 0 4294967295"} if root else {"euid": "1000"}
    found = advice.advice(case_with(status="Threads:\t1\n", uid_map=scene.pop("uid_map", "1000 1000 1"), gid_map="0 0 9",
                                    egid="0", **scene))
    assert bool([one for one in found if one.verdict == "applies here"]) == (not root)


def test_levels_that_are_outside_of_sight_are_not_denied(monkeypatch):
    """Red when: _deepest in advice/making.py says no in a PID namespace that is not the first."""
    monkeypatch.setattr(policy, "link", lambda name: "pid:[4026532000]")
    deep = cases.Case("unshare", errno.ENOSPC, [0x2000_0000], {"status": "NSpid:\t1 2 3\n"})
    rows = {one.rule: one for one in advice.advice(deep)}
    assert rows[next(rule for rule in rows if "nested" in rule)].verdict == "cannot be told"
    full = cases.Case("unshare", errno.ENOSPC, [0x2000_0000], {"status": "NSpid:\t" + "1 " * 33 + "\n"})
    rows = {one.rule: one for one in advice.advice(full)}
    assert rows[next(rule for rule in rows if "nested" in rule)].verdict == "applies here"


def test_a_look_that_fails_is_one_that_did_not_find_out(monkeypatch):
    """Red when: advice in advice/__init__.py lets an error of a probe out."""
    def broken(_case: cases.Case) -> cases.Seen:
        raise OSError(5, "read: it broke")

    rule = cases.Rule(("netlink",), ("EXDEV",), "says", "page(1)", broken, "ls")
    monkeypatch.setattr(advice, "RULES", (rule,))
    [one] = advice.advice(cases.Case("netlink", errno.EXDEV, []))
    assert one.verdict == "cannot be told" and "it broke" in one.seen


# ---- the hint, and the error on its way ----

def failing(call: str, code: int, *asked: object, hint: str = "", kind=NsboxError):
    err = kind("cannot do it", hint=hint, **({"exit_status": 126} if kind is CommandError else {}))
    err.__cause__ = trouble.failed(call, code, *asked)
    return err


def test_what_a_room_says_itself_stays(monkeypatch):
    """Red when: hint in advice replaces any hint, or adds to that of a command that is not there."""
    assert advice.hint(failing("netlink", errno.EEXIST, hint="its own words")) == "its own words"
    assert advice.hint(failing("execve", errno.ENOENT, kind=CommandError)) == ""
    taken = failing("pidfd_open", errno.ESRCH, hint="its own words")
    assert advice.hint(taken) == "its own words; see: nsbox ls"


def test_an_error_that_names_no_call_is_left_alone():
    """Red when: case_of in advice takes any text with a colon for a call."""
    err = NsboxError("cannot do it", hint="its own words")
    for cause in (OSError(2, "No such file or directory"), OSError(errno.EMFILE, "nonsense: Too many open files"), ValueError("mount: x"), None):
        err.__cause__ = cause
        assert advice.hint(err) == "its own words"


def test_what_was_asked_for_and_what_was_seen_travel_with_the_error():
    """Red when: encode or decode in linux/trouble.py leaves one of them out."""
    err = failing("mount", errno.EPERM, None, "/", b"x", 5)
    there = trouble.decode(trouble.encode(err, {"euid": "7"})).__cause__
    assert trouble.asked_of(there) == [None, "/", "x", 5] and trouble.scene_of(there) == {"euid": "7"}
    again = trouble.decode(trouble.encode(trouble.decode(trouble.encode(err, {"euid": "7"})), {"euid": "8"})).__cause__
    assert trouble.scene_of(again) == {"euid": "7"}  # of who failed, and not of who passed it on


def test_a_report_fits_into_a_pipe(monkeypatch):
    """Whoever reads it may wait for its writer first. Red when: _read_some in linux/trouble.py has no end."""
    monkeypatch.setattr(trouble, "_SCENE", ("status", "mountinfo", "smaps"))
    report = trouble.encode(failing("mount", errno.EPERM), {**trouble.scene(), "x": "y"})
    assert len(report) < 65_536
    assert making.RULES
