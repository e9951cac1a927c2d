"""Pods out of raw Linux namespaces, without Docker.

    with nsbox.Pod(rootfs="busybox") as pod:
        print(pod.pid, pod.run(["hostname"], capture_output=True, text=True).stdout)

Importing this costs nothing: a name is loaded when it is first used. It loads no other module
either: by ``python -m nsbox`` that would come from the current directory, see __main__.py.
"""

TYPE_CHECKING = False  # mypy takes it for typing.TYPE_CHECKING
if TYPE_CHECKING:
    from typing import Any

    from .errors import (
        CommandError,
        KernelError,
        NsboxError,
        PodDead,
        PodExists,
        PodNotFound,
        SpecError,
    )
    from .pod.api import Pod, PodInfo, join, pods
    from .pod.popen import Member

__all__ = [
    "CommandError",
    "KernelError",
    "Member",
    "NsboxError",
    "Pod",
    "PodDead",
    "PodExists",
    "PodInfo",
    "PodNotFound",
    "SpecError",
    "join",
    "pods",
]

_HOME = {"Pod": "pod.api", "PodInfo": "pod.api", "join": "pod.api", "pods": "pod.api", "Member": "pod.popen"}


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module 'nsbox' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"nsbox.{_HOME.get(name, 'errors')}"), name)
