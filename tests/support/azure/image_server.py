"""A container registry's data plane with images in memory, to stand behind the login server's name on the bench.

The bench knows registries by the control plane only. Answers follow
https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md and the OCI distribution specification.
"""

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

REFRESH = "refresh-token"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"


class _Handler(BaseHTTPRequestHandler):
    server: "ImageServer"

    def do_POST(self) -> None:
        given = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self.server.refusal:
            self._answer(self.server.refusal, {"errors": [{"code": "DENIED"}]})
        elif self.path == "/oauth2/exchange":
            self._answer(200, {"refresh_token": REFRESH})
        elif given.get("refresh_token") == [REFRESH]:
            self._answer(200, {"access_token": given["scope"][0]})
        else:
            self._answer(401, {})

    def do_HEAD(self) -> None:
        self._manifest("pull")

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not path.startswith("/acr/v1/"):
            self._manifest("pull")
            return
        repository = path.removeprefix("/acr/v1/").removesuffix("/_manifests")
        if self._allowed(repository, "metadata_read"):
            query = parse_qs(urlsplit(self.path).query)
            rows = sorted(self.server.images.get(repository, []), key=lambda row: str(row["digest"]))
            rows = [row for row in rows if row["digest"] > query.get("last", [""])[0]][: int(query["n"][0])]
            self._answer(200, {"manifests": [{key: row[key] for key in row if key != "parts"} for row in rows]})

    def do_DELETE(self) -> None:
        repository, _, digest = self.path.removeprefix("/v2/").partition("/manifests/")
        if self._allowed(repository, "delete"):
            rows = self.server.images[repository]
            self.server.images[repository] = [row for row in rows if row["digest"] != digest]
            self._answer(202, {})

    def _manifest(self, action: str) -> None:
        repository, _, reference = self.path.removeprefix("/v2/").partition("/manifests/")
        if not self._allowed(repository, action):
            return
        for row in self.server.images.get(repository, []):
            if reference == row["digest"] or reference in row["tags"]:
                parts = [{"digest": digest, "mediaType": IMAGE} for digest in row["parts"]]
                body = {"mediaType": INDEX, "manifests": parts} if parts else {"mediaType": IMAGE}
                self._answer(200, body, digest=row["digest"])
                return
        self._answer(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})

    def _allowed(self, repository: str, action: str) -> bool:
        # The token is its own scope, so that a wrong one is seen.
        if self.headers.get("Authorization") == f"Bearer repository:{repository}:{action}":
            return True
        self._answer(401, {})
        return False

    def _answer(self, status: int, body: dict[str, Any], digest: str = "") -> None:
        content = b"" if self.command == "HEAD" else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


class ImageServer(ThreadingHTTPServer):
    """Starts empty; `add` puts images in."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.images: dict[str, list[dict[str, Any]]] = {}
        self.refusal = 0
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def add(self, repository: str, *tags: str, days: float = 100, parts: tuple[str, ...] = (), name: str = "") -> str:
        """An image that was pushed so many days ago; answers its digest."""
        seed = name or f"{repository}{tags}{len(self.images.get(repository, []))}"
        digest = "sha256:" + hashlib.sha256(seed.encode()).hexdigest()
        pushed = datetime.now(UTC) - timedelta(days=days)
        row = {
            "digest": digest,
            "tags": list(tags),
            "parts": parts,
            "lastUpdateTime": f"{pushed:%Y-%m-%dT%H:%M:%S.%f}0Z",
        }
        self.images.setdefault(repository, []).append(row)
        return digest

    def digests(self, repository: str) -> set[str]:
        return {str(row["digest"]) for row in self.images.get(repository, [])}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
