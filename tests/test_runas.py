"""-u USER[:GROUP]: what may be written, and that a member is exactly who was named (rows A21, A12).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json

import pytest
from fakehost import NSBOX
from inpod import detached, inside, refused
from procfs import until
from ptyclient import Terminal

from nsbox import errors, runas, spec

NUMBERS = ["0", "1", "10", "65534", "4294967294", "007", "0000000001"]
NAMES = ["root", "app", "_apt", "www-data", "systemd-network", "a.b", "Host$", "x" * 255]
REFUSED = [
    "4294967295", "4294967296", "4294967297", "18446744073709551616", "99999999999", "00000000001", "-1", "+1", "1_0",
    "１", "١", "²", " 1", "1 ", "1\n", "\t1", "0x0", "0o7", "1e3", "1.0", "10a", "1:", ":1", ":", "", "1:2:3", "app:",
    "app:-1", "app:4294967295", "app: 1", "-app", "a b", "a/b", "..", ".", "$", "a\0b", "é", "аpp", "x" * 257, "%u",
]  # fmt: skip
ID = 'cd /proc/self; for k in Uid Gid Groups CapEff CapPrm CapAmb; do grep "^$k:" status; done'


# ---- what may be written ----

@pytest.mark.parametrize("word", NUMBERS)
def test_A21_digits_are_a_number(word):
    """Red when: parse_user looks at more than the digits, as for a leading zero."""
    assert runas.parse_user(word) == runas.User(int(word))
    assert runas.parse_user(f"{word}:{word}") == runas.User(int(word), int(word))


@pytest.mark.parametrize("word", NAMES)
def test_A21_what_is_not_all_digits_is_a_name(word):
    """Red when: a name has to be lower case, or is cut."""
    assert runas.parse_user(word) == runas.User(word)
    assert runas.parse_user(f"{word}:{word}") == runas.User(word, word)
    assert runas.parse_user(f"{word}:7") == runas.User(word, 7)


@pytest.mark.parametrize("word", REFUSED)
def test_A21_a_user_that_is_neither_is_refused(word):
    """Red when: _part_fault asks int() whether it is a number, or lets every other word be a name."""
    with pytest.raises(errors.SpecError) as caught:
        runas.parse_user(word)
    assert errors.one_line(caught.value).isprintable()
    plain = {**spec.member_spec_to_dict(spec.MemberSpec((b"x",))), "user": word}
    if word:  # of a spec that is nobody in particular
        with pytest.raises(errors.SpecError):
            spec.member_spec_from_dict(plain)


# ---- who a member is ----

@pytest.fixture
def root(rootfs):
    """A root file system with users whose names and lines are traps."""
    (rootfs / "etc/passwd").write_text(
        "# a comment\n\nshort:x:5\nroot:x:0:0:root:/root:/bin/sh\n"
        "10:x:0:0:a name of digits:/:/bin/sh\n"
        "0x10:x:0:0::/:/bin/sh\n"
        "app:x:1000:1001:app:/home/app:/bin/sh\n"
        "app:x:0:0:again:/root:/bin/sh\n"
        "big:x:4294967296:0::/:/bin/sh\n"
        "none:x::0::/:/bin/sh\n"
        "minus:x:-1:-1::/:/bin/sh\n"
        "odd:x: 7:7::/:/bin/sh\n"
        "homeless:x:1002:1002::relative:/bin/sh\n"
        "seven:x:7:70:seven:/seven:/bin/sh\n"
        "+::::::\n")
    (rootfs / "etc/group").write_text(
        "root:x:0:root\n10:x:0:\napp:x:1001:\nstaff:x:50:other,app\nvideo:x:44:app\nfalse:x:4294967296:app\n"
        "apple:x:45:apple,xapp\nbroken:x:\n")
    return rootfs


@pytest.fixture
def web(host, root):
    host.nsbox("create", "web", "--rootfs", root, check=True)
    yield root
    host.nsbox("rm", "-f", "web", check=True)


def who(said):
    """(uid, gid, groups) of what ID printed, once all four of each are the same and no capability is left."""
    found = {key: words for key, *words in (line.replace(":", "").split() for line in said.splitlines())}
    assert len(set(found["Uid"])) == len(set(found["Gid"])) == 1, found
    if found["Uid"][0] != "0":
        assert {found[f"Cap{each}"][0].strip("0") for each in ("Eff", "Prm", "Amb")} == {""}, found
    return int(found["Uid"][0]), int(found["Gid"][0]), [int(group) for group in found["Groups"]]


WHO = {
    "0": (0, 0, []), "1": (1, 1, []), "10": (10, 10, []), "7": (7, 70, []), "7:7": (7, 7, []), "1000": (1000, 1001, []),
    "1000:1000": (1000, 1000, []), "4294967294": (4294967294, 4294967294, []), "010": (10, 10, []),
    "root": (0, 0, [0]), "app": (1000, 1001, [44, 50]), "app:staff": (1000, 50, []), "app:10": (1000, 10, []),
    "1000:video": (1000, 44, []), "homeless": (1002, 1002, []),
}  # fmt: skip


@pytest.mark.needs_root
def test_A21_A12_a_member_is_exactly_who_was_named(host, web):
    """Red when: find() looks a number up as a name; become() leaves out setgroups; _number cuts what is too big;
    the last line of a name counts."""
    for user, expected in WHO.items():
        said = host.run(["setpriv", "--groups", "4,27", *joined("-u", user)], check=True).stdout
        assert who(said) == expected, user


def joined(*options):
    return [*NSBOX, "join", "web", *options, "--", "sh", "-c", ID]


@pytest.mark.needs_root
@pytest.mark.parametrize("way", [["join", "web", "-u", "app"], ["join", "web", "--rootfs", "ROOT", "-u", "app"],
                                 ["join", "web", "--rootfs", "ROOT", "--chroot", "-u", "app"],
                                 ["join", "web", "--share", "net", "--user=app"],
                                 ["run", "--rootfs", "ROOT", "-u", "app"],
                                 ["run", "--with", "user", "--rootfs", "ROOT", "-u", "app"]], ids=" ".join)
def test_A21_in_every_way_to_become_a_member(host, web, way):
    """Red when: run leaves out user=; the change comes before the member has its root."""
    words = [word.replace("ROOT", str(web)) for word in way]
    script = f"{ID}; echo $HOME; grep NSpid status; touch /x || echo denied"
    said = host.nsbox(*words, "--", "sh", "-c", script, check=True).stdout
    assert who("\n".join(line for line in said.splitlines() if ":" in line)) == (1000, 1001, [44, 50])
    assert said.splitlines()[6] == "/home/app" and said.endswith("denied\n"), said


@pytest.mark.needs_root
def test_A21_a_detached_member_and_a_program_as_PID_1_too(host, root):
    """Red when: create leaves out accounts.become, or the option."""
    pid = int(host.nsbox("create", "web", "--rootfs", root, "--init", "sleep 1000", "-u", "app", check=True).stdout)
    with detached(host, "web", "--user", "7") as member:
        for one, expected in ((pid, (1000, 1001, [44, 50])), (member, (7, 70, []))):
            status = host.run(["sh", "-c", ID.replace("/proc/self", f"/proc/{one}")], check=True).stdout
            assert who(status) == expected
            environ = host.run(["cat", f"/proc/{one}/environ"], check=True).stdout.split("\0")
            assert ("HOME=/home/app" if one == pid else "HOME=/seven") in environ
    host.nsbox("rm", "-f", "web", check=True)


UNKNOWN = {
    "nobody": "/etc/passwd of this root has none of that name", "app:none": "/etc/group of this root has none",
    "big": "malformed", "none": "malformed", "minus": "malformed", "odd": "malformed", "app:broken": "malformed",
    "app:false": "malformed", "short": "malformed", "Root": "has none of that name",
}  # fmt: skip


@pytest.mark.needs_root
def test_A21_a_name_that_is_not_there_is_nobody(host, web):
    """Never root. Red when: _passwd_line passes over a malformed line, or find() makes 0 of a name without one."""
    for user, reason in UNKNOWN.items():
        done = host.nsbox("join", "web", "-u", user, "--", "sh", "-c", ID)
        assert done.returncode == 125 and done.stdout == "", (user, done)
        assert done.stderr.startswith("nsbox: cannot use ") and reason in done.stderr, (user, done.stderr)
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.needs_root
def test_A21_a_user_that_is_not_written_so_is_wrong_use(host):
    """Red when: a verb does not check the word itself."""
    for word in ("4294967295", "-1", " 1", "１", ":1", ""):
        for verb in (["run", "-u", word, "--", "true"], ["join", "web", "-u", word, "--", "true"],
                     ["create", "--init", "true", "-u", word]):
            assert refused(host, *verb, status=2).startswith("nsbox: cannot use user ")
    assert "the pause is nobody's program" in refused(host, "create", "-u", "app", status=2)


@pytest.mark.needs_root
def test_the_home_and_the_directory_are_the_users(host, web):
    """The work directory is entered with the rights of the user. Red when: _change_directory comes first."""
    assert inside(host, "web", "echo $HOME", "-u", "homeless") == "/"
    assert inside(host, "web", "echo $HOME", "-u", "55") == "/"
    assert inside(host, "web", "echo $HOME", "-u", "app", "-e", "HOME=/mine") == "/mine"
    assert inside(host, "web", "echo $HOME") == "/root"
    (web / "closed").mkdir(mode=0o700)
    assert inside(host, "web", "pwd", "-w", "/closed") == "/closed"
    assert "Permission denied" in host.nsbox("join", "web", "-u", "app", "-w", "/closed", "--", "pwd").stderr


@pytest.mark.needs_root
def test_a_member_of_another_user_dies_with_its_client_all_the_same(host, web):
    """The change of user clears the signal. Red when: accounts.become leaves out die_with_parent."""
    client = host.nsbox_popen("join", "web", "-u", "app", "--", "sh", "-c", "echo up; exec sleep 1000")
    assert client.stdout.readline() == "up\n"

    def sleepers():
        rows = json.loads(host.nsbox("ps", "--json", "web", check=True).stdout)
        return [row for row in rows if row["command"] == ["sleep", "1000"]]

    assert [row["uid"] for row in sleepers()] == [1000]
    client.kill()
    client.communicate(timeout=20)
    assert any(not sleepers() for _ in until(20))


@pytest.mark.needs_root
def test_G05_the_terminal_is_the_users(host, web):
    """Red when: accounts.become leaves out fchown."""
    with Terminal(host) as terminal:
        terminal.nsbox("join", "web", "-t", "-u", "app", "--", "sh", "-c",
                       "stat -c '%u %g %a' $(tty); echo again > $(tty); : < /dev/tty && echo read")
        assert terminal.ends_with() == 0, terminal.said
        assert terminal.said == b"1000 5 620\r\nagain\r\nread\r\n", terminal.said
        assert terminal.settings() == terminal.before


# ---- where the kernel does not let it be ----

@pytest.mark.needs_root
@pytest.mark.needs_ns("user")
def test_A21_in_a_namespace_of_one_user_others_are_refused(user_host):
    """With a line that says why. Red when: become() passes over an error of setresuid or setresgid."""
    for user in ("1", "0:1", "65534"):
        done = user_host.nsbox("run", "--rootfs", "busybox", "-u", user, "--", "true")
        assert (done.returncode, done.stdout) == (125, ""), (user, done)
        assert done.stderr.startswith("nsbox: cannot be user ") and "Invalid argument\nhint: " in done.stderr, done.stderr
    said = user_host.nsbox("run", "--rootfs", "busybox", "-u", "0", "--", "sh", "-c", ID, check=True).stdout
    assert who(said)[:2] == (0, 0)


@pytest.mark.needs_root
@pytest.mark.needs_ns("user")
def test_A21_in_a_namespace_of_many_users_it_is_one_of_them(host, root):
    """Red when: the change is made by the host's numbers, or before the namespace is entered."""
    host.nsbox("create", "web", "--userns", "--rootfs", root, check=True)
    with detached(host, "web", "-u", "app") as member:
        assert who(inside(host, "web", ID, "-u", "app")) == (1000, 1001, [44, 50])
        outside = host.run(["grep", "Uid", f"/proc/{member}/status"], check=True).stdout.split()
        first = int(host.run(["cat", f"/proc/{member}/uid_map"], check=True).stdout.split()[1])
        assert outside[1:] == [str(first + 1000)] * 4 and first >= 65536
    done = host.nsbox("join", "web", "-u", "70000", "--", "true")
    assert done.returncode == 125 and "Invalid argument\nhint: its user namespace has no such " in done.stderr
    host.nsbox("rm", "-f", "web", check=True)


# ---- the library ----

@pytest.mark.needs_root
def test_A21_the_library_takes_a_user_too(host, root):
    """Red when: keywords.member_spec() leaves out user, or the spec's check does."""
    code = f"""
import nsbox
with nsbox.Pod(rootfs={str(root)!r}) as pod:
    for user in ("app", 7, "7:staff", 0):
        done = pod.run(["sh", "-c", "id -u; id -g"], user=user, capture_output=True, text=True, check=True)
        print(*done.stdout.split())
    for user in ("1 ", -1, 2**32, "10:", ""):
        try:
            pod.run(["true"], user=user)
        except nsbox.SpecError:
            continue
        print("taken:", user)
"""
    done = host.python(code)
    assert (done.returncode, done.stdout) == (0, "1000 1001\n7 70\n7 50\n0 0\n"), (done.stdout, done.stderr)
