"""Everything that a Prefect server answers to a question: its API gives at most 200 objects at a time."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

PAGE: Final = 200


class Identified(Protocol):
    """What the API answers has an id each."""

    @property
    def id(self) -> Any: ...


T = TypeVar("T", bound=Identified)


def read_all(read: Callable[..., list[T]], **question: Any) -> list[T]:
    """All objects that a method of a client answers; `question` is what it takes beside `limit` and `offset`."""
    objects: dict[Any, T] = {}
    offset = 0
    while True:
        page = read(**question, limit=PAGE, offset=offset)
        # One that came meanwhile moves the others: the last of a page may be the first of the next.
        objects |= {item.id: item for item in page}
        offset += len(page)
        if len(page) < PAGE:
            return list(objects.values())


async def read_all_async(read: Callable[..., Awaitable[list[T]]], **question: Any) -> list[T]:
    """The same of an asynchronous client."""
    objects: dict[Any, T] = {}
    offset = 0
    while True:
        page = await read(**question, limit=PAGE, offset=offset)
        objects |= {item.id: item for item in page}
        offset += len(page)
        if len(page) < PAGE:
            return list(objects.values())
