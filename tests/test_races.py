"""Links swapped in at every place on which nsbox mounts, while pods are made: none goes astray.

NSBOX_RACES=300 makes that many pods at each place, and wants 10,000 swaps; by default it is a few.
Each line that -s shows is: place, pods made, refused, swaps, mounts outside.
"""

import os

import pytest
from inpod import Racer

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

CREATES = int(os.environ.get("NSBOX_RACES", "15"))
LEAST_SWAPS = 10_000 if CREATES >= 300 else 500

# Place: (what is swapped with the link "lnk" beside it, where that leads, options of the pod).
PLACES = {
    "proc": ("proc", "/canary/dir", {}), "sys": ("sys", "/canary/dir", {}), "dev": ("dev", "/canary/dir", {}),
    "pts": ("dev/pts", "/canary/dir", {}), "shm": ("dev/shm", "/canary/dir", {}), "mqueue": ("dev/mqueue", "/canary/dir", {}),
    "volume": ("vol/dst", "/canary/dir", {"volumes": ["SRC:/vol/dst"]}),
    "volume of a file": ("vol/file", "/canary/marker", {"volumes": ["FILE:/vol/file"]}),
    "parent of a volume": ("vol/dst", "/canary/dir", {"volumes": ["SRC:/vol/dst/b/c"]}),
    "tmpfs": ("vol/dst", "/canary/dir", {"tmpfs": ["/vol/dst"]}),
    "hosts": ("etc/hosts", "/canary/hosts", {"net": "host"}),
    "resolv.conf": ("etc/resolv.conf", "/canary/marker", {"net": "host"}),
    "etc": ("etc", "/canary/dir", {"net": "host"}),
}
_MAKE = """
import json, subprocess, sys, time
import nsbox
rootfs, count, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
good = refused = outside = 0
end = time.monotonic() + 30 + count
while good < count and time.monotonic() < end:
    pod = nsbox.Pod(rootfs=rootfs, in_place=True, chroot=good % 2 == 1, **options)
    try:
        pod.create()
    except nsbox.NsboxError:
        refused += 1
        continue
    with pod:
        seen = subprocess.run(["nsenter", "-t", str(pod.pid), "-m", "cat", "/proc/self/mountinfo"],
                              capture_output=True, text=True).stdout if good % 2 else ""
        outside += sum(line.split()[4].startswith("/canary/") for line in seen.splitlines())
        outside += sum(" /canary/" in line for line in open("/proc/self/mountinfo"))
        good += 1
print(good, refused, outside)
"""


@pytest.mark.parametrize("place", PLACES)
def test_B01_B08_B09_no_mount_goes_astray_at_any_place(host, canary, rootfs, place):
    """Half of the pods are chrooted, where the host's tree is there to be mounted on.

    Red when: open_in_root() opens by path below /proc/self/fd instead of by openat2 (nine of them; pts, shm and
    mqueue lie in our own /dev, whatever the rootfs has there).
    """
    import json

    name, link, options = PLACES[place]
    (host.work / "src").mkdir()
    (host.work / "file").write_text("")
    it = rootfs / name
    if "." in name or name.endswith(("file", "hosts")):
        it.parent.mkdir(parents=True, exist_ok=True)
        it.touch()
    else:
        it.mkdir(parents=True, exist_ok=True)
    (it.parent / "lnk").symlink_to("../" * 12 + link)
    words = json.dumps(options).replace("SRC", str(host.work / "src")).replace("FILE", str(host.work / "file"))
    with Racer(host, it, it.parent / "lnk") as racer:
        done = host.python(_MAKE, str(rootfs), str(CREATES), words, timeout=60 + 2 * CREATES)
    assert done.returncode == 0, done.stderr
    good, refused, outside = map(int, done.stdout.split())
    print(f"\n{place:20} {good:6} {refused:6} {racer.swaps:9} {outside:4}")
    assert (good, outside) == (CREATES, 0) and racer.swaps >= LEAST_SWAPS, (done.stdout, racer.swaps)
