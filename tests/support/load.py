"""Constant load on an endpoint: every request is recorded, and so is every failure."""

import http.client
import itertools
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import httpx

from tests.support.bundles import colour_image

IMAGE = colour_image("red")


@dataclass
class Load:
    """Clients that score one image after another until told to stop.

    Attributes:
        images: Taken in turns by all clients together.
        pause: Seconds between two requests of a client.
        tls: What to trust, where the endpoint speaks HTTPS.
        failures: What went wrong, in words.
        by_version: Answers by the version that gave them.
        connections: Per connection, the versions that answered on it, in order; and whether its last answer closed it.
    """

    port: int
    key: str
    tls: ssl.SSLContext | None = None
    images: tuple[bytes, ...] = (IMAGE,)
    pause: float = 0.0
    failures: list[str] = field(default_factory=list)
    connections: list[tuple[list[int], bool]] = field(default_factory=list)
    answers: int = 0
    by_version: Counter[int] = field(default_factory=Counter)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._turns = itertools.cycle(self.images)
        clients: list[Callable[[], None]] = [
            self._keep_alive,
            self._keep_alive,
            self._one_by_one,
            self._raw,
            self._httpx,
        ]
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in clients]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    @property
    def versions(self) -> set[int]:
        return {version for answered, _ in self.connections for version in answered}

    def _run(self, client: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                client()
            except Exception as error:
                self.failures.append(f"{client.__name__}: {error!r}")

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "image/png"}

    def _note(self, status: int, body: bytes, answered: list[int]) -> None:
        self.answers += 1
        self._stop.wait(self.pause)
        if status != 200:
            self.failures.append(f"{status}: {body[:200]!r}")
        else:
            version = json.loads(body)["model"]["version"]
            answered.append(version)
            self.by_version[version] += 1

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.tls)

    def _keep_alive(self) -> None:
        """One connection for as long as the endpoint keeps it."""
        connection = self._connection()
        answered: list[int] = []
        closed = False
        while not closed and not self._stop.is_set():
            connection.request("POST", "/score", next(self._turns), self._headers())
            answer = connection.getresponse()
            self._note(answer.status, answer.read(), answered)
            closed = answer.will_close
        connection.close()
        self.connections.append((answered, closed))

    def _one_by_one(self) -> None:
        """A connection a request."""
        connection = self._connection()
        answered: list[int] = []
        connection.request("POST", "/score", next(self._turns), {**self._headers(), "Connection": "close"})
        answer = connection.getresponse()
        self._note(answer.status, answer.read(), answered)
        connection.close()
        self.connections.append((answered, True))

    def _raw(self) -> None:
        """Connects first and sends later, as a browser's preconnect does."""
        lines, image = [f"{name}: {value}" for name, value in self._headers().items()], next(self._turns)
        head = "\r\n".join(["POST /score HTTP/1.1", "Host: x", f"Content-Length: {len(image)}", *lines, "", ""])
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        with self.tls.wrap_socket(plain, server_hostname="127.0.0.1") if self.tls else plain as connection:
            self._stop.wait(0.05)
            connection.sendall(head.encode() + image)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answered: list[int] = []
            self._note(answer.status, answer.read(), answered)
        self.connections.append((answered, True))

    def _httpx(self) -> None:
        """A pooled client, as most applications use one; a pool's connections can't be told apart here."""
        scheme = "https" if self.tls else "http"
        with httpx.Client(trust_env=False, timeout=20, verify=self.tls or True) as client:
            for _ in range(20):
                if self._stop.is_set():
                    return
                answer = client.post(
                    f"{scheme}://127.0.0.1:{self.port}/score", content=next(self._turns), headers=self._headers()
                )
                self._note(answer.status_code, answer.content, [])
