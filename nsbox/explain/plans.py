"""What stop, kill and rm, and a build would do, worked out without doing it.

The processes are looked up as the verbs do; which of them obey is their own affair, so what
depends on that is told with its condition.
"""

import os
import signal
from collections.abc import Iterable

from ..errors import NsboxError
from ..images import foretell
from ..pod import ending, rivals, store, target
from . import catalogue
from .teller import Told


class Plan:
    """Signals, in their order, as if they had been told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self._tasks = 0

    def end(self, name: str, *, force: bool, grace_s: float | None) -> None:
        """What ends a pod.

        Args:
            grace_s: seconds between TERM and KILL; None is the pod's own.

        Raises:
            PodNotFound: there is none. NsboxError: it is not known what belongs to it.
        """
        entry, is_copy = rivals.judged(store.look(name))
        record = entry.record
        if record is None:
            raise NsboxError(f"cannot say how to end pod {name!r}: its record is corrupt")
        if entry.status != "running" or record.pause is None or is_copy:
            return
        wait_s = 0.0 if force else record.stop_timeout_s if grace_s is None else grace_s
        for pid in ending.supervisors(record):
            self._signal(pid, signal.SIGCONT)
        members = ending.who_gets_signals(record)
        if wait_s > 0:
            for pid in members:
                self._signal(pid, signal.SIGTERM)
        for pid in members:
            self._signal(pid, signal.SIGKILL, f"if it is still there after {wait_s:g} s" if wait_s > 0 else "")
        self._signal(record.pause.pid, signal.SIGTERM)
        self._signal(record.pause.pid, signal.SIGKILL, "if it is still there after that")

    def kill(self, text: str, signum: int) -> None:
        """What a signal to a pod's members, or to one process, goes to."""
        found = target.find(text)
        try:
            for pid in [found.pid] if found.pod is None else ending.who_gets_signals(found.pod):
                self._signal(pid, signum)
        finally:
            found.close()

    def build(self, steps: Iterable[foretell.Step]) -> None:
        """What makes or removes a root file system."""
        for step in steps:
            if step.env is None:
                self._call("store", 0, "rename", tuple(step.words), step.doing)
                continue
            self._tasks += 1
            self._call("store", 0, "vfork", (step.words, step.env, ""), "child", child=self._tasks)
            args = (step.words[0], step.words, step.env, "")
            self._call(os.path.basename(step.words[0]), self._tasks, "execve", args, step.doing)

    def _call(self, who: str, task: int, call: str, args: tuple[object, ...], doing: str, *, child: int = -1) -> None:
        told = Told(len(self.told) + 1, task, who, call, catalogue.written(call, args), 0, "", doing,
                    catalogue.why(call, args, doing), catalogue.man(call, args, ""), list(args), {}, child)  # fmt: skip
        self.told.append(told)

    def _signal(self, pid: int, signum: int, condition: str = "") -> None:
        shown = catalogue.written("pidfd_send_signal", (0, signum, None, 0)).replace("(0,", f"(pidfd of {pid},")
        why = catalogue.why("pidfd_send_signal", (0, signum), "")
        man = catalogue.man("pidfd_send_signal", (0, signum), "")
        why = f"{condition}: {why}" if condition else why
        self.told.append(
            Told(len(self.told) + 1, 0, "nsbox", "pidfd_send_signal", shown, 0, "", condition, why, man,
                 [0, int(signum), None, 0], {"0": f"pidfd:{pid}"})
        )  # fmt: skip
