"""A stand-in of Azure DevOps's REST API, since no Azure DevOps can be had for tests.

A real HTTP server with the operations that `infra/azure_devops` calls, as Microsoft's specifications (version 7.1)
have them: their paths, their `api-version`, the fields of their bodies. Whatever departs from these is answered as the
service would, and kept in `violations`, which must be empty at the end of a test. What a stand-in can't show: who may
do what in a real organisation, and what the service does beyond its specifications.
"""

import hashlib
import hmac
import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.azure_devops.operations import answer
from tests.support.azure_devops.organisation import (
    BUILD_TOKEN,
    ORGANISATION,
    PAT,
    SIGN_IN_PAGE,
    Fault,
    Refused,
    StandIn,
)


class _Handler(BaseHTTPRequestHandler):
    state: StandIn
    protocol_version = "HTTP/1.1"
    # Headers and content are two writes; the second would wait 40 ms for who acknowledges the first.
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = next((item for item in self.state.faults if self.command == item.method and item.part in path), None)
        if fault is not None and not fault.after_work:
            return self._faulty(fault)
        if "/_apis/public/distributedtask/webhooks/" in path:
            return self._webhook(path, query, body)
        accepted = {"Basic " + b64encode(f":{PAT}".encode()).decode(), f"Bearer {BUILD_TOKEN}"}
        if self.headers.get("Authorization") not in accepted:
            return self._send(203, SIGN_IN_PAGE, {"Content-Type": "text/html; charset=utf-8"})
        try:
            given = answer(self.state, self.command, path, query, body)
        except Refused as refused:
            return self._json(refused.status, {"message": str(refused), "typeKey": "Exception"})
        if fault is not None:
            return self._faulty(fault)
        return self._json(200, given)

    do_GET = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815 - the names that http.server calls

    def _faulty(self, fault: Fault) -> None:
        fault.times -= 1
        if not fault.times:
            self.state.faults.remove(fault)
        if fault.status == 0:
            self.close_connection = True
            return self.connection.close()
        return self._send(fault.status, fault.body, fault.headers)

    def _webhook(self, path: str, query: dict[str, str], body: bytes) -> None:
        name = path.rsplit("/", 1)[1]
        secret = self.state.secrets.get(name)
        if secret is None or query.get("api-version") != "6.0-preview":
            return self._json(404, {"message": f"There is no webhook {name}."})
        signature = "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
        if self.headers.get("X-Hub-Signature") != signature:
            return self._json(400, {"message": "The payload's checksum isn't that of the header."})
        self.state.received.append(json.loads(body))
        return self._json(200, {})

    def _json(self, status: int, answer: Any) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """A running stand-in; at the end, nothing may have departed from the specifications."""
    state = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.address = f"http://127.0.0.1:{server.server_address[1]}/{ORGANISATION}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert state.violations == []
