"""The plan of the networks: a box for each namespace, a line for each cable, an arrow for each published port."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from .drawing import CHAR, MARK, SIGNS, Box, Drawing, Item, Line, Mark, Text, cut, length
from .trees import endpoint, far_name, is_idle
from .view import Cell, View

_ROW, _HEAD, _PAD = 22, 34, 12
_WIDTH_MIN, _WIDTH_MAX = 240.0, 400.0
_GAP_X, _GAP_Y = 130, 16
_STRIP = 820.0
_CENTRE_UP_TO = 900  # a higher column begins at the top, where people look first

Anchor = tuple[Any, ...]  # what a line can lead to: a link of a network, who listens there, or the network


class _Line(NamedTuple):
    text: str
    anchor: Anchor
    indent: int = 0
    style: str = ""
    change: str = ""

    @property
    def key(self) -> Anchor:
        """What it is in a box, in an earlier picture too."""
        return self.anchor[:1] + self.anchor[2:]


class _Net(NamedTuple):
    cell: Cell
    name: str
    lines: tuple[_Line, ...]
    idle: bool
    change: str = ""

    @property
    def height(self) -> float:
        return _HEAD + _ROW * len(self.lines) + _PAD

    @property
    def width(self) -> float:
        longest = max([length(self.name) + MARK + 8, *(length(line.text) + line.indent for line in self.lines)])
        return min(max(longest + 2 * _PAD, _WIDTH_MIN), _WIDTH_MAX)


def draw(view: View) -> Drawing:
    """Your own network to the left, those of the others to the right of it."""
    own: list[_Net] = []
    others: list[_Net] = []
    idle: dict[str, list[Cell]] = {}
    for one in _nets(view):
        if one.cell.shape == "own":
            own.append(one)
        elif one.idle:
            idle.setdefault(one.change, []).append(one.cell)
        else:
            others.append(one)
    return _laid_out(own, others, idle, view)


def _nets(view: View) -> Iterator[_Net]:
    """Of now, with what came and went in each, then those that are gone."""
    before = {one.cell.letter: one for one in _nets(view.earlier)} if view.earlier else {}
    rows = {net["id"]: net for net in view.picture["nets"]}
    for space in view.drawn("net"):
        net, cell = rows.get(space["id"]), view.cell(space["id"])
        one = _Net(cell, view.name_of(space["id"]), tuple(_lines(space["id"], net, view)), is_idle(net, view))
        if view.earlier:
            was = before.pop(cell.letter, None)
            one = _changed(one, was) if was else _marked(one, "new")
        yield one
    yield from (_marked(one, "gone") for one in before.values())


def _marked(net: _Net, change: str) -> _Net:
    return net._replace(change=change, lines=tuple(line._replace(change=change) for line in net.lines))


def _changed(net: _Net, before: _Net) -> _Net:
    old = {line.key: line for line in before.lines}
    lines = []
    for line in net.lines:
        was = old.pop(line.key, None)
        change = "new" if was is None else "moved" if was.text != line.text else ""
        lines.append(line._replace(change=change))
    lines += [line._replace(change="gone", anchor=("gone", *line.anchor)) for line in old.values()]
    return net._replace(lines=tuple(lines), idle=net.idle and not any(line.change for line in lines))


def _lines(number: int, net: dict[str, Any] | None, view: View) -> Iterator[_Line]:
    if net is None or net["problem"]:
        yield _Line(f"cannot be looked at: {net['problem'] if net else 'gone'}", ("", number), style="muted")
        return
    numbers = {link["index"] for link in net["links"]}
    for link in net["links"]:
        if link["master"] not in numbers:
            yield _link(number, link, 0, view)
            yield from (_link(number, port, 16, view) for port in net["links"] if port["master"] == link["index"])
    listened = set()
    for one in net["listens"]:
        who = view.processes[one["pid"]]["name"] if one["pid"] in view.processes else ""
        listened.add((one["proto"], one["address"], one["port"]))
        anchor = ("listens", number, one["proto"], one["port"], one["address"])
        yield _Line(f"◂ {endpoint(one['address'], one['port'], one['proto'])} {who}".rstrip(), anchor, style="listens")
    if number == view.picture["own"].get("net"):
        for row in view.picture["published"]:  # by rules of the kernel: nobody listens there
            place = (row["proto"], row["host_address"], row["host_port"])
            if place not in listened and row["net"] in view.scope:
                anchor = ("listens", number, place[0], place[2], place[1])
                yield _Line(f"◂ {endpoint(place[1], place[2], place[0])} {row['state']}", anchor, style="listens")


def _link(net: int, link: dict[str, Any], indent: int, view: View) -> _Line:
    words = [link["name"], link["kind"] if link["kind"] not in ("veth", "") else ""]
    words += [address for address in link["addresses"] if not address.startswith("fe80:") and ":" not in address]
    words.append("" if link["up"] else "down")
    if link["peer"] is not None and link["peer"]["net"] not in view.scope:
        words.append(f"↔ {far_name(link, view)}")
    return _Line(" ".join(filter(None, words)), ("link", net, link["index"]), indent)


# ---- places ----

def _laid_out(own: list[_Net], others: list[_Net], idle: dict[str, list[Cell]], view: View) -> Drawing:
    left = max((net.width for net in own), default=0)
    right = max((net.width for net in others), default=0)
    x = left + _GAP_X if own and others else 0
    height = sum(net.height + _GAP_Y for net in others) - _GAP_Y if others else 0
    tall = sum(net.height for net in own)
    places: dict[Anchor, tuple[float, float, float]] = {}  # left edge, right edge, height
    items: list[Item] = []
    start = max((height - tall) / 2, 0) if height < _CENTRE_UP_TO else 0.0
    compared = view.earlier is not None
    for net in own:
        items += _box(net, 0, start, left, places, compared)
    y = 0.0
    for net in others:
        items += _box(net, x, y, right, places, compared)
        y += net.height + _GAP_Y
    bottom = max(y - _GAP_Y, start + tall, 0)
    lines = [*_cables(view, places), *_published(view, places)]
    width = max(x + right + 60 * any(line.style == "cable tie" for line in lines), left, _WIDTH_MAX)
    width = max(width, min(max(map(len, idle.values()), default=0) * (MARK + 6.0), _STRIP))
    for change, cells in idle.items():
        bottom = _idle_strip(cells, width, bottom, items, change, compared and not change)
    return Drawing(width, bottom, (*lines, *items))


def _box(
    net: _Net, x: float, y: float, width: float, places: dict[Anchor, tuple[float, float, float]], compared: bool
) -> list[Item]:
    style = " ".join(filter(None, ("box", "own" * (net.cell.shape == "own"), net.change)))
    name = f"yours: {net.name}" if net.cell.shape == "own" and net.name != "yours" else net.name
    faded = compared and not net.change
    items: list[Item] = [
        Box(x, y, width, net.height, style),
        Mark(x + _PAD + MARK / 2 - 2, y + _HEAD / 2 + 1, net.cell, f"net {net.cell.letter}, {net.name}", faded),
        Text(x + _PAD + MARK + 6, y + _HEAD / 2 + 5.5, cut(_signed(name, net.change), width - MARK - 2 * _PAD),
             "strong", faded=faded),
    ]
    places["net", net.cell.id] = x, x + width, y + _HEAD / 2
    for number, line in enumerate(net.lines):
        middle = y + _HEAD + _ROW * number + _ROW / 2 - 2
        room = width - 2 * _PAD - line.indent
        items.append(Text(x + _PAD + line.indent, middle + 4.5, cut(_signed(line.text, line.change), room),
                          line.style, faded=compared and not line.change))
        places[line.anchor] = x, x + width, middle
    return items


def _signed(text: str, change: str) -> str:
    return f"{SIGNS[change]} {text}" if change else text


def _cables(view: View, places: dict[Anchor, tuple[float, float, float]]) -> Iterator[Line]:
    known = _cable_ends(view.earlier) if view.earlier else {}
    for ends, (here, there, label) in _cable_ends(view).items():
        if here in places and there in places:
            style = "" if not view.earlier else " faded" if ends in known else " new"
            yield _between(places[here], places[there], "cable" + style, "+ " * (style == " new") + label)


def _cable_ends(view: View) -> dict[Anchor, tuple[Anchor, Anchor, str]]:
    """Each cable by its two ends, in letters that an earlier picture has too; where it is, and its label."""
    found = {}
    for net in view.picture["nets"]:
        for link in net["links"]:
            here, peer = ("link", net["id"], link["index"]), link["peer"]
            if peer is None or peer["net"] not in view.named or net["id"] not in view.named:
                continue
            there = ("link", peer["net"], peer["index"])
            if here < there:  # each cable has two ends
                ends = sorted((view.named[number]["letter"], index) for _, number, index in (here, there))
                found[tuple(ends)] = (here, there, f"cable {link['name']} to {far_name(link, view)}")
    return found


def _published(view: View, places: dict[Anchor, tuple[float, float, float]]) -> Iterator[Line]:
    own = view.picture["own"].get("net")
    known = list(map(_port, view.earlier.picture["published"])) if view.earlier else []
    for row in view.picture["published"]:
        here = ("listens", own, row["proto"], row["host_port"], row["host_address"])
        inside = [anchor for anchor in places
                  if anchor[:4] == ("listens", row["net"], row["proto"], row["pod_port"])]  # fmt: skip
        there = inside[0] if inside else ("net", row["net"])
        if here in places and there in places:
            where = endpoint(row["host_address"], row["host_port"], row["proto"])
            label = f"{where} leads to port {row['pod_port']} of pod {row['pod']}"
            style = "" if not view.earlier else " faded" if _port(row) in known else " new"
            yield _between(places[here], places[there], "publish" + style, "+ " * (style == " new") + label)


def _port(row: dict[str, Any]) -> Anchor:
    return tuple(row[key] for key in ("pod", "proto", "host_address", "host_port", "pod_port"))


def _between(one: tuple[float, float, float], other: tuple[float, float, float], style: str, label: str) -> Line:
    """A curve from the edge of one box to that of another, or round the right side within a column."""
    (left, right, y), (far_left, far_right, far_y) = (one, other) if one[0] <= other[0] else (other, one)
    if left == far_left:
        bend = right + 50
        d = f"M{right:g} {y:g}C{bend:g} {y:g} {bend:g} {far_y:g} {far_right:g} {far_y:g}"
        return Line(d, f"{style} tie", label)
    middle = (right + far_left) / 2
    return Line(f"M{right:g} {y:g}C{middle:g} {y:g} {middle:g} {far_y:g} {far_left - 2:g} {far_y:g}", style, label)


def _idle_strip(
    idle: list[Cell], width: float, y: float, items: list[Item], change: str, faded: bool
) -> float:
    """Networks with nothing to draw, as a row of marks."""
    text = _signed(f"nothing but lo, and nobody listens ({len(idle)}):", change)
    y += 30 if y else 16
    items.append(Text(0, y, text, "" if change else "muted", faded=faded))
    x = length(text) + 2 * CHAR
    if x + len(idle) * (MARK + 6) > width:
        x, y = 0, y + MARK + 6
    for cell in idle:
        if x + MARK > width:
            x, y = 0, y + MARK + 6
        items.append(Mark(x + MARK / 2, y - 4.5, cell, f"net {cell.letter}", faded))
        x += MARK + 6
    return y + 14
