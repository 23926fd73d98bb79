"""One thing after the other is made or checked; what depends on it comes after, so that a killed run can go on."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from infra.azure_devops.client import Json
from model.values import Frozen

MADE_BY: Final = "Made by `ahc devops init`."
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


class Plan:
    """The changes made so far; with `dry_run`, those that would be made.

    A thing is changed as soon as it is planned, and not from a list afterwards: what comes after needs its id.
    """

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.changes: list[Change] = []

    def apply(
        self,
        kind: str,
        name: str,
        present: Json | None,
        *,
        create: Callable[[], Json] | None = None,
        update: Callable[[Json], Json] | None = None,
        desired: Mapping[str, Any] | None = None,
        actual: Mapping[str, Any] | None = None,
        hint: str = "",
    ) -> Json | None:
        """Make or correct one thing of the project.

        Args:
            kind: What it is.
            name: Its name.
            present: As the service answers it; None where it isn't there.
            create: Makes it.
            update: Corrects it. Without it, a difference stays, with the hint.
            desired: Facts by name; None for an id that isn't known before something else is made.
            actual: The same facts as they are.
            hint: What a person should do about a difference that stays.

        Returns:
            The thing as it is afterwards; None where it would only be made.
        """
        if present is None:
            assert create is not None
            self.changes.append(Change(kind=kind, name=name, action="create"))
            return None if self.dry_run else create()
        fields = tuple(sorted(key for key, value in (desired or {}).items() if (actual or {}).get(key) != value))
        if not fields:
            return present
        if update is None:
            self.changes.append(Change(kind=kind, name=name, action="differs", fields=fields, hint=hint))
            return present
        self.changes.append(Change(kind=kind, name=name, action="update", fields=fields))
        return present if self.dry_run else update(present)
