"""Machines that forbid user namespaces to ordinary users: nsbox says which rule it is, and how it is changed."""

import platform
import sys
from collections.abc import Iterator

import pytest
from fakehost import NSBOX, UID, FakeHost
from test_doctor import FILTERED, denying

from nsbox.linux import policy, trouble

# The numbers of a call, since libc has no names for them here; clone3's is the same everywhere.
CLONE3 = 435
SETHOSTNAME = {"x86_64": 170, "aarch64": 161}.get(platform.machine(), 0)
needs_kernel = (pytest.mark.needs_root, pytest.mark.needs_ns("user"))


def without(number: int) -> list[str]:
    """Words that start a command which may not use one system call."""
    return [sys.executable, "-I", "-c", FILTERED, denying(number)]


def refusal(host: FakeHost, *argv: str, **kw) -> tuple[str, str]:
    """The line and the hint with which a command refuses."""
    done = host.run(argv, **kw)
    assert done.returncode == 125 and done.stdout == "", done
    line, hint = done.stderr.splitlines()
    return line, hint


@pytest.mark.needs_root
@pytest.mark.needs_ns("user")
@pytest.mark.parametrize("words", [["create", "x"], ["create", "x", "--userns", "keep-id"], ["run", "--", "true"]])
def test_E25_a_filter_that_denies_user_namespaces_is_named(user_host: FakeHost, words: list[str]) -> None:
    """As in a container. Red when: decode in trouble.py does not ask for the machine's rules."""
    line, hint = refusal(user_host, *without(CLONE3), *NSBOX, *words)
    assert line.endswith("clone3: Operation not permitted"), line
    assert hint.startswith("hint: a seccomp filter is on this shell") and "seccomp=unconfined" in hint


@pytest.fixture
def ubuntu(user_host: FakeHost) -> Iterator[list[str]]:
    """Words that start a command as the user where AppArmor takes all rights from his user namespaces away.

    What AppArmor does, a filter does here, and its switch stands in a directory over /proc/sys/kernel.
    """
    assert SETHOSTNAME, "the number of sethostname is not known here"
    script = """
        mount -t tmpfs sysctl /run/lock && mkdir /run/lock/random && cd /proc/sys/kernel
        cp random/boot_id /run/lock/random/ && cp cap_last_cap overflowuid overflowgid /run/lock/
        echo 1 > /run/lock/apparmor_restrict_unprivileged_userns
        mount --bind /run/lock /proc/sys/kernel && exec "$@"
    """
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    yield ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *become, *without(SETHOSTNAME)]


@pytest.mark.needs_root
@pytest.mark.needs_ns("user")
def test_E25_AppArmor_is_named_where_it_refuses_what_comes_after(user_host: FakeHost, ubuntu: list[str]) -> None:
    """The namespace itself is made. Red when: _RULED has no call but clone3."""
    env = {"XDG_RUNTIME_DIR": str(user_host.state.parent), "NSBOX_STATE": None}
    line, hint = refusal(user_host, *ubuntu, *NSBOX, "create", "x", user=0, env=env)
    assert line == "nsbox: cannot create pod 'x': sethostname: Operation not permitted"
    assert hint.startswith("hint: AppArmor lets ordinary users do nothing in a user namespace: ")
    assert "/etc/apparmor.d/nsbox" in hint and "userns," in hint
    assert user_host.nsbox("ls", "-q").stdout == ""


@pytest.mark.needs_root
@pytest.mark.needs_ns("user")
def test_E24_without_a_user_namespace_left_the_limit_is_named(host: FakeHost) -> None:
    """Of root's --userns, too. Red when: make in userns.py does not ask trouble.py."""
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    limited = ["unshare", "-U", "-r", "sh", "-c", script, "sh"]
    line, hint = refusal(host, *limited, *NSBOX, "create", "x", "--userns=0:0:1")
    assert line == "nsbox: cannot make a user namespace: clone3: No space left on device"
    assert "max_user_namespaces = 0" in hint


@pytest.mark.parametrize("call, code, root, said", [
    ("clone3", 1, False, "this machine has"), ("mount", 13, False, "this machine has"),
    ("write gid_map", 1, False, "this machine has"), ("mount", 2, False, ""), ("openat2", 1, False, ""),
    ("mount", 1, True, ""), ("write gid_map", 1, True, "this machine's policy"),
])  # fmt: skip
def test_a_rule_is_named_only_where_it_can_be_the_reason(monkeypatch, tmp_path, call, code, root, said):
    """Red when: advice in trouble.py looks at the error number alone, or at root as at any other."""
    switch = tmp_path / "switch"
    switch.write_text("0\n")
    rule = policy.Rule("this machine has none", "sysctl -w it=1")
    monkeypatch.setattr(policy, "_SETTINGS", ((str(switch), "0", rule),))
    monkeypatch.setattr(trouble, "_is_root", lambda: root)
    hint = trouble.advice(OSError(code, f"{call}: reason"))
    assert hint.startswith(said) and bool(hint) == bool(said), hint
    switch.write_text("1\n")
    assert "this machine has" not in trouble.advice(OSError(code, f"{call}: reason"))


def test_the_program_that_AppArmor_shall_know_is_ours(monkeypatch, tmp_path):
    """By the path that the kernel sees when a link to it is executed, as scripts/setup makes one.

    Red when: against_user_namespaces leaves the braces as they are, or names the link.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nsbox").touch()
    (tmp_path / "link").symlink_to("bin/nsbox")
    monkeypatch.setattr(policy, "read", lambda path: "1" if "apparmor" in path else None)
    for word in ("bin/../bin/nsbox", "link"):
        monkeypatch.setattr(sys, "argv", [f"{tmp_path}/{word}"])
        found = policy.against_user_namespaces()
        real = f"{tmp_path.resolve()}/bin/nsbox"
        assert found is not None and f"profile nsbox {real} flags=(unconfined) {{ userns, }}" in found.mend
