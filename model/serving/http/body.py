"""A request's body: read within limits of bytes and time, and to its end before the connection is used again."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from model.serving.http.problems import Refusal

DRAINED_BYTES: Final = 32 * 1024 * 1024
DRAIN_SECONDS: Final = 5.0
LINGER_SECONDS: Final = 2.0


@dataclass
class Buffered:
    """Bytes of bodies that this process holds now, over all requests."""

    limit: int
    used: int = 0


class ClientDisconnected(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


class Body:
    """The body of one request.

    An answer may be ready before the body was read (a wrong key, an overload). Closing then would reset the connection
    and often lose the answer on its way, so a small rest is read first, and a large one is read after the answer.
    """

    def __init__(self, receive: Receive, headers: Headers, buffered: Buffered, *, seconds: float) -> None:
        self._receive = receive
        self._buffered = buffered
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._reserved = 0
        self._late = False
        self._expects_continue = headers.get("expect", "").lower() == "100-continue"
        length = headers.get("content-length", "")
        self.declared = int(length) if length.isdecimal() else None
        self.finished = not self.declared and "transfer-encoding" not in headers

    async def chunks(self, limit: int) -> AsyncGenerator[bytes, None]:
        """The body as it comes.

        Raises:
            Refusal: It is larger than `limit` bytes, too slow, or the process holds too many bytes already.
            ClientDisconnected: The connection ended.
        """
        if self.declared is not None and self.declared > limit:
            raise _too_large(limit)
        received = 0
        while not self.finished:
            chunk = await self._next(self._deadline)
            received += len(chunk)
            if received > limit:
                raise _too_large(limit)
            self._reserve(len(chunk))
            yield chunk

    async def read(self, limit: int) -> bytes:
        """All of it; see `chunks`."""
        return b"".join([chunk async for chunk in self.chunks(limit)])

    async def settle(self) -> bool:
        """Before an answer: read and discard the rest; whether the connection can be used again."""
        if self.finished:
            return True
        if self._late or self._expects_continue or (self.declared or 0) > DRAINED_BYTES:
            return False
        return await self._discard(DRAIN_SECONDS, DRAINED_BYTES)

    async def linger(self) -> None:
        """After an answer that closes the connection: give the client time to stop sending and read it."""
        await self._discard(LINGER_SECONDS, None)

    def release(self) -> None:
        self._buffered.used -= self._reserved
        self._reserved = 0

    async def _discard(self, seconds: float, limit: int | None) -> bool:
        deadline = time.monotonic() + seconds
        received = 0
        try:
            while not self.finished:
                received += len(await self._next(deadline))
                if limit is not None and received > limit:
                    return False
        except (Refusal, ClientDisconnected):
            return False
        return True

    async def _next(self, deadline: float) -> bytes:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                message: Message = await self._receive()
        except TimeoutError as error:
            self._late = True
            raise Refusal("slow-upload", f"The body was not complete after {self._seconds:g} seconds.") from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.finished = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _reserve(self, size: int) -> None:
        if self._buffered.used + size > self._buffered.limit:
            raise Refusal(
                "overloaded",
                f"Requests of {self._buffered.used:,} bytes are being read already; the limit is "
                f"{self._buffered.limit:,}.",
                headers={"Retry-After": "1"},
            )
        self._buffered.used += size
        self._reserved += size


def _too_large(limit: int) -> Refusal:
    return Refusal("body-too-large", f"The body is larger than the limit of {limit:,} bytes.")
