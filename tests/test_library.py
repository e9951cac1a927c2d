"""The library: what it returns is what subprocess returns, and its errors say which error it is."""

import pytest

pytestmark = pytest.mark.needs_root

# Each program runs in a fake host. `same(args, …)` compares a member with an ordinary child.
HEAD = """
import io, os, signal, subprocess, sys, tempfile, time
import nsbox

def outcome(run, args, options):
    if "stdin" in options and callable(options["stdin"]):
        options = {**options, "stdin": options["stdin"]()}
    try:
        done = run(args, **options)
        return "done", done.args, done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as err:
        return "timeout", err.cmd, round(err.timeout, 2), err.stdout, err.stderr
    except subprocess.CalledProcessError as err:
        return "failed", err.cmd, err.returncode, err.stdout, err.stderr
    except (ValueError, TypeError, UnicodeError) as err:
        return "wrong", type(err)

def same(args, **options):
    theirs = outcome(subprocess.run, args, options)
    ours = outcome(pod.run, args, options)
    assert ours == theirs, f"{args} {options}: {ours} is not {theirs}"
    return ours
"""
WITH_POD = HEAD + """
with nsbox.Pod("web") as pod:
"""


def check(host, body: str, head: str = WITH_POD, **kw) -> str:
    """Run a program inside; its lines are indented below the head's last line."""
    code = head + "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    done = host.python(code, **kw)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_results_are_those_of_subprocess(host):
    """Red when: Member.communicate decodes bytes though no text was asked for."""
    check(
        host,
        r"""
every = bytes(range(256))
same(["true"]); same(["false"]); same("true"); same([b"sh", "-c", b"exit 255"])
for code in (0, 1, 42, 125, 126, 127, 255):
    assert same(["sh", "-c", f"exit {code}"])[2] == code
for signum in (9, 15, 2, 6, 11):
    assert same(["sh", "-c", f"ulimit -c 0; kill -{signum} $$"])[2] == -signum
same(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
same(["sh", "-c", "echo out; echo err >&2"], capture_output=True, text=True)
same(["sh", "-c", "echo out; echo err >&2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
same(["sh", "-c", "echo out; echo err >&2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
same(["cat"], input=every, capture_output=True)
same(["cat"], input=b"", capture_output=True)
same(["cat"], input=bytearray(every), capture_output=True)
same(["cat"], input=memoryview(every), capture_output=True)
same(["cat"], input="gr\u00fc\u00df dich\n", capture_output=True, text=True)
same(["cat"], input="gr\u00fc\u00df\n", capture_output=True, encoding="latin-1")
same(["cat"], input="a\udcffb", capture_output=True, encoding="utf-8", errors="surrogateescape")
same(["printf", r"a\r\nb\rc\n"], capture_output=True, text=True)
same(["printf", r"a\r\nb\rc\n"], capture_output=True, universal_newlines=True)
same(["printf", r"\377"], capture_output=True, text=True)
same(["printf", r"\377"], capture_output=True, errors="replace")
same(["cat"], stdin=subprocess.DEVNULL, capture_output=True)
same(["true"], input=every * 4096, capture_output=True)
same(["cat"], input=every, stdin=subprocess.PIPE)
same(["true"], capture_output=True, stdout=subprocess.PIPE)
same(["sh", "-c", "echo out; exit 3"], check=True, capture_output=True)
same(["sh", "-c", "kill -9 $$"], check=True)
""",
    )


def test_big_data_passes_both_ways_at_once(host):
    """Red when: Talk writes all of the input before it reads: pipes full on both sides."""
    check(
        host,
        r"""
data = os.urandom(1 << 20) * 24
assert pod.run(["cat"], input=data, capture_output=True).stdout == data
both = pod.run(["sh", "-c", "tee /dev/stderr"], input=data[:8 << 20], capture_output=True)
assert both.stdout == both.stderr == data[:8 << 20]
""",
    )


def test_a_timeout_kills_keeps_what_was_said_and_does_not_wait_for_others(host):
    """A grandchild that holds the pipe must not hold up the caller, as with subprocess.

    Red when: communicate reads each pipe in a thread, and close() waits for that thread.
    """
    check(
        host,
        r"""
for options in ({}, {"text": True}):
    args = ["sh", "-c", "echo said; exec sleep 100"]
    got = same(args, capture_output=True, timeout=0.5, **options)
    assert got[0] == "timeout" and got[3] == b"said\n", got
start = time.monotonic()
args = ["sh", "-c", "sleep 50 & echo said; wait"]
got = outcome(pod.run, args, {"capture_output": True, "timeout": 0.5})
assert got[3] == b"said\n" and time.monotonic() - start < 5, got
assert same(["sleep", "100"], timeout=0.2)[0] == "timeout"
assert same(["sh", "-c", "cat >&2"], timeout=5, input=b"quick", capture_output=True)[0] == "done"
""",
    )


def test_files_and_descriptors_serve_as_stdio(host):
    check(
        host,
        r"""
with tempfile.TemporaryFile() as file:
    file.write(b"from a file"); file.flush(); file.seek(0)
    assert pod.run(["cat"], stdin=file, capture_output=True).stdout == b"from a file"
with tempfile.TemporaryFile() as file:
    pod.run(["sh", "-c", "echo out; echo err >&2"], stdout=file, stderr=subprocess.STDOUT)
    file.seek(0)
    assert file.read() == b"out\nerr\n"
with tempfile.TemporaryFile() as file:
    pod.run(["sh", "-c", "echo out"], stdout=file.fileno())
    file.seek(0)
    assert file.read() == b"out\n"
read_end, write_end = os.pipe()
pod.run(["echo", "through a pipe"], stdout=write_end)
os.close(write_end)
assert os.read(read_end, 99) == b"through a pipe\n"
STDOUT = subprocess.STDOUT
for wrong in ({"stdout": STDOUT}, {"stdin": STDOUT}, {"stdout": io.BytesIO()}):
    try:
        pod.run(["true"], **wrong)
    except (ValueError, OSError):
        continue
    raise AssertionError(wrong)
""",
    )


def test_stdio_that_is_not_given_is_the_program_s_own(host):
    done = host.python(
        HEAD + """
with nsbox.Pod("web") as pod:
    pod.run(["sh", "-c", "cat; echo err >&2"])
""",
        input="from the caller\n",
        check=True,
    )
    assert (done.stdout, done.stderr) == ("from the caller\n", "err\n")


def test_popen_has_the_interface_of_subprocess(host):
    """Red when: Member.wait() reads the answer twice."""
    check(
        host,
        r"""
member = pod.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert member.poll() is None and member.returncode is None and os.path.exists(f"/proc/{member.pid}")
member.stdin.write("one\n"); member.stdin.flush()
assert member.stdout.readline() == "one\n"
assert member.communicate("two\n") == ("two\n", None)
assert member.returncode == member.poll() == member.wait() == 0 == member.wait(0.1)
member.kill(); member.terminate(); member.send_signal(1)

for send, code in (("terminate", -15), ("kill", -9)):
    member = pod.popen(["sleep", "100"])
    getattr(member, send)()
    assert member.wait(10) == code
member = pod.popen(["sleep", "100"])
try:
    member.wait(0.05)
except subprocess.TimeoutExpired as err:
    assert err.timeout == 0.05 and err.cmd == ["sleep", "100"]
else:
    raise AssertionError
member.kill()
assert member.wait() == -9

with pod.popen(["sh", "-c", "read a; echo $a; read b; echo $b"], stdin=-1, stdout=-1) as member:
    try:
        member.communicate(b"1\n2\n" * 50000, timeout=0)
    except subprocess.TimeoutExpired:
        pass
    assert member.communicate() == (b"1\n2\n", None)
""",
    )


def test_many_threads_may_wait_for_one_member(host):
    """Red when: wait() polls the answer's descriptor while another thread closes it."""
    check(
        host,
        r"""
import threading
for _ in range(10):
    member, codes = pod.popen(["sh", "-c", "exit 7"]), []
    threads = [threading.Thread(target=lambda: codes.append(member.wait())) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join(20)
    assert codes == [7] * 8, codes
""",
    )


def test_errors_have_their_class_and_their_exit_status(host):
    """Red when: decode_error makes a plain NsboxError of all."""
    check(
        host,
        r"""
def error(function, *args, **options):
    try:
        function(*args, **options)
    except nsbox.NsboxError as err:
        assert str(err).startswith("cannot ") and str(err).isprintable(), err
        return type(err), err.exit_status
missing = error(pod.run, ["no-such-program"])
assert missing == (nsbox.CommandError, 127), missing
assert error(pod.run, ["/etc"]) == (nsbox.CommandError, 126)
assert error(pod.run, ["true", "x" * 131072]) == (nsbox.CommandError, 126)
for nothing in ([], [""], ""):
    assert error(pod.run, nothing) == (nsbox.SpecError, 2), nothing
assert error(pod.run, ["a\0b"]) == (nsbox.SpecError, 2)
assert error(pod.run, ["true"], env={"A": "b\0c"}) == (nsbox.SpecError, 2)
assert error(pod.run, ["true"], cwd="/no/such") == (nsbox.NsboxError, 125)
assert error(pod.run, ["true"], rootfs="/no/such")[1] == 125
assert error(pod.run, ["true"], share=["wrong"]) == (nsbox.SpecError, 2)
assert error(nsbox.join, "nobody", ["true"]) == (nsbox.PodNotFound, 125)
assert error(nsbox.join, 2 ** 22 + 1, ["true"]) == (nsbox.PodNotFound, 125)
assert error(nsbox.join, "../x", ["true"]) == (nsbox.SpecError, 2)
assert error(nsbox.Pod, "../x") == (nsbox.SpecError, 2)
assert error(nsbox.Pod, "ok", init=[""]) == (nsbox.SpecError, 2)
assert error(nsbox.Pod("web").create) == (nsbox.PodExists, 125)
try:
    nsbox.Pod("later").pid
except RuntimeError:
    pass
else:
    raise AssertionError
pod.stop(0)
assert error(pod.run, ["true"]) == (nsbox.PodDead, 125)
""",
    )


def test_the_rest_of_a_pod_s_interface(host):
    """Pod.pid, run with env, cwd, rootfs; join by PID; pods; inspect; processes; kill; detach."""
    check(
        host,
        r"""
assert pod.run(["hostname"], capture_output=True, text=True).stdout == "web\n"
assert nsbox.join(pod.pid, ["hostname"], capture_output=True).stdout == b"web\n"
assert os.readlink(f"/proc/{pod.pid}/ns/net") != os.readlink("/proc/self/ns/net")
[info] = nsbox.pods()
assert (info.name, info.pid, info.status, info.members) == ("web", pod.pid, "running", 0), info
args = ["sh", "-c", "echo $A $B; pwd"]
said = pod.run(args, env={"A": "1", "B": "2"}, cwd="/tmp", capture_output=True)
assert said.stdout == b"1 2\n/tmp\n"
said = pod.run(["ls", "/"], rootfs="busybox", tmpfs=["/new"], capture_output=True, text=True).stdout
assert "new" in said.split()
args = ["readlink", "/proc/self/ns/pid"]
its_own = pod.run(args, share="net,ipc,uts", capture_output=True).stdout
assert its_own != pod.run(args, capture_output=True).stdout
pid = pod.detach(["sleep", "1000"])
assert pid in [row["pid"] for row in pod.processes()] and pod.inspect()["name"] == "web"
assert pod.processes()[0]["pod_pid"] == 1
assert pod.kill(signal.SIGTERM) == 1
pod.remove(); pod.remove(force=True)
assert nsbox.pods() == []
pod.create()
assert repr(pod) == f"<Pod 'web' pid={pod.pid}>"
""",
    )


def test_the_examples_of_the_docstrings_work(host):
    """Red when: the example at the top of nsbox/__init__.py names something that is not there."""
    import nsbox

    example = "\n".join(line for line in nsbox.__doc__.splitlines() if line.startswith("    "))
    assert "with nsbox.Pod" in example
    done = host.python(
        "import textwrap, nsbox\nexec(textwrap.dedent('''" + example + "'''))", check=True
    )
    pid, hostname = done.stdout.split("\n")[0].split(" ")
    assert pid.isdigit() and hostname.startswith("pod-")
