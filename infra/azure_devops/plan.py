"""One thing after the other is made or checked; what depends on it comes after, so that a killed run can go on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from infra.azure_devops.client import Json
from model.values import Frozen

OURS: Final = "Made by `ahc devops init`."
"""Description of what it makes."""


class Change(Frozen):
    """Something that wasn't as it should be."""

    kind: str
    name: str
    action: Literal["create", "update", "differs"]
    fields: tuple[str, ...] = ()
    """What differs."""
    hint: str = ""
    """What a person should do about a difference that is left alone."""


@dataclass(frozen=True)
class Item:
    """One thing of the project, as it is to be and as it is."""

    kind: str
    name: str
    present: Json | None
    """As the service tells it; None where it isn't there."""
    wanted: Mapping[str, Any] = field(default_factory=dict)
    """Facts by name; None for an id that isn't known before something else is made."""
    seen: Mapping[str, Any] = field(default_factory=dict)
    create: Callable[[], Json] | None = None
    mend: Callable[[Json], Json] | None = None
    """Without it, a difference is left, with the hint."""
    hint: str = ""

    @property
    def differing(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, value in self.wanted.items() if self.seen.get(name) != value))


class Work:
    """What was done so far; with `dry_run`, what would be."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.changes: list[Change] = []

    def settle(self, item: Item) -> Json | None:
        """The thing as it is afterwards; None where it would only be made."""
        if item.present is None:
            assert item.create is not None
            self._note(item, "create")
            return None if self.dry_run else item.create()
        if not item.differing:
            return item.present
        if item.mend is None:
            self._note(item, "differs")
            return item.present
        self._note(item, "update")
        return item.present if self.dry_run else item.mend(item.present)

    def _note(self, item: Item, action: Literal["create", "update", "differs"]) -> None:
        fields = () if item.present is None else item.differing
        hint = item.hint if action == "differs" else ""
        self.changes.append(Change(kind=item.kind, name=item.name, action=action, fields=fields, hint=hint))
