"""Header limits, and RFC 9457 answers to malformed requests."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from model.serving.http.problems import Refusal

MAX_HEADER_BYTES: Final = 32 * 1024


class HeadersTooLarge(Exception):
    """Raised inside a parser callback, which ends the parsing."""


class ScoringProtocol(HttpToolsProtocol):
    """A connection on which a request's headers must be complete in time and of a bounded size.

    A connection that sends nothing is closed as an idle one is: `timeout_keep_alive` counts from its start.
    """

    def __init__(self, *args: Any, header_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_seconds = header_seconds
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._stop_header_timer()
        self._header_timer = self.loop.call_later(self._header_seconds, self._headers_are_late)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_header_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn where the parser gives up."""
        self._stop_header_timer()
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(Refusal("headers-too-large", f"The headers hold more than {MAX_HEADER_BYTES:,} bytes."))
        else:
            self._refuse(Refusal("malformed-request", msg))

    def _headers_are_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(
                Refusal("slow-upload", f"The headers were not complete after {self._header_seconds:g} seconds.")
            )

    def _refuse(self, refusal: Refusal) -> None:
        answer = refusal.response("")
        answer.headers["connection"] = "close"
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[answer.status_code] + head + b"\r\n" + answer.body)
        self.transport.close()

    def _count(self, *parts: bytes) -> None:
        self._header_bytes += sum(map(len, parts))
        if self._header_bytes > MAX_HEADER_BYTES:
            raise HeadersTooLarge

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
