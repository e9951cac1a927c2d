"""--sysctl: settings of the kernel that a pod has for itself, and none that is the machine's."""

import json

import pytest
from inpod import inside, pod, refused

from nsbox import parse, spec, sysctls
from refusals import refusal

POD = spec.PodSpec("web", "web", spec.RootSpec(""))

# ---- words: no root needed ----

WORDS = {
    "net.ipv4.ip_forward=1": ("net.ipv4.ip_forward", "1", "net/ipv4/ip_forward"),
    "net/ipv4/ip_forward=1": ("net.ipv4.ip_forward", "1", "net/ipv4/ip_forward"),
    "net.ipv4.conf.eth0/5.forwarding=1": ("net.ipv4.conf.eth0/5.forwarding", "1", "net/ipv4/conf/eth0.5/forwarding"),
    "net/ipv4/conf/eth0.5/forwarding=1": ("net.ipv4.conf.eth0/5.forwarding", "1", "net/ipv4/conf/eth0.5/forwarding"),
    "net.ipv4.ping_group_range=0 7": ("net.ipv4.ping_group_range", "0 7", "net/ipv4/ping_group_range"),
    "kernel.sem=250 32000 100 128": ("kernel.sem", "250 32000 100 128", "kernel/sem"),
    "kernel.domainname=a=b": ("kernel.domainname", "a=b", "kernel/domainname"),
    "fs.mqueue.queues_max=7": ("fs.mqueue.queues_max", "7", "fs/mqueue/queues_max"),
}


@pytest.mark.parametrize("text", WORDS)
def test_a_setting_is_written_as_for_sysctl(text):
    key, value, path = WORDS[text]
    assert parse.parse_sysctl(text) == (key, value) and sysctls.path_of(key) == path
    made = POD._replace(sysctls=((key, value),))
    assert spec.pod_spec_from_dict(json.loads(json.dumps(spec.pod_spec_to_dict(made)))) == made


REFUSED = {
    "kernel.core_pattern=|/x": "whole machine", "vm.drop_caches=1": "whole machine", "fs.file-max=1": "whole machine",
    "kernel/core_pattern=|/x": "whole machine", "kernel.hostname=x": "--hostname", "kernel.shmmax_x=1": "whole machine",
    "kernel.msg_next_id=1": "whole machine", "user.max_user_namespaces=0": "whole machine",
    "net.ipv4.ip_forward": "not KEY=VALUE", "=1": "no name", "net=1": "whole machine", "net.=1": "no name",
    "net..x=1": "no name", "net.a.//.b=1": "no name", "net.//.kernel.x=1": "no name", "net/../kernel/core_pattern=x": "no name",
    "net/ipv4/./x=1": "no name", "/net/ipv4/x=1": "no name", "net.a b=1": "no name",
    "net.ipv4.ip_forward\n=1": "no name", "net.x\0=1": "no name", "netx.y=1": "whole machine",
    "net.ipv4.ip_forward=": "it is empty", "net.ipv4.ip_forward=1\n2": "newline", "net.ipv4.ip_forward=\0": "NUL",
}


@pytest.mark.parametrize("text", REFUSED)
def test_B07_what_is_not_a_pods_own_is_refused_and_no_name_leads_out_of_the_tree(text):
    """Red when: key_fault() asks for the prefix alone ("net/../kernel"), or match() stands for fullmatch()."""
    said = refusal(parse.parse_sysctl, text)
    assert said.startswith("cannot set ") and REFUSED[text] in said, said
    key, _, value = text.partition("=")
    data = spec.pod_spec_to_dict(POD) | {"sysctls": [[key, value]]}
    refusal(spec.pod_spec_from_dict, data)  # nor by a file


# ---- pods ----

ROOTS = [[], ["--rootfs", "busybox"], ["--rootfs", "busybox", "--chroot"], ["--userns", "--rootfs", "busybox"]]
WANTED = {"net.ipv4.ip_forward": "1", "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmax": "4711",
          "kernel.sem": "250\t32000\t100\t77", "fs.mqueue.queues_max": "7"}  # fmt: skip
FILES = " ".join(f"/proc/sys/{key.replace('.', '/')}" for key in WANTED)


@pytest.mark.needs_root
@pytest.mark.parametrize("how", ROOTS, ids=str)
def test_a_pod_has_its_own_settings_and_nobody_in_it_changes_them(host, how):
    """Red when: settings.write() comes after masks.guard(), or opens /proc/sys of the host by its path in
    the parent (then the host's change)."""
    before = host.run(["sh", "-c", f"cat {FILES}"], check=True).stdout
    options = [word for key, value in WANTED.items() for word in ("--sysctl", f"{key}={value.replace(chr(9), ' ')}")]
    with pod(host, "p", *how, *options):
        for member in ([], ["--rootfs", "busybox"]):
            assert inside(host, "p", f"cat {FILES}", *member).splitlines() == list(WANTED.values())
            assert inside(host, "p", "echo 0 > /proc/sys/net/ipv4/ip_forward || echo no", *member) == "no"
        assert json.loads(host.nsbox("inspect", "--json", "p").stdout)[0]["sysctls"] == {
            key: value.replace("\t", " ") for key, value in WANTED.items()}
        assert host.run(["sh", "-c", f"cat {FILES}"], check=True).stdout == before


@pytest.mark.needs_root
@pytest.mark.parametrize("how", [[], ["--userns"], ["--with", "user"], ["--userns", "--rootfs", "busybox"], None], ids=str)
def test_a_pod_has_its_own_domain_name(request, how):
    """None is an ordinary user's. Red when: write() writes it to the file, which belongs to the machine's root."""
    host = request.getfixturevalue("user_host" if how is None else "host")
    with pod(host, "p", *(how or []), "--sysctl", "kernel.domainname=lab.example"):
        assert inside(host, "p", "cat /proc/sys/kernel/domainname") == "lab.example"
    assert host.run(["cat", "/proc/sys/kernel/domainname"]).stdout != "lab.example\n"
    said = refused(host, "create", "p", *(how or []), "--sysctl", f"kernel.domainname={'x' * 65}")
    assert said.startswith("nsbox: cannot set kernel.domainname to ") and said.endswith("setdomainname: Invalid argument")


@pytest.mark.needs_root
@pytest.mark.parametrize("net", ["host", "pod:q"])
def test_settings_of_a_network_that_is_not_the_pods_own_are_refused(host, net):
    """Red when: settings.check() is not called: then the host's ip_forward is 1."""
    with pod(host, "q"):
        done = host.nsbox("create", "p", "--net", net, "--sysctl", "net.ipv4.ip_forward=1")
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and any("its network is not its own" in line for line in lines), done
        assert inside(host, "q", "cat /proc/sys/net/ipv4/ip_forward") == "0"
    assert host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "0\n"
    with pod(host, "p", "--net", "host", "--sysctl", "kernel.shmmax=4711"):
        assert inside(host, "p", "cat /proc/sys/kernel/shmmax") == "4711"


@pytest.mark.needs_root
@pytest.mark.parametrize("word, said", [
    ("net.ipv4.no_such=1", "No such file or directory"), ("net.ipv4.ip_forward=x", "write: Invalid argument"),
    ("net.ipv4=1", "Is a directory"),
])  # fmt: skip
def test_what_the_kernel_refuses_is_said_and_no_pod_is_left(host, word, said):
    line = refused(host, "create", "p", "--sysctl", word)
    assert line.startswith(f"nsbox: cannot set {word.partition('=')[0]} ") and said in line, line


@pytest.mark.needs_root
def test_B07_a_fake_proc_in_the_rootfs_is_not_written_to(host, canary, rootfs):
    """Red when: settings.write() opens "proc/sys/..." below the root before /proc is mounted there."""
    fake = rootfs / "proc/sys/net/ipv4"
    fake.mkdir(parents=True)
    (fake / "ip_forward").symlink_to("/canary/marker")
    with pod(host, "p", "--rootfs", rootfs, "--in-place", "--sysctl", "net.ipv4.ip_forward=1"):
        assert inside(host, "p", "cat /proc/sys/net/ipv4/ip_forward") == "1"


@pytest.mark.needs_root
def test_the_library_sets_them_too(host):
    code = """
import nsbox
with nsbox.Pod(rootfs="busybox", sysctls={"net.ipv4.ip_forward": "1"}) as pod:
    print(pod.run(["cat", "/proc/sys/net/ipv4/ip_forward"], capture_output=True, text=True).stdout.strip())
try:
    nsbox.Pod(sysctls={"vm.swappiness": 1})
except nsbox.SpecError as err:
    print(err)
"""
    done = host.python(code)
    assert done.stdout == "1\ncannot set 'vm.swappiness' for a pod: it is the whole machine's\n", done


@pytest.mark.needs_root
@pytest.mark.needs_ns("user")
def test_an_ordinary_user_sets_what_is_its_pods_own(user_host):
    with pod(user_host, "p", "--rootfs", "busybox", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0",
             "--sysctl", "kernel.shmmax=4711"):
        files = "/proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax"
        assert inside(user_host, "p", f"cat {files}") == "0\n4711"
