"""--volume, --mount and --tmpfs: what they mean, and which paths are refused.

Row ids (B31, H06, ...) name the cases that a test covers. No root and no kernel needed.
"""

import os
import subprocess
import sys

import pytest

from nsbox import parse, spec
from nsbox.errors import SpecError
from refusals import random_texts, refusal

BAD_TARGETS = [
    "", "/", "//", "/.", "x", "./x", "../x", "/..", "/a/../b", "/a/..", "a/b", "/a\0b",
    "/proc", "/proc/", "//proc/./sys", "/proc/self", "/proc/self/fd/3", "/proc/sys",
    "/proc/self/attr", "/./proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/", "/dev/pts",
    "/dev/pts/0", "/dev/ptmx", "/dev/null", "/dev/mqueue", "/dev/shmx", "/x\ud800",
]
ODD = "/a b\nc,d;e\\f\"g'h\udcff\x1b"


@pytest.mark.parametrize("text, volume", [
    ("/a:/b", ("/a", "/b", False)),
    ("/a:/b:ro", ("/a", "/b", True)),
    ("/a:/b:rw", ("/a", "/b", False)),
    ("./a:/b", ("/here/a", "/b", False)),
    (".:/b", ("/here", "/b", False)),
    ("..:/b", ("/", "/b", False)),
    ("a/b:/b", ("/here/a/b", "/b", False)),
    (".x:/b", ("/here/.x", "/b", False)),
    ("/a/../b:/c", ("/b", "/c", False)),
    ("/:/host", ("/", "/host", False)),
    ("/a://b/./c/", ("/a", "/b/c", False)),
    ("/a:/dev/shm", ("/a", "/dev/shm", False)),
    ("/a:/dev/shm/x", ("/a", "/dev/shm/x", False)),
    ("/a:/process", ("/a", "/process", False)),
    ("/a:/device/null", ("/a", "/device/null", False)),
    ("/a:/x/proc", ("/a", "/x/proc", False)),
    ("/a:/...", ("/a", "/...", False)),
])
def test_H06_a_volume_is_source_destination_and_option(text, volume):
    assert parse.parse_volume(text, cwd="/here") == spec.Volume(*volume)


@pytest.mark.parametrize("text", [
    "", ":", "::", "/a", "/a:", ":/b", "data:/b", "a:/b:c:d", "/a:/b:ro:rw", "/a:/b:", "/a:/b:x",
    "/a:/b:ro,rw", "/a:/b:ro,ro", "/a:/b:ro,", "/a:/b:RO", "/a:/b:Z", "/a\0:/b", "/a\ud800:/b",
])
def test_H06_a_wrong_volume_is_refused(text):
    assert refusal(parse.parse_volume, text).startswith("cannot use volume ")


def test_H06_a_colon_in_a_path_is_sent_to_mount():
    with pytest.raises(SpecError) as caught:
        parse.parse_volume("/a:b:/c:d")
    assert "--mount" in caught.value.hint
    assert parse.parse_mount("type=bind,src=/a:b,dst=/c:d") == spec.Volume("/a:b", "/c:d")


def test_H06_a_name_instead_of_a_path_is_told_how_to_be_one():
    with pytest.raises(SpecError) as caught:
        parse.parse_volume("data:/b")
    assert "./data" in caught.value.hint


def test_H06_two_mounts_at_one_destination_are_refused():
    volume, other = spec.Volume("/a", "/x"), spec.Volume("/b", "/x/y")
    parse.check_targets([volume, other], [spec.Tmpfs("/z")])
    refusal(parse.check_targets, [volume, volume], [])
    refusal(parse.check_targets, [volume], [spec.Tmpfs("/x")])
    refusal(parse.check_targets, [], [spec.Tmpfs("/x"), spec.Tmpfs("//x/.")])


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_B31_a_destination_that_leaves_or_fools_the_root_is_refused(target):
    refusal(parse.parse_volume, f"/a:{target}")
    refusal(parse.parse_mount, f"type=bind,src=/a,dst={target}")
    refusal(parse.parse_mount, f"type=tmpfs,dst={target}")
    refusal(parse.parse_tmpfs, target)
    refusal(parse.parse_tmpfs, f"{target}:ro")


@pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/proc/sys", "//proc/./sys"])
def test_B07_nothing_is_mounted_over_proc_not_even_from_a_file(target):
    assert "/proc" in refusal(parse.parse_volume, f"/a:{target}")
    for key, mount in (("volumes", {"source": "/a"}), ("tmpfs", {})):
        root = {"path": "/r", key: [mount | {"target": target}]}
        refusal(spec.member_spec_from_dict, {"argv": ["sh"], "root": root})


def test_B31_a_destination_in_a_spec_is_normal_already():
    root = {"path": "/r", "tmpfs": [{"target": "//a/./b"}]}
    assert "normal" in refusal(spec.member_spec_from_dict, {"argv": ["sh"], "root": root})


def test_B30_odd_characters_in_paths_stay_as_they_are():
    assert parse.parse_volume(f"{ODD}:{ODD}") == spec.Volume(ODD, ODD)
    assert parse.parse_tmpfs(ODD).target == ODD
    field = '"{}={}"'.format
    text = f"type=bind,{field('src', ODD)},{field('dst', ODD)}".replace('"g', '""g')
    assert parse.parse_mount(text) == spec.Volume(ODD, ODD)


def test_B30_odd_characters_in_a_message_are_escaped():
    message = refusal(parse.parse_volume, f"{ODD}:/b:{ODD}")
    assert "\\x1b" in message and "\\n" in message


@pytest.mark.parametrize("function", [parse.parse_volume, parse.parse_mount, parse.parse_tmpfs])
@pytest.mark.parametrize("prefix", ["", "/a:", "/a:/", "/a:/b:", "type=bind,src=/a,dst=/"])
def test_B30_whatever_is_written_is_a_mount_or_a_clean_refusal(function, prefix):
    for text in random_texts(500):
        try:
            mount = function(prefix + text)
        except SpecError:
            refusal(function, prefix + text)
        else:
            assert spec.target_fault(mount.target) == "", text
            assert mount.target == spec.normal_path(mount.target), text


def test_H11_a_relative_source_needs_a_current_directory():
    code = (
        "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)\n"
        "from nsbox import errors, parse\n"
        "assert parse.parse_volume('/a:/b').source == '/a'\n"
        "try: parse.parse_volume('./a:/b')\n"
        "except errors.SpecError as err: print(errors.one_line(err))\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(spec.__file__)))
    env = os.environ | {"PYTHONPATH": root}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.stderr == ""
    assert "there is no current directory" in run.stdout


@pytest.mark.parametrize("text, mount", [
    ("type=bind,src=/a,dst=/b", spec.Volume("/a", "/b")),
    ("type=bind,source=/a,destination=/b,ro", spec.Volume("/a", "/b", True)),
    ("type=bind,source=a,target=/b,readonly", spec.Volume("/here/a", "/b", True)),
    ("ro=true,type=bind,src=/a,dst=/b", spec.Volume("/a", "/b", True)),
    ("type=bind,src=/a,dst=/b,readonly=false", spec.Volume("/a", "/b", False)),
    ("type=bind,src=/a=b,dst=/b", spec.Volume("/a=b", "/b")),
    ('type=bind,"src=/a,b",dst=/c', spec.Volume("/a,b", "/c")),
    ('type=bind,"src=/a""b",dst=/c', spec.Volume('/a"b', "/c")),
    ("type=tmpfs,dst=/t", spec.Tmpfs("/t")),
    ("type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=0700,ro", spec.Tmpfs("/t", 2**26, 0o700, True)),
])
def test_H06_mount_is_podmans_long_form(text, mount):
    assert parse.parse_mount(text, cwd="/here") == mount


@pytest.mark.parametrize("text", [
    "", "type=bind", "src=/a,dst=/b", "type=volume,src=/a,dst=/b",
    "type=bind,type=bind,src=/a,dst=/b",
    "type=bind,src=/a", "type=bind,dst=/b", "type=bind,src=,dst=/b", "type=bind,src=/a,dst=/b,x=1",
    "type=bind,src=/a,source=/a,dst=/b", "type=bind,src=/a,dst=/b,ro,ro",
    "type=bind,src=/a,dst=/b,",
    "type=bind,src=/a,dst=/b,ro=maybe", "type=bind,src=/a,dst=/b,tmpfs-size=1m",
    "type=tmpfs,src=/a,dst=/b", "type=tmpfs,dst=/b,tmpfs-size=0", "type=tmpfs,dst=/b,tmpfs-mode=8",
    "type=tmpfs,dst=/b,tmpfs-mode=17777", "type=tmpfs,dst=/b,tmpfs-mode",
    'type=bind,src="/a",dst=/b', 'type=bind,"src=/a,dst=/b', 'type=bind,"src=/a"x,dst=/b', '"',
    "type=bind,bind-propagation=shared,src=/a,dst=/b", "TYPE=bind,src=/a,dst=/b",
])
def test_H06_a_wrong_mount_is_refused(text):
    refusal(parse.parse_mount, text)


@pytest.mark.parametrize("text, expected", [
    ("/t", spec.Tmpfs("/t")),
    ("/t:size=64m", spec.Tmpfs("/t", 2**26)),
    ("/t:mode=700,ro", spec.Tmpfs("/t", None, 0o700, True)),
    ("/t:exec,suid,dev,rw", spec.Tmpfs("/t", noexec=False, nosuid=False, nodev=False)),
    ("/t:noexec,nosuid,nodev", spec.Tmpfs("/t")),
    ("/dev/shm:size=1g", spec.Tmpfs("/dev/shm", 2**30)),
])
def test_H06_a_tmpfs_is_a_destination_and_options(text, expected):
    assert parse.parse_tmpfs(text) == expected


@pytest.mark.parametrize("text", [
    "/t:", "/t:x", "/t:size", "/t:size=", "/t:size=50%", "/t:size=1m,size=1m", "/t:mode=9",
    "/t:mode=-1", "/t:exec,noexec", "/t:ro,rw", "/t:uid=0", "/t:size=1m:ro", "/t:ro,", "/t:=",
])
def test_H06_a_wrong_tmpfs_is_refused(text):
    refusal(parse.parse_tmpfs, text)
