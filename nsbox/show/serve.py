"""A page that renews itself, for a browser on this machine: on 127.0.0.1 only.

Who may read it: whoever has the address, for it has a secret in it; other users of the machine
reach the port too. A page of another site gets nothing: a request whose Host is not this machine
is refused (a name that somebody lets point to 127.0.0.1), nothing allows another origin to read
an answer, and nothing here changes anything.
"""

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..errors import NsboxError
from ..words import SPELLED

_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?")
_TAKEN = re.compile(r"taken \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_KEEP_ALIVE_S = 15.0
_IDLE_S = 10.0  # nobody looks: no picture is taken
_STREAMS_MAX = 32
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _State:
    """The latest page, and who waits for the next one."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.page = b""
        self.version = 0
        self.streams = 0
        self.asked_at = time.monotonic()
        self.ended = False

    def put(self, page: str) -> None:
        """A page that differs by its time only is not a new one."""
        raw = page.encode("utf-8", SPELLED)
        with self.changed:
            if _mark(raw) != _mark(self.page):
                self.version += 1
                self.changed.notify_all()
            self.page = raw

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()


def _mark(page: bytes) -> bytes:
    return hashlib.sha256(_TAKEN.sub("", page.decode("utf-8")).encode()).digest()


class Server:
    """One page under one address. ``with`` closes it."""

    def __init__(self, port: int) -> None:
        self._state = _State()
        self._secret = secrets.token_urlsafe(16)
        try:
            self._http = _Http(("127.0.0.1", port), _Handler)
        except OSError as err:
            raise NsboxError(f"cannot serve on 127.0.0.1:{port}", hint="without a number a free port is taken") from err
        self._http.state, self._http.secret = self._state, self._secret
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}/{self._secret}/"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._state.end()
        self._http.server_close()

    def run(self, take: Callable[[], str], interval_s: float) -> None:
        """Answer requests in threads, and take pictures in this one while somebody looks. Ends by an exception."""
        self._state.put(take())
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()
        try:
            while True:
                time.sleep(interval_s)
                if self._state.streams or time.monotonic() - self._state.asked_at < _IDLE_S:
                    self._state.put(take())
        finally:
            self._http.shutdown()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    state: _State
    secret: str

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error, and stderr is not a log."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    server_version, sys_version = "nsbox", ""
    timeout = 30.0

    def log_message(self, *_args: Any) -> None:
        """Nothing: the address has a secret in it."""

    def do_GET(self) -> None:
        """The page, or the stream that says when there is a new one."""
        if not self._is_for_us():
            return self._refuse(HTTPStatus.FORBIDDEN)
        _, secret, *rest = self.path.split("/")
        if not hmac.compare_digest(secret.encode(), self.server.secret.encode()) or len(rest) != 1:
            return self._refuse(HTTPStatus.NOT_FOUND)
        self.server.state.asked_at = time.monotonic()
        if rest[0] in ("", "picture"):
            return self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.state.page)
        if rest[0] == "events":
            return self._stream()
        return self._refuse(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _is_for_us(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]) or not self.path.startswith("/"):
            return False
        origin = self.headers.get("Origin")
        return origin is None or origin == f"http://{hosts[0]}"

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._begin(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    def _stream(self) -> None:
        """See the HTML standard, server-sent events."""
        state = self.server.state
        with state.changed:
            if state.streams >= _STREAMS_MAX or self.command == "HEAD":
                return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            state.streams += 1
        try:
            self._begin(HTTPStatus.OK, "text/event-stream")
            self.end_headers()
            self._tell_of_versions(state)
        finally:
            with state.changed:
                state.streams -= 1

    def _tell_of_versions(self, state: _State) -> None:
        known = int(self.headers.get("Last-Event-ID") or state.version) if _is_number(self.headers) else state.version
        while not state.ended:
            with state.changed:
                state.changed.wait_for(lambda: state.version != known or state.ended, _KEEP_ALIVE_S)
                now = state.version
            self.wfile.write(f"id: {now}\ndata: {now}\n\n".encode() if now != known else b": still here\n\n")
            self.wfile.flush()
            known = now


def _is_number(headers: Any) -> bool:
    said = headers.get("Last-Event-ID") or ""
    return said.isascii() and said.isdigit() and len(said) < 10
