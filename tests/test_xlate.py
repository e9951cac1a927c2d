"""`nsbox xlate`: what one side calls a process, a user, a path or a port, in the words of the other."""

import os

import pytest
from test_why import end, join, make, start

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]


def xlate(host, what, value, *sides, check=True, **kw):
    done = host.nsbox("xlate", what, str(value), *sides, check=check, **kw)
    return done.stdout.strip() if check else done


@pytest.fixture
def web(host):
    """A pod with users of its own and a volume, and one member."""
    (host.work / "vol").mkdir()
    (host.work / "vol" / "file").write_text("of the host\n")
    pause = make(host, "web", "--rootfs", "busybox", "--userns", "-v", f"{host.work / 'vol'}:/data")
    member = join(host, "web")
    yield host, pause, member
    host.nsbox("rm", "--force", "web", check=True)


def test_a_process_by_its_number_in_the_pod_and_out_here(web):
    """Red when: _number_in in why/translate.py takes the last number for any namespace."""
    host, pause, member = web
    assert xlate(host, "pid", 1, "--from", "web") == str(pause)
    inside = host.nsbox("ps", "web", check=True).stdout.splitlines()[-1].split()[1]
    assert xlate(host, "pid", inside, "--from", "web") == str(member)
    assert xlate(host, "pid", member, "--to", "web") == inside
    assert xlate(host, "pid", inside, "--from", "web", "--to", "web") == inside
    done = xlate(host, "pid", 1, "--to", "web", check=False)
    assert done.returncode == 125 and "web does not see" in done.stderr
    assert xlate(host, "pid", 4000000, "--from", "web", check=False).returncode == 125


def test_a_process_three_levels_down(host):
    """Red when: _number_in in why/translate.py looks at the innermost namespace only."""
    outer = start(host, "unshare", "--pid", "--fork", "--kill-child")
    inner = start(host, "nsenter", "-t", str(outer), "-p", "unshare", "--pid", "--fork", "--kill-child")
    number = xlate(host, "pid", 1, "--from", str(inner), "--to", str(outer))
    assert number.isdigit() and number not in ("1", str(inner))
    assert xlate(host, "pid", number, "--from", str(outer)) == str(inner)
    end(host, inner, outer)


def test_a_user(web):
    """Red when: uid in why/translate.py confuses the columns of a map."""
    host, pause, _ = web
    first = os.stat(f"/proc/{host.host_pid(pause)}").st_uid
    assert first > 0
    assert xlate(host, "uid", 0, "--from", "web") == str(first)
    assert xlate(host, "uid", 1000, "--from", "web") == str(first + 1000)
    assert xlate(host, "uid", first + 7, "--to", "web") == "7"
    done = xlate(host, "uid", 0, "--to", "web", check=False)
    assert done.returncode == 125 and "65534" in done.stderr
    done = xlate(host, "uid", 65536, "--from", "web", check=False)
    assert done.returncode == 125 and "does not map it" in done.stderr


def test_a_file_of_a_volume_has_a_path_on_both_sides(web):
    """Red when: path in why/translate.py does not compare roots of mounts."""
    host, _, _ = web
    there = str(host.work / "vol" / "file")
    assert xlate(host, "path", "/data/file", "--from", "web") == there
    assert xlate(host, "path", there, "--to", "web") == "/data/file"


def test_a_file_of_the_pod_is_reached_by_a_member(web):
    """Red when: _door in why/translate.py takes the pause, or a link of the pod is resolved out here."""
    host, _, member = web
    said = xlate(host, "path", "/etc/passwd", "--from", "web")
    assert said == f"/proc/{member}/root/etc/passwd"
    host.run(["cat", said], check=True)
    assert xlate(host, "path", "/bin/sh", "--from", "web") == f"/proc/{member}/root/bin/busybox"
    done = xlate(host, "path", "/nowhere", "--from", "web", check=False)
    assert done.returncode == 125 and "No such file" in done.stderr


def test_where_a_member_has_a_root_of_its_own_it_is_named(host):
    """Red when: _by_a_member in why/translate.py is not asked, or names a member without trying it."""
    make(host, "web")
    plain = join(host, "web", "--share", "net")
    done = xlate(host, "path", "/bin/busybox.none", "--from", "web", check=False)
    assert done.returncode == 125 and "hint: its member" not in done.stderr
    own = join(host, "web", "--rootfs", "busybox")
    host.run(["sh", "-c", f"echo > /proc/{own}/root/only-there"], check=True)
    done = xlate(host, "path", "/only-there", "--from", "web", check=False)
    assert done.returncode == 125 and "web has none it could be" in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[1] == f"hint: its member {own} has a root file system of its own: --from {own}"
    assert xlate(host, "path", "/only-there", "--from", str(own)) == f"/proc/{own}/root/only-there"
    (host.work / "vol").mkdir()
    shows = join(host, "web", "--rootfs", "busybox", "-v", f"{host.work / 'vol'}:/data")
    make(host, "full", "--rootfs", "busybox", "-v", f"{host.work / 'vol'}:/vol")
    make(host, "bare", "--rootfs", "busybox")
    there = join(host, "bare", "--rootfs", "busybox", "-v", f"{host.work / 'vol'}:/data")
    done = xlate(host, "path", "/vol", "--from", "full", "--to", "bare", check=False)
    assert done.stderr.splitlines()[1] == f"hint: its member {there} has a root file system of its own: --to {there}"
    assert xlate(host, "path", "/vol", "--from", "full", "--to", str(there)) == "/data"
    assert plain and shows
    host.nsbox("rm", "--force", "web", "full", "bare", check=True)


def test_a_path_that_something_lies_over_is_no_way(web):
    """Red when: path in why/translate.py does not look whether it is the same file."""
    host, _, member = web
    script = f'mount -t tmpfs over "{host.work / "vol"}"; exec "$@"'
    over = start(host, "unshare", "--mount", "sh", "-c", script, "sh")
    done = xlate(host, "path", "/data/file", "--from", "web", "--to", str(over), check=False)
    assert str(host.work / "vol" / "file") not in done.stdout
    end(host, over)


def test_a_published_port(host):
    """Red when: port in why/translate.py forgets one of the two ways."""
    make(host, "one", "-p", "18080:80")
    make(host, "two", "--net", "pod:one")
    assert xlate(host, "port", 80, "--from", "one") == "127.0.0.1:18080"
    assert xlate(host, "port", 18080, "--to", "one") == "127.0.0.1:80"
    assert xlate(host, "port", 80, "--from", "one", "--to", "two") == "127.0.0.1:80"
    assert xlate(host, "port", 80, "--from", "two") == "127.0.0.1:18080"
    done = xlate(host, "port", "80/udp", "--from", "one", check=False)
    assert done.returncode == 125 and "nsbox publish one" in done.stderr
    host.nsbox("rm", "--force", "two", "one", check=True)


@pytest.mark.parametrize("words", [("pid", "x"), ("pid", "0"), ("uid", "-1"), ("uid", "1_0"), ("port", "70000"),
                                   ("port", "80/sctp"), ("colour", "red")])  # fmt: skip
def test_what_cannot_be_meant_is_wrong_use(host, words):
    """Red when: _words in cli/xlate.py lets it through."""
    assert host.nsbox("xlate", *words).returncode == 2


def test_json(web):
    """Red when: run in cli/xlate.py leaves out what was asked."""
    import json

    host, pause, _ = web
    said = json.loads(xlate(host, "pid", 1, "--from", "web", "--json"))
    assert (said["what"], said["from"], said["to"], said["value"]) == ("pid", "web", "host", str(pause))
