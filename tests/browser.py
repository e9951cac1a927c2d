"""A browser without a window, in a fake host, asked through a pipe: the DevTools protocol of Chromium.

It has the fake host's network, which leads nowhere. Messages are JSON with a NUL after each.
"""

import base64
import json
import os
import select
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from conftest import needs_program
from fakehost import FakeHost

ANSWER_S = 60.0
START = 'exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run ' \
        '--user-data-dir="$3" --remote-debugging-pipe about:blank 3<&"$1" 4>&"$2" >/dev/null 2>&1'
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Tab": 9}


class Browser:
    """One page.

    Attributes:
        wrong: what the page complained of: exceptions, blocked scripts, failed loads.
        loaded: every address that it asked for.
    """

    def __init__(self, to_fd: int, from_fd: int) -> None:
        self._to, self._from, self._rest = to_fd, from_fd, b""
        self._number, self._session = 0, ""
        self.wrong: list[str] = []
        self.loaded: list[str] = []
        [target] = [one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (said := self._next()).get("id") != self._number:
            self._note(said)
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._from], [], [], left)[0], "the browser does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        raw, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(raw)
        return said

    def _note(self, said: dict[str, Any]) -> None:
        method, params = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.wrong.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.wrong.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.loaded.append(params["request"]["url"])

    def open(self, url: str, *, width: int = 1300, height: int = 1000, scheme: str = "light", scripts: bool = True) -> None:
        """Go to a page, and wait until it is there."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.ask("Page.navigate", url=url)
        self.until(lambda: scripts is False or self.js("document.readyState") == "complete" and self.js("location.href") != "about:blank")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def until(self, true: Callable[[], Any]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + ANSWER_S
        while not true():
            assert time.monotonic() < deadline, "it did not come"
            time.sleep(0.05)

    def key(self, key: str) -> None:
        """Press and let go."""
        text = key if len(key) == 1 else ""
        code = KEYS.get(key, ord(key[0].upper()))
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                     **({"text": text} if text and kind == "keyDown" else {}))

    def point(self, selector: str) -> None:
        """Move the mouse over an element."""
        box = self.js(f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView({{block: 'center'}});"
                      "const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()")
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def screenshot(self) -> "Pixels":
        """What there is to see."""
        return Pixels(self.screenshot_png())

    def screenshot_png(self) -> bytes:
        """The same as a file."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def spoken(self) -> list[tuple[str, str]]:
        """(role, name) of what a screen reader is told, in order."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [(node.get("role", {}).get("value", ""), node.get("name", {}).get("value", "")) for node in nodes
                if not node.get("ignored")]


class Pixels:
    """A PNG of 8 bits a channel, as the browser writes it."""

    def __init__(self, png: bytes) -> None:
        self.png = png
        self.width, self.height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
        depth, kind = png[24], png[25]
        assert png[:8] == b"\x89PNG\r\n\x1a\n" and depth == 8 and kind in (2, 6)
        self._step = 3 if kind == 2 else 4
        self._rows = self._decoded(zlib.decompress(b"".join(self._chunks(b"IDAT"))))

    def _chunks(self, wanted: bytes) -> Iterator[bytes]:
        at = 8
        while at < len(self.png):
            length = int.from_bytes(self.png[at : at + 4])
            if self.png[at + 4 : at + 8] == wanted:
                yield self.png[at + 8 : at + 8 + length]
            at += 12 + length

    def _decoded(self, raw: bytes) -> list[bytes]:
        """Undo the filters of each line. See the PNG specification, "Filtering"."""
        line, step = self.width * self._step, self._step
        rows, above = [], bytearray(line)
        for number in range(self.height):
            start = number * (line + 1)
            kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + line])
            for i in range(line if kind else 0):
                a, b, c = row[i - step] if i >= step else 0, above[i], above[i - step] if i >= step else 0
                near = min((abs(b - c), 0), (abs(a - c), 1), (abs(a + b - 2 * c), 2))[1]
                row[i] = (row[i] + (a, b, (a + b) // 2, (a, b, c)[near])[kind - 1]) & 0xFF
            rows.append(bytes(row))
            above = row
        return rows

    def at(self, x: int, y: int) -> tuple[int, ...]:
        """Red, green, blue."""
        return tuple(self._rows[y][x * self._step : x * self._step + 3])

    def colours(self) -> set[tuple[int, ...]]:
        """All of every third pixel."""
        return {self.at(x, y) for y in range(0, self.height, 3) for x in range(0, self.width, 3)}


@contextmanager
def browser(host: FakeHost) -> Iterator[Browser]:
    """A browser for the length of the block."""
    needs_program("chromium")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(dir=host.scratch) as profile:
        command = host.popen(["bash", "-c", START, "bash", str(to_read), str(from_write), profile], user=0,
                             pass_fds=(to_read, from_write), env={"HOME": profile, "TMPDIR": profile})
        os.close(to_read)
        os.close(from_write)
        try:
            yield Browser(to_write, from_read)
        finally:
            command.end()
            os.close(to_write)
            os.close(from_read)
