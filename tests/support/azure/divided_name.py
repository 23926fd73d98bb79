"""A host name that leads to two processes by weight, as Azure's front ends and its DNS lead clients."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COOKIE = "x-ms-routing-name"


class DividedName:
    """Listens on this machine and hands each request on to one of the addresses behind the name.

    The draw is without chance: of ten requests, a weight of a tenth gets one. Each request is drawn, as there are no
    resolvers here that keep an answer. With `cookies` it is drawn as App Service does: who was led to the slot is told
    so by a cookie, and whose request has one goes where that says.
    """

    def __init__(self, *, cookies: bool) -> None:
        self.weights: tuple[tuple[str, float], ...] = ()
        """Address and weight, the live one first."""
        self.cookies = cookies
        self._owed: dict[str, float] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Front", (_Front,), {"name": self}))
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="divided-name", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def drawn(self, cookie: str) -> tuple[str, bool]:
        """Where a request goes, and whether that is the candidate."""
        (live, _), (candidate, _) = weights = self.weights
        if self.cookies and COOKIE in cookie:
            to_live = f"{COOKIE}=self" in cookie
            return (live, False) if to_live else (candidate, True)
        with self._lock:
            whole = sum(weight for _, weight in weights)
            for address, weight in weights:
                self._owed[address] = self._owed.get(address, 0) + weight / whole
            chosen = max((address for address, _ in weights), key=lambda address: self._owed[address])
            self._owed[chosen] -= 1
        return chosen, chosen == candidate


class _Front(BaseHTTPRequestHandler):
    name: DividedName

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address, candidate = self.name.drawn(self.headers.get("Cookie", ""))
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            connection.request(self.command, self.path, body=body or None, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            self.send_error(502, str(error))
            return
        finally:
            connection.close()
        self.send_response(answer.status)
        for header, value in answer.getheaders():
            if header.lower() not in {"transfer-encoding", "connection", "content-length", "server", "date"}:
                self.send_header(header, value)
        if candidate and self.name.cookies:
            self.send_header("Set-Cookie", f"{COOKIE}=candidate; path=/; HttpOnly")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _hand_on  # noqa: N815 - as the library names them

    def log_message(self, *_: Any) -> None:
        """Nothing: the containers log."""
