"""Two pods that claim one thing: an address, a cable, a port of the host.

nsbox gives nothing to two of them; somebody edited a record, or restored one. What the kernel shows
decides: whose id the host's end of the cable carries, whose address is in the pod, whose proxy answers.
Where it shows nothing, who was made first has it. Of the other one nothing is believed.
"""

from typing import TYPE_CHECKING, Hashable, Iterator, NamedTuple, Sequence

from ..errors import NsboxError
from .netrecord import Nat, Plug, Tie, pod_alias
from .record import PodRecord

if TYPE_CHECKING:
    from .networld import LivingPod


class _Claim(NamedTuple):
    """Something of a pod that no other one can have."""

    pod: "LivingPod"
    by: Plug | Tie | Nat
    words: str


def contested(pods: Sequence["LivingPod"]) -> dict[str, str]:
    """By name the pods that claim what another one has, and in words what that is.

    The kernel is asked only where two claim one thing.
    """
    found: dict[str, str] = {}
    by_what: dict[Hashable, list[_Claim]] = {}
    for pod in pods:
        for what, claim in _claims(pod):
            by_what.setdefault(what, []).append(claim)
    for claims in by_what.values():
        if len(claims) < 2:
            continue
        winner = min(claims, key=lambda one: (not _is_evident(one), one.pod.record.created_s, one.pod.record.name)).pod
        found.update({one.pod.record.name: f"it claims {one.words}, which pod {winner.record.name!r} has"
                      for one in claims if one.pod is not winner})  # fmt: skip
    return found


def _claims(pod: "LivingPod") -> Iterator[tuple[Hashable, _Claim]]:
    for plug in pod.links.plugs:
        yield ("link", plug.host_ifname), _Claim(pod, plug, f"the link {plug.host_ifname}")
        for word in (plug.mac, plug.v6, plug.v4):
            yield (plug.network_id, word), _Claim(pod, plug, word)
    for tie in pod.links.ties:
        yield ("tie", tie.address), _Claim(pod, tie, tie.address)
    for nat in pod.links.nats:
        yield tuple(nat[:3]), _Claim(pod, nat, f"port {nat.host_port}/{nat.proto} of {nat.host_address}")


def _is_evident(claim: _Claim) -> bool:
    """Whether the kernel, or the proxy, shows that what is claimed is the pod's."""
    record, by = claim.pod.record, claim.by
    if isinstance(by, Nat):
        return _serves(record.name, by)
    if isinstance(by, Tie):
        return _has_address(record, by.address)
    from ..net import links

    return links.alias_of(by.host_ifname) == pod_alias(record.id) and _has_address(record, by.v4)


def _has_address(record: PodRecord, v4: str) -> bool:
    """Whether the pod's network has that address as its own: fib_trie, see proc_pid_net(5)."""
    try:
        with open(f"/proc/{record.pause.pid if record.pause else 0}/net/fib_trie", encoding="ascii") as file:
            before = ""
            for line in file:
                if "host LOCAL" in line and before.split()[-1:] == [v4]:
                    return True
                before = line
    except OSError:
        pass  # it has just ended
    return False


def _serves(name: str, nat: Nat) -> bool:
    """Whether the pod's proxy has that port."""
    from . import publish

    try:
        return any(row["state"] == "open" and tuple(row[key] for key in Nat._fields) == tuple(nat)
                   for row in publish.published(name))  # fmt: skip
    except NsboxError:
        return False
