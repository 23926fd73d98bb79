"""Everything that a Prefect server answers to a question: its API gives at most 200 objects at a time."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")
PAGE: Final = 200


def read_all(read: Callable[..., list[T]], **question: Any) -> list[T]:
    """All objects that a method of a client answers; `question` is what it takes beside `limit` and `offset`."""
    objects: list[T] = []
    while True:
        page = read(**question, limit=PAGE, offset=len(objects))
        objects += page
        if len(page) < PAGE:
            return objects


async def read_all_async(read: Callable[..., Awaitable[list[T]]], **question: Any) -> list[T]:
    """The same of an asynchronous client."""
    objects: list[T] = []
    while True:
        page = await read(**question, limit=PAGE, offset=len(objects))
        objects += page
        if len(page) < PAGE:
            return objects
