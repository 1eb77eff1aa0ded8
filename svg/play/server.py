"""A page and what computes behind it, on loopback: HTTP for the person at this computer.

Whoever does not know the address, with a token that is drawn anew each time, is answered nothing. So is a
site whose name was made to point here, which the header Host tells.
"""

import json
import re
import secrets
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data_tools.command import explain
from data_tools.errors import InputError

from .engines import States

MOST_BYTES = 4096
"""Length of a request's body at most."""
IDLE = 60
"""Seconds for which a connection may wait for a request, or a request for its end."""


class PlayServer(ThreadingHTTPServer):
    """Serves `page`, and the steps of `engines` by name, on a port of 127.0.0.1: any free one if it is 0.

    Raises `InputError` if the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, page: str, engines: Mapping[str, States], port: int = 0):
        self.page = page.encode()
        self.engines = engines
        self.root = f"/{secrets.token_urlsafe()}/"
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            found = f"found {port}, which cannot be had ({error.strerror})"
            raise InputError(f"{found}; leave it out to take a free one", "port") from None
        self.hosts = [f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")]

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{self.hosts[0]}{self.root}"

    def server_close(self) -> None:
        """Close the port and end the engines' work."""
        super().server_close()
        for states in self.engines.values():
            states.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, unless it is that the page went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer  # ty: ignore[incompatible-mutable-override] it is one
    protocol_version = "HTTP/1.1"  # connections stay open, which saves a millisecond each time
    disable_nagle_algorithm = True  # header and body are written apart: the second would wait for an answer
    timeout = IDLE

    def do_GET(self) -> None:
        """Answer with the page."""
        if self._asks_for("") is not None:
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        """Answer with the pixels of a step, float32 [C,H,W], and in the header State its number."""
        body = self._body()
        name = None if body is None else self._asks_for(*self.server.engines)
        if body is None or name is None:
            return
        try:
            pixels, number = self.server.engines[name].step(_json(body))
        except Exception as error:
            reason = explain(error)
            if reason is None:
                raise
            return self._refuse(HTTPStatus.BAD_REQUEST, reason)
        self._answer(HTTPStatus.OK, "application/octet-stream", pixels.astype("<f4").tobytes(), State=number)

    def _asks_for(self, *names: str) -> str | None:
        """Return which of the `names` below the token is asked for; refuse anything else."""
        if self.headers.get("Host") not in self.server.hosts:
            return self._refuse(HTTPStatus.FORBIDDEN, "another host")
        for name in names:
            if secrets.compare_digest(self.path.encode(), f"{self.server.root}{name}".encode()):
                return name
        return self._refuse(HTTPStatus.NOT_FOUND, "nothing here")

    def _body(self) -> bytes | None:
        """Return the body of the request; refuse one that is too long or does not say how long it is."""
        length = self.headers.get("Content-Length", "")
        if re.fullmatch("[0-9]{1,9}", length) and int(length) <= MOST_BYTES:
            return self.rfile.read(int(length))
        self.close_connection = True  # what follows is not read
        expected = f"expected at most {MOST_BYTES} bytes, and a header Content-Length"
        return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, expected)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._answer(status, "text/plain; charset=utf-8", reason.encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes, **headers: object) -> None:
        headers = {"Content-Type": kind, "Content-Length": len(body), "Cache-Control": "no-store"} | headers
        headers["X-Content-Type-Options"] = "nosniff"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def _json(body: bytes) -> object:
    """Return what a body holds. Raises `InputError`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"request: found no JSON ({error})") from None
