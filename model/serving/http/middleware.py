"""The one middleware of the scoring API: a request's id, log line and metrics, and an orderly end of its connection."""

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.serving.http.body import Body, Buffered, ClientDisconnected
from model.serving.http.exchange import Exchange
from model.serving.http.problems import Refusal
from model.serving.service import ScoringService

SANE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "other"

access = logging.getLogger("access")
log = logging.getLogger("serving")


class RequestMiddleware:
    """Makes the exchange of each request, and is the last to see its answer.

    Args:
        app: What answers.
        service: Whose limits, metrics and observers apply; where it is retired, each answer closes its connection.
        paths: The paths that metrics and spans name; all others are `other` there.
    """

    def __init__(self, app: ASGIApp, service: ScoringService, paths: frozenset[str]) -> None:
        self._app = app
        self._service = service
        self._paths = paths
        self._buffered = Buffered(service.config.buffered_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        exchange = self._exchange(scope, receive)
        scope.setdefault("state", {})["exchange"] = exchange

        async def forward(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._complete(message, exchange)
            elif not exchange.reusable and not message.get("more_body", False):
                # All bytes of the answer, but not its end: the connection must stay open while the client still sends.
                message = {**message, "more_body": True}
            await send(message)

        try:
            await self._app(scope, receive, forward)
        except ClientDisconnected:
            exchange.status = exchange.status or 499
        except Exception as error:
            log.exception("A request failed.", extra={"fields": {"request_id": exchange.request_id}})
            if not exchange.status:
                refusal = Refusal("internal-error", f"{type(error).__name__}; the log has more under this request id.")
                await exchange.refuse(refusal)(scope, receive, forward)
        finally:
            exchange.body.release()
            self._record(scope, exchange, time.perf_counter() - start)
        if not exchange.reusable:
            await exchange.body.linger()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _exchange(self, scope: Scope, receive: Receive) -> Exchange:
        headers = Headers(scope=scope)
        name = headers.get("x-request-id", "")
        exchange = Exchange(
            request_id=name if SANE_ID.fullmatch(name) else uuid.uuid4().hex,
            body=Body(receive, headers, self._buffered, seconds=self._service.config.upload_seconds),
            method=scope["method"] if scope["method"] in METHODS else OTHER,
            path=scope["path"] if scope["path"] in self._paths else OTHER,
        )
        self._service.observers.begin(exchange, headers)
        return exchange

    async def _complete(self, start: Message, exchange: Exchange) -> None:
        """Add to the first message of an answer what every answer has."""
        exchange.status = start["status"]
        headers = MutableHeaders(raw=start["headers"])
        headers["x-request-id"] = exchange.request_id
        exchange.reusable = await exchange.body.settle()
        if self._service.retired or not exchange.reusable:
            headers["connection"] = "close"

    def _record(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        self._service.metrics.request(exchange.path, exchange.method, exchange.status, seconds)
        self._service.observers.end(exchange, seconds)
        method, path = scope["method"], scope["path"][:200]
        fields = {
            "request_id": exchange.request_id,
            "method": method,
            "path": path,
            "status": exchange.status,
            "ms": round(seconds * 1000, 2),
            "client": (scope.get("client") or ("",))[0],
            **self._service.observers.ids(exchange),
            **exchange.notes,
        }
        access.info("%s %s %d", method, path, exchange.status, extra={"fields": fields})
