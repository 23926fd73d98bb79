"""One difference between the files and the Prefect server, and how it goes away."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

OURS: Final = "ahc"
"""Tag of every deployment, automation and variable that `ahc deploy` made; only those that have it are ever removed."""

Kind = Literal["block", "work pool", "work queue", "concurrency limit", "deployment", "automation", "record"]


@dataclass(frozen=True)
class Difference:
    """One value that is not as it should be; None where there is none."""

    field: str
    """Path to it, as in `parameters.data.source`."""
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True)
class Change:
    """One difference between the files and the server."""

    kind: Kind
    name: str
    action: Literal["create", "update", "remove"]
    fields: tuple[Difference, ...] = ()
    """What differs, for an update."""
    perform: Callable[[], Awaitable[object]] = field(repr=False, compare=False, kw_only=True)


def differences(desired: dict[str, Any], present: dict[str, Any]) -> tuple[Difference, ...]:
    """What is not as it should be, value by value; what `desired` doesn't name may be as it likes."""
    return tuple(item for name in sorted(desired) for item in _compare(name, present.get(name), desired[name]))


def _compare(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    below: list[Difference] = []
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            below += _compare(f"{path}.{key}", before.get(key), after.get(key))
    # An environment variable that somebody set in the UI may be a secret.
    secret = "env" in path.split(".")
    yield from below or [Difference(path, "(not shown)" if secret and before is not None else before, after)]


def _shown(value: Any, longest: int = 160) -> str:
    if value is None:
        return "none"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"
