"""A container registry's sign-in and manifests, as far as resolving a tag needs them.

The bench has no data plane of registries; this stands behind the login server's name there. Its answers follow
https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md and the OCI distribution specification.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

REFRESH, PULL = "refresh-token", "pull-token"


def digest_of(repository: str, tag: str) -> str:
    return "sha256:" + hashlib.sha256(f"{repository}:{tag}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: "RegistryServer"

    def do_POST(self) -> None:
        given = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self.path == "/oauth2/exchange" and given.get("grant_type") == ["access_token"] and given["access_token"]:
            self._answer(200, {"refresh_token": REFRESH})
        elif self.path == "/oauth2/token" and given.get("refresh_token") == [REFRESH]:
            self.server.scopes += given["scope"]
            self._answer(200, {"access_token": PULL})
        else:
            self._answer(401, {"errors": [{"code": "UNAUTHORIZED"}]})

    def do_HEAD(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {PULL}":
            self._answer(401, {})
            return
        if self.server.forbidden:
            self._answer(403, {})
            return
        _, _, rest = self.path.partition("/v2/")
        repository, _, tag = rest.partition("/manifests/")
        if tag not in self.server.tags:
            self._answer(404, {})
            return
        self._answer(200, {}, digest=digest_of(repository, tag))

    def _answer(self, status: int, body: dict[str, object], digest: str = "") -> None:
        content = b"" if self.command == "HEAD" else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class RegistryServer(ThreadingHTTPServer):
    """Has every repository, with these tags."""

    def __init__(self, *tags: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tags = tags or ("stable",)
        self.scopes: list[str] = []
        self.forbidden = False
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
