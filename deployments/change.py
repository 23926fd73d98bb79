"""One difference between the files and the Prefect server, and how it goes away."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

OURS: Final = "ahc"
"""Tag of everything that `ahc deploy` made; only what has it is ever removed."""


@dataclass(frozen=True)
class Change:
    """One difference between the files and the server."""

    kind: Literal["work pool", "deployment", "automation", "concurrency limit", "block"]
    name: str
    action: Literal["create", "update", "remove"]
    fields: tuple[str, ...] = ()
    """What differs, for an update."""
    perform: Callable[[], Awaitable[object]] = field(repr=False, compare=False, kw_only=True)


def differences(desired: dict[str, Any], present: dict[str, Any]) -> tuple[str, ...]:
    """Names of the fields that are not as they should be."""
    return tuple(sorted(name for name, value in desired.items() if present.get(name) != value))
