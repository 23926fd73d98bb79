"""What a run shows to people in the Prefect UI: text, pictures, progress."""

import base64
from collections.abc import Callable
from time import monotonic
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

__all__ = ["Progress", "create_link_artifact", "create_markdown_artifact", "picture", "table"]


def picture(key: str, png: bytes, description: str) -> None:
    """Show a PNG; it travels inside the artifact, so that the UI needs nothing else to show it."""
    create_image_artifact(
        key=key, image_url=f"data:image/png;base64,{base64.b64encode(png).decode()}", description=description
    )


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table; cells may hold anything that prints on one line."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines)


class Progress:
    """A progress bar of the Prefect UI that the terminal follows too; at most two updates a second reach the server."""

    def __init__(self, key: str, description: str, *, clock: Callable[[], float] = monotonic) -> None:
        self._description = description
        self._clock = clock
        self._last = clock()
        self._id = cast("UUID", create_progress_artifact(progress=0.0, key=key, description=description))

    def update(self, done: float, total: float, description: str | None = None) -> None:
        self._description = description or self._description
        if done < total and self._clock() - self._last < 0.5:
            return
        self._last = self._clock()
        update_progress_artifact(
            self._id, progress=100.0 * done / total if total else 100.0, description=self._description
        )
