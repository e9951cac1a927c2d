"""The store of root file systems: where it is, what a name means, which recipes are valid."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nsbox.errors import NsboxError, SpecError
from nsbox.images import entries, recipe, store
from nsbox.images.build import build

pytestmark = pytest.mark.usefixtures("own_store")

REPOSITORY = Path(__file__).parent.parent
needs_root = pytest.mark.needs_root


def write_recipe(folder, text):
    folder.mkdir(parents=True)
    (folder / "recipe.ini").write_text("[rootfs]\n" + text)
    return folder


# Where the store is, and whom it trusts.

def test_the_store_is_where_the_variable_says_else_where_the_user_keeps_data(monkeypatch, tmp_path):
    monkeypatch.setenv(store.ENV, str(tmp_path / "x"))
    assert store.store_dir() == str(tmp_path / "x")
    monkeypatch.setenv(store.ENV, "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert store.store_dir() == "/var/lib/nsbox/rootfs"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert store.store_dir() == "/data/nsbox/rootfs"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert store.store_dir() == "/home/me/.local/share/nsbox/rootfs"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_store_that_others_may_write_to_is_refused(own_store, mode):
    own_store.mkdir()
    own_store.chmod(mode)
    for act in (entries.listed, lambda: build("busybox"), lambda: store.resolve("busybox"),
                lambda: entries.remove(["busybox"])):
        with pytest.raises(NsboxError, match="others may write to it"):
            act()


@needs_root
def test_a_store_of_another_user_is_refused(own_store):
    own_store.mkdir(mode=0o755)
    os.chown(own_store, 1234, 1234)
    with pytest.raises(NsboxError, match="belongs to user 1234"):
        build("busybox")


def test_a_store_that_is_a_file_is_refused(own_store):
    own_store.write_text("")
    with pytest.raises(NsboxError, match="not a directory"):
        entries.listed()


def test_looking_makes_no_store(own_store):
    assert entries.listed() == []
    assert not own_store.exists()


# Names and recipes.

@pytest.mark.parametrize("name", [
    "", "..", ".", ".build-x-00000000", ".lock", "Web", "a" * 64, "-rf", "x\n", "a b", "ü", "a\0b",
])
def test_a_hostile_name_is_refused_by_every_verb(own_store, name):
    (own_store / "x").mkdir(parents=True)
    own_store.chmod(0o755)
    with pytest.raises(NsboxError):
        build(name)
    with pytest.raises(NsboxError):
        entries.remove([name])
    assert (own_store / "x").is_dir()


@pytest.mark.parametrize("text, why", [
    ("", "kind"),
    ("kind = docker", "kind"),
    ("kind = busybox\nsuite = x", "knows no 'suite'"),
    ("kind = mmdebstrap", "suite"),
    ("kind = mmdebstrap\nsuite = --help", "suite"),
    ("kind = mmdebstrap\nsuite = sid\nvariant = huge", "variant"),
    ("kind = mmdebstrap\nsuite = sid\nmirror = copy:///etc", "mirror"),
    ("kind = mmdebstrap\nsuite = sid\nsources = mine", "sources"),
    ("kind = mmdebstrap\nsuite = sid\ninclude = vim, -o", "cannot include"),
    ("no equals sign", "read recipe"),
])
def test_a_wrong_recipe_is_refused_before_anything_is_touched(tmp_path, own_store, text, why):
    folder = write_recipe(tmp_path / "mine", text)
    with pytest.raises(SpecError, match=why):
        build(str(folder))
    assert not own_store.exists()


@pytest.mark.parametrize(
    "name", ["vim-", "a/b", "-o", "--force-yes", "?essential", "x y", "vim=1", "A1", "a\n"])
def test_what_apt_would_take_for_more_than_a_package_name_is_refused(name):
    with pytest.raises(SpecError):
        recipe.check_packages([name])


def test_package_names_are_kept_in_order_and_once():
    assert recipe.check_packages(["g++", "curl", "g++"]) == ("g++", "curl")


def test_the_recipes_of_the_checkout_are_valid():
    assert {"busybox", "debian"} <= set(recipe.shipped())
    for name in recipe.shipped():
        assert recipe.find(name).description


# What --rootfs means.

def test_a_slash_or_dots_make_it_a_directory(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert store.resolve(".") == str(tmp_path / "deep")
    assert store.resolve("..") == str(tmp_path)
    assert store.resolve("../no/such") == str(tmp_path / "no/such")


def test_a_name_is_looked_up_in_the_store_then_here(tmp_path, own_store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "Upper").mkdir()
    assert store.resolve("rootfs") == str(tmp_path / "rootfs")
    assert store.resolve("Upper") == str(tmp_path / "Upper")
    (own_store / "rootfs" / "rootfs").mkdir(parents=True)
    own_store.chmod(0o755)
    assert store.resolve("rootfs") == str(own_store / "rootfs" / "rootfs")


def test_an_unknown_name_gets_the_command_that_would_make_it():
    with pytest.raises(NsboxError, match="cannot find rootfs 'busybox'") as caught:
        store.resolve("busybox")
    assert caught.value.hint == "nsbox rootfs build busybox"
    for name in ("nosuch", "", "a\0b"):
        with pytest.raises(NsboxError, match="cannot find rootfs") as caught:
            store.resolve(name)
        assert "rootfs ls" in caught.value.hint


def test_lookup_loads_nothing_heavy():
    code = (
        "import sys; from nsbox.images.store import resolve; resolve('/x');"
        "print(*({'json','subprocess','configparser','shutil','rich','ctypes'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
