"""The store of root file systems: builds of the real busybox, entries, crashes, own files."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nsbox.errors import NsboxError, SpecError
from nsbox.images import busybox, entries, tree
from nsbox.images.build import build

pytestmark = pytest.mark.usefixtures("own_store")

REPOSITORY = Path(__file__).parent.parent
needs_root = pytest.mark.needs_root


def write_recipe(folder, text, **files):
    folder.mkdir(parents=True)
    (folder / "recipe.ini").write_text("[rootfs]\n" + text)
    for name, content in files.items():
        (folder / "files").mkdir(exist_ok=True)
        (folder / "files" / name).write_text(content)
    return folder


def names_in(where):
    return sorted(name for name in os.listdir(where) if name != ".lock")


# Building from the real busybox.

def test_busybox_is_static_and_a_loaded_program_is_not(tmp_path):
    assert not busybox.is_static(os.path.realpath("/bin/sh"))
    assert not busybox.is_static("/etc/passwd")
    short = tmp_path / "short"
    short.write_bytes(b"\x7fELF\x02\x01")
    assert not busybox.is_static(str(short))
    entry = build("busybox")
    assert busybox.is_static(entry.path + "/bin/busybox")


def test_a_busybox_tree_has_what_a_root_needs_under_any_umask():
    old = os.umask(0o077)
    try:
        root = Path(build("busybox").path)
    finally:
        os.umask(old)
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in
             (".", "..", "tmp", "var/tmp", "root", "etc/passwd", "bin/busybox", "proc", "dev")}
    assert modes == {".": 0o755, "..": 0o755, "tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700,
                     "etc/passwd": 0o644, "bin/busybox": 0o755, "proc": 0o755, "dev": 0o755}
    links = [path for path in root.rglob("*") if path.is_symlink()]
    assert len(links) > 200
    assert {link.resolve() for link in links} == {root / "bin/busybox"}
    assert (root / "etc/passwd").read_text().startswith("root:x:0:0:")


@needs_root
def test_a_busybox_tree_runs():
    root = build("busybox").path
    script = "id -u; cat /etc/hosts | head -n 1; ls /"
    done = subprocess.run(["chroot", root, "/bin/sh", "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[:2] == ["0", "127.0.0.1\tlocalhost"], done.stderr
    assert {"proc", "sys", "dev", "tmp"} <= set(done.stdout.split())


def test_meta_says_what_it_is():
    entry = build("busybox")
    assert entries.listed() == [entry]
    assert entry.meta["recipe"] == "busybox" and entry.meta["arch"] == os.uname().machine
    used = int(subprocess.run(["du", "-sB1", entry.path], capture_output=True).stdout.split()[0])
    assert abs(entry.meta["size_bytes"] - used) <= 8192


def test_busybox_takes_no_packages():
    with pytest.raises(SpecError, match="busybox"):
        build("busybox", include=["vim"])


@pytest.mark.slow
def test_without_an_installed_busybox_the_package_is_fetched(monkeypatch):
    monkeypatch.setattr(busybox, "installed", lambda: "")
    try:
        entry = build("busybox")
    except NsboxError as err:
        if "Unable to locate" in str(err):
            pytest.skip("apt has no package lists here")
        raise
    assert busybox.is_static(entry.path + "/bin/busybox")


# Entries appear, are replaced, go.

def test_an_existing_entry_stays_unless_forced(own_store):
    first = build("busybox")
    Path(first.path, "mine").write_text("")
    with pytest.raises(NsboxError, match="already") as caught:
        build("busybox")
    assert "--force" in caught.value.hint and Path(first.path, "mine").exists()
    build("busybox", force=True)
    assert not Path(first.path, "mine").exists()
    assert names_in(own_store) == ["busybox"]


def test_a_failed_replacement_keeps_the_old_entry(own_store, monkeypatch):
    first = build("busybox")
    monkeypatch.setattr(busybox, "_applets", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build("busybox", force=True)
    assert os.path.isdir(first.path) and names_in(own_store) == ["busybox"]


def test_a_full_disk_is_one_clear_error(own_store, monkeypatch):
    def full(*_args):
        raise OSError(28, "write: No space left on device")
    monkeypatch.setattr(tree, "put_link", full)
    with pytest.raises(NsboxError, match="cannot build rootfs 'busybox'"):
        build("busybox")
    assert names_in(own_store) == []


def test_remove_takes_all_or_nothing(own_store, tmp_path):
    build("busybox")
    build(str(write_recipe(tmp_path / "second", "kind = busybox")))
    with pytest.raises(NsboxError, match="no rootfs 'nosuch'"):
        entries.remove(["busybox", "nosuch"])
    assert names_in(own_store) == ["busybox", "second"]
    entries.remove(["busybox", "second", "busybox"])
    assert names_in(own_store) == []


def test_remove_copes_with_odd_modes_and_follows_no_symlink(own_store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    root = Path(build("busybox").path)
    (root / "mnt" / "a" / "b" / "c").mkdir(parents=True)
    (root / "mnt" / "out").symlink_to(outside)
    for name in ("mnt/a/b/c", "mnt/a/b", "mnt/a"):
        (root / name).chmod(0)
    entries.remove(["busybox"])
    assert names_in(own_store) == [] and (outside / "canary").read_text() == "alive"


@needs_root
@pytest.mark.parametrize("act", [
    "entries.remove(['busybox'])",
    "tree.delete(entries.listed()[0].path)",
])
def test_remove_does_not_reach_into_what_is_mounted(own_store, tmp_path, act):
    outside = tmp_path / "out side"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    root = build("busybox").path
    code = f"from nsbox.images import entries, tree; {act}"
    script = f'mount --bind "$1" "{root}/mnt" && "$2" -c "$3"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(outside), sys.executable, code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert "is mounted" in done.stderr, done.stderr
    assert (outside / "canary").exists() and os.path.isdir(root)


def test_an_entry_with_broken_meta_is_still_listed(own_store):
    entry = build("busybox")
    for text in ("not json", "[]", ""):
        (own_store / "busybox" / "meta.json").write_text(text)
        assert entries.listed() == [entries.Entry("busybox", entry.path, {})]


# After a crash. To see these red: let sweep() return at once.

def test_leftovers_are_cleared_and_a_half_done_replacement_is_undone(own_store):
    build("busybox")
    left = own_store / ".build-busybox-0123abcd"
    (left / "work").mkdir(parents=True)
    os.rename(own_store / "busybox", left / "old")
    (own_store / ".trash-old.one-89abcdef" / "rootfs").mkdir(parents=True)
    assert [entry.name for entry in entries.listed()] == ["busybox"]
    assert names_in(own_store) == ["busybox"]


def test_a_build_that_runs_is_left_alone_and_excludes_a_second_one(own_store):
    with entries.workplace("busybox") as place:
        assert entries.listed() == []
        assert os.path.isdir(place.path)
        with pytest.raises(NsboxError, match="builds it right now"):
            build("busybox")
    assert names_in(own_store) == []


# A recipe's own files.

def test_own_files_are_laid_over_the_tree(tmp_path):
    folder = write_recipe(tmp_path / "mine", "kind = busybox", motd="hello\n")
    (folder / "files" / "etc" / "new").mkdir(parents=True)
    script = folder / "files" / "etc" / "new" / "run"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o4700)
    (folder / "files" / "link").symlink_to("/etc/passwd")
    root = Path(build(str(folder)).path)
    assert (root / "motd").read_text() == "hello\n"
    assert stat.S_IMODE((root / "etc/new/run").stat().st_mode) == 0o755
    assert os.readlink(root / "link") == "/etc/passwd"


def test_own_files_never_leave_the_tree_through_a_symlink(tmp_path, own_store):
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "tree"
    target.mkdir()
    (target / "run").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")
    (tmp_path / "own" / "run").mkdir(parents=True)
    (tmp_path / "own" / "run" / "x").write_text("")
    with pytest.raises(NsboxError, match="cannot copy files/run") as caught:
        tree.overlay(str(tmp_path / "own"), str(target))
    assert "symlink" in caught.value.hint
    tree.put_file(str(target), "file", b"inside")
    assert list(outside.iterdir()) == [] and (target / "file").read_bytes() == b"inside"


def test_own_files_of_an_odd_kind_are_refused(tmp_path, own_store):
    folder = write_recipe(tmp_path / "mine", "kind = busybox", motd="")
    os.mkfifo(folder / "files" / "pipe")
    with pytest.raises(NsboxError, match="not a file, folder or symlink"):
        build(str(folder))
    assert names_in(own_store) == []
