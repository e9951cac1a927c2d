"""What a pod with a network finds in /etc/hosts and /etc/resolv.conf, and whose files these are."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakehost import FakeHost
from uplink import uplink

from nsbox.errors import NsboxError
from nsbox.pod import netnames, netuser, store
from nsbox.pod import statedir
from nsbox.spec import RootSpec, Tmpfs, Volume

HOSTS = "# written by nsbox\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
MARK = "# pods that can be reached; nsbox rewrites what follows\n"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory with the pods a and b, as bare directories."""
    monkeypatch.setenv("NSBOX_STATE", str(tmp_path / "state"))
    os.close(statedir.pods_fd())
    for name in ("a", "b"):
        (tmp_path / "state/pods" / name).mkdir(mode=0o700)
    yield tmp_path / "state/pods"


def write(name: str, *addresses: str, hostname: str = "") -> None:
    fd = store.directory(name)
    try:
        netnames.write(name, fd, hostname or name, addresses)
    finally:
        os.close(fd)


def test_the_files_keep_their_inode_and_what_is_said_of_others(shelf: Path) -> None:
    """Red when: _overwrite replaces the file: who has it mounted keeps the old one."""
    write("a")
    hosts = shelf / "a/hosts"
    before = hosts.stat().st_ino
    assert hosts.read_text() == HOSTS + "127.0.1.1 a\n" and stat.S_IMODE(hosts.stat().st_mode) == 0o644
    assert stat.S_IMODE((shelf / "a/resolv.conf").stat().st_mode) == 0o644
    netnames.refresh({"a": [("10.77.0.3", "b"), ("fd00::3", "b.long.name")], "b": [], "gone": [("1.2.3.4", "x")]})
    peers = MARK + "10.77.0.3 b\nfd00::3 b.long.name\n"
    assert hosts.read_text() == HOSTS + "127.0.1.1 a\n" + peers
    assert not (shelf / "b/hosts").exists()  # it has no network
    write("a", "10.77.0.2", "fd00::2", hostname="www")
    assert hosts.read_text() == HOSTS + "10.77.0.2 www a\nfd00::2 www a\n" + peers
    netnames.refresh({"a": []})
    assert hosts.read_text() == HOSTS + "10.77.0.2 www a\nfd00::2 www a\n" + MARK
    assert hosts.stat().st_ino == before


@pytest.mark.parametrize("row", [("1.2.3.4", "a b"), ("1.2.3.4", "a\n6.6.6.6 localhost"), ("1.2.3.4\n6.6.6.6", "b"),
                                 ("", "b"), ("1.2.3.4", ""), ("1.2.3.4", "#b"), ("1.2.3.4", "\u00e9")])  # fmt: skip
def test_a_peer_s_name_cannot_say_more_than_a_name(shelf: Path, row: tuple[str, str]) -> None:
    """Red when: refresh() writes what it is given."""
    write("a")
    netnames.refresh({"a": [row]})
    assert (shelf / "a/hosts").read_text().endswith("127.0.1.1 a\n" + MARK)


def test_a_link_in_the_state_directory_is_not_followed(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("whole")
    (shelf / "a/hosts").symlink_to(tmp_path / "victim")
    with pytest.raises(NsboxError):
        write("a")
    with pytest.raises(NsboxError):
        netnames.refresh({"a": []})
    assert (tmp_path / "victim").read_text() == "whole"


RESOLVERS = {
    "nameserver 10.0.0.1\n": "nameserver 10.0.0.1\n",
    "# x\nsearch a.b c\nnameserver\t127.0.0.53\nnameserver fd00::1\noptions edns0\n":
        "nameserver fd00::1\nsearch a.b c\noptions edns0\n",
    "nameserver 127.0.0.53\nsearch lan\n": "nameserver 10.9.9.9\nsearch lan\n",
    "nameserver ::1\nnameserver 127.0.0.1\nnameserver 0.0.0.0\nnameserver ::ffff:127.0.0.1\n": "nameserver 10.9.9.9\n",
    "nameserver fe80::1%eth0\nnameserver nonsense\n": "nameserver 10.9.9.9\n",
    "": "nameserver 10.9.9.9\n",
}


@pytest.mark.parametrize("text", RESOLVERS)
def test_D25_a_loopback_resolver_is_not_passed_on(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when: the host's resolv.conf is copied as it is, or the search list is lost with its resolver."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(text)
    second.write_text("nameserver 10.9.9.9\nsearch other\n" if "search" in text else "nameserver 10.9.9.9\n")
    monkeypatch.setattr(netnames, "_SOURCES", (str(first), str(second)))
    assert netnames.resolvers() == "# written by nsbox\n" + RESOLVERS[text]
    second.unlink()
    if "10.9.9.9" in RESOLVERS[text]:
        assert "nameserver" not in netnames.resolvers() and "no name server" in netnames.resolvers()


def targets(root: RootSpec) -> list[str]:
    assert all(volume.read_only for volume in netnames.volumes("a", root))
    return [volume.target for volume in netnames.volumes("a", root)]


def test_where_the_files_go(shelf: Path, tmp_path: Path) -> None:
    """The user's own volume wins; a link leads on inside the root; nothing is made in a tree used in place.

    Red when: volumes() does not look into the root, and a dangling /etc/resolv.conf fails the create.
    """
    write("a")
    both, root = ["/etc/hosts", "/etc/resolv.conf"], tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    assert targets(RootSpec(str(root))) == both
    assert targets(RootSpec(str(root), in_place=True)) == []
    assert targets(RootSpec(str(root), volumes=(Volume("/x", "/etc/hosts"),))) == both[1:]
    assert targets(RootSpec(str(root), volumes=(Volume("/x", "/etc"),))) == []
    assert targets(RootSpec(str(root), tmpfs=(Tmpfs("/etc"),))) == both
    (root / "etc/hosts").touch()
    assert targets(RootSpec(str(root), in_place=True)) == ["/etc/hosts"]
    (root / "etc/resolv.conf").symlink_to("../run/systemd/stub.conf")
    assert targets(RootSpec(str(root))) == ["/etc/hosts", "/run/systemd/stub.conf"]
    for link in ("/dev/null", "/proc/mounts", "resolv.conf", "/"):
        (root / "etc/resolv.conf").unlink()
        (root / "etc/resolv.conf").symlink_to(link)
        assert targets(RootSpec(str(root))) == ["/etc/hosts"], link
    (root / "etc/hosts").unlink()
    (root / "etc/hosts").mkdir()
    assert targets(RootSpec(str(root))) == []
    assert netnames.volumes("b", RootSpec(str(root))) == () and not hasattr(netuser, "volumes")


def cat(host: FakeHost, pod: str, *options: str) -> str:
    done = host.nsbox("join", pod, *options, "--", "cat", "/etc/hosts", "/etc/resolv.conf", check=True)
    return str(done.stdout)


@pytest.fixture
def out(host: FakeHost) -> Iterator[FakeHost]:
    with uplink(host) as here:
        yield here


def test_members_find_the_names_of_their_network(out: FakeHost, rootfs: Path) -> None:
    """In the pod's root, in one of their own, in a pod that shares the network; rewritten while it runs.

    Red when: member.py does not add the files, or a pod of pod:NAME gets none.
    """
    out.nsbox("create", "u", "--net", "user", "--rootfs", str(rootfs), "--hostname", "www", check=True)
    out.nsbox("create", "v", "--net", "pod:u", "--rootfs", "busybox", check=True)
    out.nsbox("create", "n", "--rootfs", "busybox", check=True)
    wanted = cat(out, "u")
    assert wanted.startswith(HOSTS + "127.0.1.1 www u\n") and "resolv" not in os.listdir(rootfs / "etc")
    assert cat(out, "u", "--rootfs", "busybox") == cat(out, "v") == cat(out, "v", "--rootfs", str(rootfs)) == wanted
    assert "nsbox" not in out.nsbox("join", "n", "--", "cat", "/etc/hosts").stdout
    assert out.nsbox("join", "u", "--", "sh", "-c", "echo x > /etc/hosts").returncode != 0
    assert out.nsbox("join", "u", "--cap-add", "SYS_ADMIN", "--", "umount", "/etc/hosts").returncode in (0, 1)
    code = "from nsbox.pod import netnames; netnames.refresh({'u': [('10.77.0.9', 'peer')]})"
    out.python(code, check=True)
    assert "10.77.0.9 peer\n" in cat(out, "v")
    out.nsbox("rm", "-f", "u", check=True)
    assert "10.77.0.9 peer\n" in cat(out, "v")  # its own mount outlives the pod that wrote it
    out.nsbox("create", "u", "--net", "user", check=True)
    assert "127.0.1.1 u\n" not in cat(out, "v")  # another pod of that name, in another network
    out.nsbox("rm", "-f", "u", "v", "n", check=True)


def test_a_pod_in_the_host_s_tree_finds_them_too(out: FakeHost) -> None:
    """Red when: the host's tree gets no mounts; its resolver may be one that only the host reaches."""
    before = out.run(["cat", "/etc/hosts", "/etc/resolv.conf"], check=True).stdout
    out.nsbox("create", "u", "--net", "user", check=True)
    assert "127.0.1.1 u\n" in cat(out, "u") and "127.0.0.53" not in cat(out, "u")
    assert out.run(["cat", "/etc/hosts", "/etc/resolv.conf"], check=True).stdout == before
    out.nsbox("rm", "-f", "u", check=True)


def test_a_volume_of_the_user_s_wins_and_a_tree_used_in_place_stays_as_it_is(out: FakeHost, rootfs: Path) -> None:
    (out.work / "mine").write_text("1.2.3.4 mine\n")
    (rootfs / "etc/resolv.conf").unlink(missing_ok=True)
    (rootfs / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    before = sorted(os.listdir(rootfs / "etc"))
    out.nsbox("create", "u", "--net", "user", "--rootfs", str(rootfs), "-v", f"{out.work}/mine:/etc/hosts", check=True)
    assert cat(out, "u").startswith("1.2.3.4 mine\n# written by nsbox\n")
    out.nsbox("rm", "-f", "u", check=True)
    out.nsbox("create", "u", "--net", "user", "--rootfs", str(rootfs), "--in-place", check=True)
    out.nsbox("rm", "-f", "u", check=True)
    assert sorted(os.listdir(rootfs / "etc")) == before and not (rootfs / "run/systemd").exists()
