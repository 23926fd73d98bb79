"""What surrounds every request: its id, its log line, its metrics, and an orderly end of its connection."""

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.serving.http.body import Body, Buffered, ClientLeft
from model.serving.http.exchange import Exchange
from model.serving.http.problems import Refusal
from model.serving.observe.metrics import Metrics
from model.serving.observe.observers import Observers

SANE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "other"

access = logging.getLogger("access")
log = logging.getLogger("serving")


class Envelope:
    """The outermost layer of the app.

    Attributes:
        retired: Another version took over: every open connection is closed with its next answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        observers: Observers,
        paths: frozenset[str],
        buffered: int,
        seconds: float,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._observers = observers
        self._paths = paths
        self._buffered = Buffered(buffered)
        self._seconds = seconds
        self.retired = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Answering(self, scope, receive, send).run()
        else:
            await self._app(scope, receive, send)

    def exchange(self, scope: Scope, receive: Receive) -> Exchange:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        exchange = Exchange(
            request_id=given if SANE_ID.fullmatch(given) else uuid.uuid4().hex, body=self._body(receive, headers)
        )
        self._observers.begin(exchange, *self._known(scope), headers)
        return exchange

    def _body(self, receive: Receive, headers: Headers) -> Body:
        return Body(receive, headers, self._buffered, seconds=self._seconds)

    async def pass_on(self, scope: Scope, receive: Receive, send: Callable[[Message], Awaitable[None]]) -> None:
        await self._app(scope, receive, send)

    def record(self, scope: Scope, exchange: Exchange, status: int, seconds: float) -> None:
        method, path = self._known(scope)
        self._metrics.request(path, method, status, seconds)
        self._observers.end(exchange, status, seconds)
        client = scope.get("client") or ("",)
        fields = {
            "request_id": exchange.request_id,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(seconds * 1000, 2),
            "client": client[0],
            **self._observers.ids(exchange),
            **exchange.notes,
        }
        access.info("%s %s %d", scope["method"], scope["path"][:200], status, extra={"fields": fields})

    def _known(self, scope: Scope) -> tuple[str, str]:
        """Method and path out of a bounded set."""
        path = scope["path"] if scope["path"] in self._paths else OTHER
        return scope["method"] if scope["method"] in METHODS else OTHER, path


class _Answering:
    """One request on its way through."""

    def __init__(self, envelope: Envelope, scope: Scope, receive: Receive, send: Send) -> None:
        self._envelope = envelope
        self._scope = scope
        self._receive = receive
        self._send = send
        self._exchange = envelope.exchange(scope, receive)
        self._status = 0
        self._reusable = True

    async def run(self) -> None:
        start = time.perf_counter()
        self._scope.setdefault("state", {})["exchange"] = self._exchange
        try:
            await self._envelope.pass_on(self._scope, self._receive, self._forward)
        except ClientLeft:
            self._status = self._status or 499
        except Exception:
            log.exception("A request failed.", extra={"fields": {"request_id": self._exchange.request_id}})
            if not self._status:
                await self._fail()
        finally:
            self._exchange.body.release()
            self._envelope.record(self._scope, self._exchange, self._status, time.perf_counter() - start)
        if not self._reusable:
            await self._exchange.body.linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._reusable and not message.get("more_body", False):
            # All bytes of the answer, but not its end: the connection must stay open while the client still sends.
            message = {**message, "more_body": True}
        await self._send(message)

    async def _start(self, message: Message) -> None:
        self._status = message["status"]
        headers = MutableHeaders(raw=message["headers"])
        headers["x-request-id"] = self._exchange.request_id
        self._reusable = await self._exchange.body.settle()
        if self._envelope.retired or not self._reusable:
            headers["connection"] = "close"

    async def _fail(self) -> None:
        refusal = Refusal("internal-error", "The service's log has the details under this request id.")
        await refusal.response(self._exchange.request_id)(self._scope, self._receive, self._forward)
