"""The words that publish a port: [IP:]HOST:POD[/PROTOCOL]. Touches nothing.

    8080:80             127.0.0.1:8080 of the host leads to port 80 of the pod
    :80 or 80           any free port of 127.0.0.1
    0.0.0.0:8080:80     all addresses, only because it is written
    [::1]:8080:80       IPv6 in brackets
    8000-8009:80-89     ranges of the same length
    5353:53/udp
"""

import re
from typing import NamedTuple

from .errors import SpecError
from .words import quote

DEFAULT_ADDRESS = "127.0.0.1"
RANGE_MAX = 1000  # more ports in one word are more likely a slip than a wish

_NUMBER = r"(?:0|[1-9][0-9]{0,4})"
_RANGE = rf"{_NUMBER}(?:-{_NUMBER})?"
_WORD = re.compile(
    rf"(?:(?P<address>\[[0-9A-Za-z:.%_-]+\]|[0-9]+(?:\.[0-9]+)+):)?(?:(?P<host>{_RANGE})?:)?(?P<pod>{_RANGE})"
    r"(?:/(?P<proto>tcp|udp))?",
    re.ASCII,
)
_V4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", re.ASCII)


class Port(NamedTuple):
    """One port of a pod and where it is reached.

    Attributes:
        proto: "tcp" or "udp".
        host_address: numeric, without brackets, in the one spelling that inet_ntop(3) gives it: addresses
            are compared as text. A zone stands after "%".
        host_port: 0 for any free one.
    """

    proto: str
    host_address: str
    host_port: int
    pod_port: int


def parse_publish(text: str) -> list[Port]:
    """The ports that one word publishes.

    Raises:
        SpecError: it is not of the form above, or a port is not 1 to 65535.
    """
    found = _WORD.fullmatch(text)
    # "1.2.3.4:80" would be an address and a pod's port; "1.2.3:80" is neither.
    if found is None or (found["address"] and found["host"] is None and f"{found['address']}::" not in text):
        raise _wrong(text, "it is not [IP:]HOST:POD[/tcp|/udp]")
    address = _address(text, found["address"])
    pod = _range(text, found["pod"])
    host = _range(text, found["host"]) if found["host"] is not None else [0] * len(pod)
    if len(host) != len(pod):
        raise _wrong(text, "the two ranges are not of the same length")
    proto = found["proto"] or "tcp"
    return [Port(proto, address, outer, inner) for outer, inner in zip(host, pod, strict=True)]


def _address(text: str, word: str | None) -> str:
    if word is None:
        return DEFAULT_ADDRESS
    if word.startswith("["):
        return _v6(text, word[1:-1])
    if not _V4.fullmatch(word) or any(int(part) > 255 for part in word.split(".")):
        raise _wrong(text, f"{word} is no IPv4 address")
    return word


def _v6(text: str, word: str) -> str:
    import socket  # only words with brackets need it

    number, percent, zone = word.partition("%")
    try:
        number = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, number))
    except OSError:
        raise _wrong(text, f"{word} is no IPv6 address") from None
    if percent and (not zone or "%" in zone):
        raise _wrong(text, f"{word} names no interface after %")
    return number + percent + zone


def _range(text: str, word: str) -> list[int]:
    first, _, last = word.partition("-")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise _wrong(text, f"{word} is no port, nor a range of them: 1 to 65535")
    if high - low >= RANGE_MAX:
        raise _wrong(text, f"{word} is a range of more than {RANGE_MAX} ports")
    return list(range(low, high + 1))


def _wrong(text: str, why: str) -> SpecError:
    return SpecError(f"cannot publish {quote(text)}: {why}", hint="for example 8080:80, or 0.0.0.0:5353:53/udp")
