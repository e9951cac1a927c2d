"""The pause in Python: PID 1 of a pod, which holds its namespaces and reaps; nothing else.

The text to read before the assembly files beside it, and what a pod runs on machines that have none
of these: there the forked interpreter stays. Law: import only os and signal, and nothing after the
start, when the root directory is the pod's and an import could run a file of the pod.
"""

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Be the pause until told to stop. Leaves by _exit: a fork runs no atexit of its parent."""
    os._exit(hold_namespaces())


def hold_namespaces() -> int:
    """Wait until told to stop from outside; return the exit status, whatever the children do.

    Every signal is blocked and waited for. Unblocked, PID 1 would not get it, not even from the
    host: see pid_namespaces(7). One left pending would fill the queue.
    """
    every_signal = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, every_signal)
    reap()  # the SIGCHLD of a child that died before is gone already
    while True:
        got = signal.sigwaitinfo(every_signal)
        if got.si_signo == signal.SIGCHLD:
            reap()
        elif got.si_signo in (signal.SIGTERM, signal.SIGINT) and is_from_outside(got):
            return 0


def reap() -> None:
    """Collect every dead child. One SIGCHLD may stand for many, so loop until none is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def is_from_outside(got: signal.struct_siginfo) -> bool:
    """Tell whether the sender has no PID in our namespace, which the kernel shows as 0.

    Below zero in si_code are the signals of which the sender itself wrote si_pid: they prove
    nothing. See rt_sigqueueinfo(2). What remains: a member that first fills the signal queue (to
    RLIMIT_SIGPENDING) makes such a signal lose its siginfo, which then reads as all zeros; so it
    can stop its own pod, and only that.
    """
    return got.si_code >= 0 and got.si_pid == 0


if __name__ == "__main__":
    main()
