"""Named tuples to plain values for JSON, and back with every value checked.

Knows nothing of pods: spec.py lists a decoder for each field of its tuples. A decoder
takes a value and the place where it stands ("pod.root.path", for the message), and
returns what the tuple holds or raises SpecError. The schema is finite, so a hostile file
cannot make this recurse.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from .errors import SpecError

T = TypeVar("T")
Decoder = Callable[[Any, str], Any]
Law = Callable[[str], str]  # what is wrong with a text, or ""


def plain_record(record: NamedTuple) -> dict[str, Any]:
    """`record` as a dictionary of values that JSON knows."""
    return {key: plain(value) for key, value in record._asdict().items()}


def plain(value: Any) -> Any:
    """`value` as JSON knows it: a set as a sorted list, bytes as text.

    Bytes that are not UTF-8 become surrogates, whatever the locale, so that each comes back.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, frozenset):
        return sorted(value)
    if hasattr(value, "_asdict"):
        return plain_record(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def bytes_fault(text: str) -> str:
    """The law of what goes to the kernel: text that stands for bytes, and no NUL in it."""
    try:
        return "it holds a NUL" if b"\0" in text.encode("utf-8", "surrogateescape") else ""
    except UnicodeEncodeError:  # a surrogate that surrogateescape did not make
        return "it stands for no bytes"


def path_fault(path: str) -> str:
    """The law of an absolute path."""
    return bytes_fault(path) or ("" if path.startswith("/") else "it is not an absolute path")


def exactly(kind: type) -> Decoder:
    """Values of this very type: True is no int here."""
    def decode(value: Any, where: str) -> Any:
        if type(value) is not kind:
            raise _wrong(where, value, f"it is not of type {kind.__name__}")
        return value
    return decode


def number(kind: type, low: float, high: float) -> Decoder:
    """Numbers from `low` to `high`; a whole number is a good float too."""
    def decode(value: Any, where: str) -> Any:
        if type(value) not in (kind, int):
            raise _wrong(where, value, "it is not a number of this kind")
        if not low <= value <= high:  # in this form it refuses nan too
            raise _wrong(where, value, f"it is not between {low} and {high}")
        return kind(value)
    return decode


def text(law: Law) -> Decoder:
    """Text that the law finds nothing wrong with."""
    def decode(value: Any, where: str) -> str:
        if type(value) is not str:
            raise _wrong(where, value, "it is not text")
        if why := law(value):
            raise _wrong(where, value, why)
        return value
    return decode


def raw(law: Law) -> Decoder:
    """Bytes, from the text that :func:`plain` made of them; `law` includes bytes_fault."""
    checked = text(law)

    def decode(value: Any, where: str) -> bytes:
        return bytes(checked(value, where).encode("utf-8", "surrogateescape"))
    return decode


def sequence(
    item: Decoder, make: Callable[[Iterable[Any]], T], least: int = 0
) -> Callable[[Any, str], T]:
    """A list, as a tuple or frozenset."""
    def decode(value: Any, where: str) -> T:
        if type(value) is not list:
            raise _wrong(where, value, "it is not a list")
        if len(value) < least:
            raise _wrong(where, value, "it is too short")
        return make(item(each, f"{where}[{at}]") for at, each in enumerate(value))
    return decode


def pair(first: Decoder, second: Decoder) -> Decoder:
    """A list of two."""
    def decode(value: Any, where: str) -> tuple[Any, Any]:
        if type(value) is not list or len(value) != 2:
            raise _wrong(where, value, "it is not a pair")
        return first(value[0], where), second(value[1], where)
    return decode


def or_none(item: Decoder) -> Decoder:
    """null, or what `item` takes."""
    return lambda value, where: None if value is None else item(value, where)


def lawful(item: Callable[[Any, str], T], law: Callable[[T], str]) -> Callable[[Any, str], T]:
    """What `item` takes, if the law finds nothing wrong with the whole."""
    def decode(value: Any, where: str) -> T:
        made = item(value, where)
        if why := law(made):
            raise _wrong(where, value, why)
        return made
    return decode


def record(make: Callable[..., T], decoders: Mapping[str, Decoder]) -> Callable[[Any, str], T]:
    """A dictionary, as a named tuple. A key may be missing where the tuple has a default."""
    defaults: Mapping[str, Any] = getattr(make, "_field_defaults")

    def decode(value: Any, where: str) -> T:
        if type(value) is not dict:
            raise _wrong(where, value, "it is not a dictionary")
        if unknown := value.keys() - decoders.keys():
            raise _wrong(where, min(unknown, key=repr), "this key is unknown")
        if missing := decoders.keys() - defaults.keys() - value.keys():
            raise _wrong(where, min(missing), "this key is missing")
        return make(**{key: decoders[key](item, f"{where}.{key}") for key, item in value.items()})
    return decode


def _wrong(where: str, value: object, why: str) -> SpecError:
    return SpecError(f"cannot read the spec: {where}: {value!r:.80}: {why}")
