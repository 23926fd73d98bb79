"""Which images train, validate and test: by content, so that an image is always on the same side."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from pydantic import Field, model_validator

from model.values import Frozen

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
_SMALLEST_SPLITTABLE: Final = 3
"""With fewer different images than splits, a class trains only."""


class SplitConfig(Frozen):
    """Shares of the splits within each class."""

    test: float = Field(default=0.15, gt=0, lt=1, description="Share of each class that is kept for the test.")
    validation: float = Field(
        default=0.15, gt=0, lt=1, description="Share of each class that chooses the best epoch and calibrates."
    )
    seed: int = Field(default=0, ge=0, description="Another seed draws other images.")

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> "SplitConfig":
        if self.test + self.validation >= 1:
            raise ValueError("test and validation leave nothing to train on: together they must be below 1")
        return self


class Content(NamedTuple):
    """One manifest row as far as splitting goes; `split` is what the source says, or empty."""

    sha256: str
    label: str
    split: str


def assign_splits(rows: Sequence[Content], config: SplitConfig, frozen: Mapping[str, str]) -> list[str]:
    """A split for each row, in order.

    What the source says explicitly comes first, then what is frozen by an earlier manifest; the rest of each class
    is ranked by sha256(seed, content) and fills up the test share, then the validation share, then train. Rows of
    the same content get the same split; of one under two labels, the first label counts. Each split gets at least
    one image of a class that has three or more.
    """
    chosen: dict[str, str] = {}
    by_label: dict[str, list[str]] = defaultdict(list)
    # A row with an explicit split goes before its copies without one.
    for row in sorted(rows, key=lambda row: (not row.split, row)):
        if row.sha256 not in chosen:
            chosen[row.sha256] = row.split or frozen.get(row.sha256, "")
            by_label[row.label].append(row.sha256)
    for contents in by_label.values():
        _fill(contents, chosen, config)
    return [row.split or chosen[row.sha256] for row in rows]


def _fill(contents: list[str], chosen: dict[str, str], config: SplitConfig) -> None:
    targets = _targets(len(contents), config)
    for content in contents:
        if chosen[content]:
            targets[chosen[content]] -= 1
    waiting = sorted((content for content in contents if not chosen[content]), key=lambda sha: _rank(sha, config.seed))
    # With everything else frozen elsewhere, the first newcomer still goes to train.
    order = ["train"] if targets["train"] == _targets(len(contents), config)["train"] else []
    for split in ("test", "validation"):
        order += [split] * max(0, targets[split])
    for position, content in enumerate(waiting):
        chosen[content] = order[position] if position < len(order) else "train"


def _targets(images: int, config: SplitConfig) -> dict[str, int]:
    if images < _SMALLEST_SPLITTABLE:
        return {"train": images, "validation": 0, "test": 0}
    test = min(max(1, round(images * config.test)), images - 2)
    validation = min(max(1, round(images * config.validation)), images - 1 - test)
    return {"train": images - test - validation, "validation": validation, "test": test}


def _rank(sha256: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
