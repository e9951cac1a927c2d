"""Fixtures and markers. No test touches the kernel as root outside a fake host: see fakehost.py."""

import os
import pickle
import shutil
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fakehost import SETTLE_S, UID, FakeHost, probed
from hostile import Canary, make_rootfs
from procfs import children, until

# In continuous integration a skipped test looks like a passed one, so there it fails.
MUST_RUN = os.environ.get("NSBOX_TESTS_MUST_RUN", "") not in ("", "0")
UNSHARE = {"mnt": "--mount", "pid": "--pid", "net": "--net", "uts": "--uts", "ipc": "--ipc",
           "user": "--user", "cgroup": "--cgroup", "time": "--time"}
CHILD_TIMEOUT_S = 60.0


def pytest_configure() -> None:
    """Give the programs that are tested the signals of a terminal, also where the tests run behind `&`, which ignores them."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


# ---- markers: probe by trying, once a run ----

def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers():
        if mark.name == "needs_root":
            skip_or_fail(why_no_root())
        elif mark.name == "needs_ns":
            skip_or_fail(why_no_namespaces(*mark.args))


def skip_or_fail(reason: str) -> None:
    """Skip the running test, if there is a reason; fail it where nothing may be skipped."""
    if reason and MUST_RUN:
        pytest.fail(f"{reason}, and NSBOX_TESTS_MUST_RUN allows no skip", pytrace=False)
    elif reason:
        pytest.skip(reason)


@cache
def why_no_root() -> str:
    if os.geteuid() != 0:
        return "needs root"
    return why_no_namespaces("mnt", "pid", "net", "uts", "ipc")


@cache
def why_no_namespaces(*kinds: str) -> str:
    tried = subprocess.run(["unshare", "--fork", *(UNSHARE[kind] for kind in kinds), "true"],
                           capture_output=True, text=True, check=False)
    return f"no new namespaces {', '.join(kinds)}: {tried.stderr.strip()}" if tried.returncode else ""


def needs_program(name: str) -> None:
    """Skip the running test, or fail it, if there is no such program."""
    skip_or_fail("" if shutil.which(name) else f"needs the program {name}")


# ---- fake hosts ----

@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """Where this run keeps its things. Whatever of ours is alive afterwards names this directory."""
    path = Path(tempfile.mkdtemp(prefix="nsbox-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def the_machine_is_untouched(base: Path) -> Iterator[None]:
    """After the run no process, mount or link of ours is on the real host."""
    links = set(os.listdir("/sys/class/net"))
    probed.start()  # now, since it is kept, and a test may leave no child
    yield
    found: list[str] = []
    for _ in until(SETTLE_S, pause=0.1):
        found = [*ours_in_proc(base), *ours_mounted(base)]
        found += [f"link {name}" for name in os.listdir("/sys/class/net")
                  if name not in links and name.startswith("nsb")]
        if not found:
            return
    raise AssertionError("left on the real host:\n" + "\n".join(found))


def ours_in_proc(base: Path) -> Iterator[str]:
    mark = os.fsencode(base)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                said = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:  # it has ended, or belongs to somebody else
                continue
            if mark in said and int(pid) != os.getpid():
                yield f"process {pid}: {said[:200]!r}"


def ours_mounted(base: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if str(base) in line or " /run/nsbox" in line:
            yield f"mount {line}"


@pytest.fixture(autouse=True)
def this_process_is_untouched() -> Iterator[None]:
    """A test changes no namespace of the test run, and leaves it no child, dead or alive."""
    before = own_namespaces(), children(os.getpid())
    yield
    assert own_namespaces() == before[0], "the test run is in other namespaces now"
    for _ in until(10.0):
        left = [pid for pid in children(os.getpid()) if pid not in before[1] and not is_kept(pid)]
        if not left:
            return
    names = [Path(f"/proc/{pid}/stat").read_text().split()[1:3] for pid in left]
    raise AssertionError(f"children left: {names}")


def own_namespaces() -> dict[str, str]:
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")}


def is_kept(pid: int) -> bool:
    """The library's spawner is started once and kept: it is alive, and says so by its name."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return "(nsbox:spawn" in stat and ") Z " not in stat


def build_store(base: Path, name: str, uid: int) -> Path:
    store = base / name
    store.mkdir()
    os.chown(store, uid, uid)
    with FakeHost(base, uid=uid, store=store) as host:
        done = host.nsbox("rootfs", "build", "busybox")
        assert done.returncode == 0, done.stderr
    return store


@pytest.fixture(scope="session")
def store(base: Path) -> Path:
    """A store of root's that holds the root file system "busybox"."""
    skip_or_fail(why_no_root())
    return build_store(base, "store", 0)


@pytest.fixture(scope="session")
def user_store(base: Path) -> Path:
    """The same, of the ordinary user."""
    skip_or_fail(why_no_root())
    return build_store(base, "user-store", UID)


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store for this test alone, for what runs in the test process itself."""
    where = tmp_path / "store"
    monkeypatch.setenv("NSBOX_STORE", str(where))
    return where


@pytest.fixture
def bare_host(base: Path) -> Iterator[FakeHost]:
    """A fake host whose store is empty; at the end everything in it must be as at the start."""
    skip_or_fail(why_no_root())
    yield from unchanged(FakeHost(base))


# Who calls nsbox in a test that is marked with rootless_too, if the mark does not say it. The pods that the
# last one makes have --userns auto.
CALLERS = ("root", "user", "user with subuids")
SUBUIDS = {"passwd": f"alice:x:{UID}:{UID}::/:/bin/sh\n", "subuid": "alice:300000:65536\n", "subgid": "alice:300000:65536\n"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if mark := metafunc.definition.get_closest_marker("rootless_too"):
        metafunc.parametrize("host", mark.args or CALLERS, indirect=True)


@pytest.fixture
def host(request: pytest.FixtureRequest, base: Path) -> Iterator[FakeHost]:
    """A fake host with the store; at the end everything in it must be as it was at the start.

    Root's, unless the test is marked with rootless_too: see CALLERS.
    """
    caller = getattr(request, "param", "root")
    if caller == "root":
        yield from unchanged(FakeHost(base, store=request.getfixturevalue("store")))
        return
    skip_or_fail(why_no_namespaces("user"))
    made = FakeHost(base, uid=UID, store=request.getfixturevalue("user_store"))
    if caller == "user with subuids":
        give_subuids(made)
    yield from unchanged(made)


def give_subuids(host: FakeHost) -> None:
    """Its user has a name and 65536 further uids and gids, and uses them."""
    needs_program("newuidmap")
    for name, line in SUBUIDS.items():
        path = host.scratch / name
        path.write_text(line + Path("/etc", name).read_text())
        path.chmod(0o644)
        host.run(["mount", "--bind", path, f"/etc/{name}"], user=0, check=True)
    host.pods_get = ("--userns", "auto")


@pytest.fixture
def user_host(base: Path, user_store: Path) -> Iterator[FakeHost]:
    """The same, where commands run as an ordinary user with an $XDG_RUNTIME_DIR."""
    yield from unchanged(FakeHost(base, uid=UID, store=user_store))


def unchanged(host: FakeHost) -> Iterator[FakeHost]:
    with host:
        before = host.snapshot()
        yield host
        host.assert_same_as(before)


@pytest.fixture
def canary(host: FakeHost) -> Iterator[Canary]:
    """Files under /canary of the fake host that nothing may touch; checked at the end."""
    yield from Canary.watched(host)


@pytest.fixture
def rootfs(base: Path) -> Iterator[Path]:
    """A small root file system of busybox for this test alone, to be changed at will."""
    path = Path(tempfile.mkdtemp(prefix="rootfs-", dir=base))
    yield make_rootfs(path)
    shutil.rmtree(path, ignore_errors=True)


# ---- a child for what would change the test run ----

@pytest.fixture
def in_child() -> Callable[..., Any]:
    """Call a function in a forked child: its result is returned, its exception raised, here."""
    return call_in_child


def call_in_child(function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(CHILD_TIMEOUT_S))  # its default action ends a child that hangs
        _answer(write_fd, function, args, kw)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        said = pipe.read()
    wait_status = os.waitpid(pid, 0)[1]
    assert said, f"the child said nothing and ended with {os.waitstatus_to_exitcode(wait_status)}"
    good, result, trace = pickle.loads(said)
    if not good:
        raise result from RuntimeError(f"in the child:\n{trace}")
    return result


def _answer(write_fd: int, function: Callable[..., Any], args: Any, kw: Any) -> None:
    """Write the outcome and end. Never returns: two test runs would go on from here."""
    try:
        try:
            answer = pickle.dumps((True, function(*args, **kw), ""))
        except BaseException as err:
            trace = traceback.format_exc()
            try:
                answer = pickle.dumps((False, err, trace))
            except Exception:
                answer = pickle.dumps((False, RuntimeError(repr(err)), trace))
        with open(write_fd, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
