"""What guards the making of a root: lookups that are broken off, links where files go, locked flags."""

import pytest
from fakehost import NSBOX
from faults import strace
from hostile import replace
from inpod import inside, pod

from nsbox.linux import structs, syscalls
from nsbox.linux.flags import Resolve

pytestmark = pytest.mark.needs_root


# ---- B33: openat2(2) that fails ----

def verbs(host, rootfs) -> dict[str, list[str]]:
    """Commands that look paths up in a root file system."""
    (host.work / "volume").mkdir()
    root = ["--rootfs", str(rootfs), "-v", f"{host.work}/volume:/new/place"]
    return {"create": ["create", "p", *root], "join": ["join", "q", *root, "--", "true"],
            "run": ["run", *root, "--", "true"]}  # fmt: skip


def under(host, inject: str, words: list[str]) -> tuple[int, str, str]:
    """Run nsbox with a fault at openat2(2); return its status, stderr, and what strace saw."""
    status, _, err, log = strace(host, f"inject=openat2:{inject}", [*NSBOX, *words])
    assert "(INJECTED)" in log, log[-1000:]
    return status, err, log


def test_B33_a_lookup_that_was_broken_off_is_tried_again(host, rootfs):
    """Twenty times in a row, as under somebody who renames all the time. Red when: _OPENAT2_TRIES is 20."""
    with pod(host, "q"):
        for words in verbs(host, rootfs).values():
            status, err, log = under(host, "error=EAGAIN:when=1..20", words)
            assert (status, err) == (0, ""), err
            assert log.count("(INJECTED)") >= 20
        host.nsbox("rm", "-f", "p", check=True)


@pytest.mark.parametrize("code, said", [("EAGAIN", "Resource temporarily unavailable"), ("ENOSYS", "needs Linux 5.6"),
                                        ("EPERM", "Operation not permitted")])  # fmt: skip
def test_B33_a_lookup_that_always_fails_is_an_error_and_nothing_else_is_tried(host, canary, rootfs, code, said):
    """Tried for ever it would hang; done by a plain open(2) it would follow the link out.

    Red when: _OPENAT2_TRIES is a million (EAGAIN); open_in_root() falls back to os.open().
    """
    replace(rootfs / "new", "/canary/dir")
    with pod(host, "q"):
        for words in verbs(host, rootfs).values():
            status, err, log = under(host, f"error={code}", words)
            assert status == 125 and said in err and len(err.splitlines()) <= 2, err
            assert log.count("(INJECTED)") < 2000
            canary.check()
        assert host.nsbox("ls", "-q").stdout == "q\n"


# ---- H18: the structures that go to the kernel ----

def test_H18_what_goes_to_the_kernel_is_as_wide_as_the_kernel_says():
    """Red when: a field of OpenHow, CloneArgs or MountAttrStruct is c_uint, or _number() leaves restype out."""
    sizes = {structs.CloneArgs: 88, structs.OpenHow: 24, structs.MountAttrStruct: 32}
    assert {kind: syscalls.ctypes.sizeof(kind) for kind in sizes} == sizes
    for kind in sizes:
        for name, _ in kind._fields_:
            assert getattr(kind(**{name: 1 << 63}), name) == 1 << 63
    with pytest.raises(OSError) as caught:  # a flag above 2^32 that no kernel knows must come to it
        syscalls.openat2(-100, "/", 1 << 40, Resolve(0))
    assert caught.value.errno == 22


# ---- B09: files that nsbox provides ----

@pytest.mark.parametrize("how", [[], ["--in-place"], ["--chroot"], ["--read-only"]], ids=str)
@pytest.mark.parametrize("who", ["pod", "member"])
@pytest.mark.parametrize("link", ["/canary/hosts", "../../../../../../canary/hosts"])
def test_B09_no_name_file_is_written_through_a_link(host, canary, rootfs, how, who, link):
    """Inside it is what the link leads to in there. Red when: the place for a volume is opened by its
    path, `os.open(path of the root + target)`; or netnames writes the file where it finds it."""
    replace(rootfs / "etc/hosts", link)
    replace(rootfs / "etc/resolv.conf", "/canary/marker")
    before = sorted(str(path) for path in rootfs.rglob("*"))
    options = ["--rootfs", str(rootfs), *how]
    with pod(host, "p", "--net", "host", *(options if who == "pod" else [])):
        done = host.nsbox("join", "p", *(options if who == "member" else []), "--", "sh", "-c",
                          "cat /etc/hosts; echo x >> /etc/hosts; cat /etc/resolv.conf; rm -f /etc/hosts")  # fmt: skip
        assert "canary-secret" not in done.stdout and "host\n" not in done.stdout.replace("localhost\n", ""), done
        canary.check()
    assert sorted(str(path) for path in rootfs.rglob("*") if path.name != "hosts") == \
        [path for path in before if not path.endswith("/hosts")]


# ---- B21: flags that an ordinary user may not take away ----

FLAGS = ("nosuid", "nodev", "noexec")


@pytest.mark.needs_ns("user")
def test_B21_locked_flags_stay_on_a_read_only_volume(user_host):
    """Of a source that root mounted, and of what is mounted below it.

    Red when: mount_setattr() clears what was not asked for (attr_clr of noexec): refused for a user.
    """
    host = user_host
    script = """mkdir "$1"; for d in "$1" "$1/below"; do
        mount -t tmpfs -o nosuid,nodev,noexec,mode=777 src "$d"; : > "$d/file"; chmod 666 "$d/file"; mkdir -p "$1/below"; done"""
    source = host.work / "source"
    host.run(["sh", "-ec", script, "sh", str(source)], user=0, check=True)
    look = "grep ' /[vw]' /proc/self/mountinfo | cut -d' ' -f5,6; for d in /v /v/below /w /w/below; do (: >> $d/file) && echo $d; done; :"
    volumes = ["-v", f"{source}:/v:ro", "-v", f"{source}:/w"]
    try:
        with pod(host, "p", "--rootfs", "busybox", *volumes), pod(host, "q"):
            for target, options in (("p", []), ("q", ["--rootfs", "busybox", *volumes])):
                lines = inside(host, target, look, *options).splitlines()
                found = {target: words.split(",") for target, _, words in (line.partition(" ") for line in lines[:4])}
                assert set(found) == {"/v", "/v/below", "/w", "/w/below"}, lines
                assert all(set(FLAGS) <= set(words) for words in found.values()), lines
                assert {target for target, words in found.items() if "ro" in words} == {"/v", "/v/below"}, lines
                assert lines[4:] == ["/w", "/w/below"], lines
    finally:
        host.run(["umount", "-R", str(source)], user=0, check=True)
