"""What each check says to a person, and which images show it."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from model.data.splits import SPLITS
from model.validation.derived_tables import Tables
from model.validation.report import ValidationConfig

EXAMPLES: Final = 12
_NAMED: Final = 5


class Facts(NamedTuple):
    """A check's outcome and where to look up what it means; `rows` are the first rows of `table` at fault."""

    passed: bool
    at_fault: int
    rows: list[int]
    table: pd.DataFrame
    tables: Tables

    @property
    def config(self) -> ValidationConfig:
        return self.tables.config


# --- examples -----------------------------------------------------------------------------------------------------


def nothing(_: Facts) -> Iterable[str]:
    return ()


def images_at_fault(facts: Facts) -> Iterable[str]:
    return facts.table["path"].iloc[facts.rows]


def images_of_labels(facts: Facts) -> Iterator[str]:
    """A few images of each label at fault."""
    images = facts.tables.images
    for label in facts.table["label"].iloc[facts.rows]:
        yield from images.loc[(images["label"] == label).to_numpy(), "path"].head(3)


def images_with_copies(facts: Facts) -> Iterator[str]:
    """Images of the same content one after the other."""
    content, images = facts.tables.content, facts.tables.images
    for code in dict.fromkeys(content[facts.rows].tolist()):
        yield from images["path"].iloc[np.flatnonzero(content == code)[:_NAMED]]


def images_with_twins(facts: Facts) -> Iterator[str]:
    """Each image followed by its near-duplicate."""
    images = facts.tables.images
    for row in facts.rows:
        yield str(images["path"].iloc[row])
        yield str(images["path"].iloc[facts.tables.twin[row]])


def overlooked_paths(facts: Facts) -> Iterable[str]:
    return facts.table["path"].head(EXAMPLES)


# --- words --------------------------------------------------------------------------------------------------------


def named(items: Iterable[object], total: int | None = None) -> str:
    """Up to five of them, and how many more there are."""
    words = [str(item) for item in items]
    rest = (len(words) if total is None else total) - min(len(words), _NAMED)
    return ", ".join(words[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def _amount(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word.removesuffix('s')}{_plural(word)}"


def _plural(word: str) -> str:
    return "es" if word.endswith("class") else "s"


def _labels(facts: Facts, *columns: str) -> str:
    """Labels at fault with the values of some columns."""
    rows = facts.table.iloc[facts.rows]
    details = (
        f"{label!r}" + (f" ({', '.join(str(value) for value in values)})" if values else "")
        for label, *values in rows[["label", *columns]].itertuples(index=False)
    )
    return named(details, facts.at_fault)


def _with_path(facts: Facts, *columns: str) -> str:
    rows = facts.table.iloc[facts.rows]
    details = (
        f"{path} ({' x '.join(f'{value:.4g}' for value in values)})"
        for path, *values in rows[["path", *columns]].itertuples(index=False)
    )
    return named(details, facts.at_fault)


def label_characters(facts: Facts) -> str:
    if facts.passed:
        return "Every label can name a folder."
    return (
        f"{_amount(facts.at_fault, 'label')} can't be used: {_labels(facts)}. A label has 1 to 120 characters, "
        "no slash, backslash, line break or other control character."
    )


def known_labels(facts: Facts) -> str:
    if facts.passed:
        return f"All labels are among the {len(facts.config.labels)} allowed ones."
    return f"{_amount(facts.at_fault, 'label')} not allowed: {_labels(facts)}. Allowed: {named(facts.config.labels)}."


def classes(facts: Facts) -> str:
    if facts.passed:
        return f"There are {len(facts.table):,} classes."
    only = named(repr(label) for label in facts.table["label"])
    return f"At least two classes are needed to tell apart; there is only {only}."


def class_size(facts: Facts) -> str:
    least = facts.config.min_images_per_class
    if facts.passed:
        return f"Every class has at least {least} images; the smallest has {facts.table['images'].min():,}."
    return (
        f"{_amount(facts.at_fault, 'class')} with fewer than {least} decodable images: {_labels(facts, 'images')}. "
        "Add images, or leave the class out."
    )


def splits(facts: Facts) -> str:
    if facts.passed:
        total = ", ".join(f"{split} {facts.table[split].sum():,}" for split in SPLITS)
        return f"Every class has images in each split: {total}."
    rows = facts.table.iloc[facts.rows]
    gaps = [
        f"{label!r} in {' and '.join(split for split, images in zip(SPLITS, counts, strict=True) if not images)}"
        for label, *counts in rows[["label", *SPLITS]].itertuples(index=False)
    ]
    return f"Classes without an image: {named(gaps)}. Leave the column `split` empty to have it chosen."


def _undecodable(facts: Facts) -> tuple[int, str]:
    count = int(facts.table["error"].notna().sum())
    return count, f"{count:,} of {len(facts.table):,} images ({count / max(1, len(facts.table)):.1%})"


def undecodable_share(facts: Facts) -> str:
    limit = f"{facts.config.max_undecodable_share:.0%}"
    count, share = _undecodable(facts)
    if facts.passed:
        return f"{share} can't be decoded; up to {limit} is tolerated."
    return f"{share} can't be decoded; the limit is {limit}. Correct or remove them: {named(_errors(facts), count)}."


def undecodable_images(facts: Facts) -> str:
    count, share = _undecodable(facts)
    if not count:
        return f"All {len(facts.table):,} images can be decoded."
    return f"{share} can't be decoded and are left out: {named(_errors(facts), count)}."


def _errors(facts: Facts) -> Iterator[str]:
    rows = facts.table.iloc[facts.rows]
    for path, error in zip(rows["path"], rows["error"], strict=True):
        yield f"{path} ({str(error).rstrip('.')})"


def conflicting_labels(facts: Facts) -> str:
    if facts.passed:
        return "No image lies under two labels."
    labels = facts.tables.images["label"]
    content = facts.tables.content
    pairs = [
        " = ".join(sorted(map(str, set(labels.iloc[np.flatnonzero(content == code)]))))
        for code in dict.fromkeys(content[facts.rows].tolist())
    ]
    return (
        f"{_amount(facts.at_fault, 'file')} with the same content under different labels: "
        f"{named(dict.fromkeys(pairs))}. Keep each image under the one that is right."
    )


def leaked_images(facts: Facts) -> str:
    if facts.passed:
        return "Copies of an image are always in the same split."
    return (
        f"{_amount(facts.at_fault, 'file')} of which a copy is in another split, as the source says: "
        "a test on images that were trained on shows nothing. Give all copies the same split."
    )


def image_size(facts: Facts) -> str:
    low, high = facts.config.min_edge, facts.config.max_edge
    if facts.passed:
        return f"{_sizes(facts.table)}; {low} to {high:,} pixels an edge are expected."
    return (
        f"{_amount(facts.at_fault, 'image')} outside {low} to {high:,} pixels: {_with_path(facts, 'width', 'height')}."
    )


def _sizes(images: pd.DataFrame) -> str:
    if images["width"].isna().all():
        return "No image has a size"
    width, height = images["width"], images["height"]
    return (
        f"Images are {width.min():.0f} to {width.max():.0f} pixels wide "
        f"and {height.min():.0f} to {height.max():.0f} high"
    )


def aspect_ratio(facts: Facts) -> str:
    limit = f"{facts.config.max_aspect_ratio:g}"
    if facts.passed:
        return f"No image's long edge is more than {limit} times its short one."
    return (
        f"{_amount(facts.at_fault, 'image')} with a long edge of more than {limit} times the short one, "
        f"of which the centre crop loses most: {_with_path(facts, 'width', 'height')}."
    )


def class_balance(facts: Facts) -> str:
    largest = facts.table.iloc[int(facts.table["images"].argmax())]
    against = f"the largest, {largest['label']!r}, has {largest['images']:,}"
    if facts.passed:
        smallest = facts.table["images"].min()
        return f"Classes are balanced enough: the smallest has {smallest:,} images, {against}."
    return (
        f"{_amount(facts.at_fault, 'class')} with less than 1/{facts.config.max_class_ratio:g} of the images of the "
        f"largest: {_labels(facts, 'images')}; {against}."
    )


def exact_duplicates(facts: Facts) -> str:
    if facts.passed:
        return "No image is there twice."
    rows = (facts.tables.images["copies"] > 1).to_numpy()
    originals = len(np.unique(facts.tables.content[rows]))
    return (
        f"{_amount(facts.at_fault, 'file')} hold only {_amount(originals, 'different image')}: exact copies. "
        "They stay in the same split and count once in training and scores."
    )


def near_duplicates(facts: Facts) -> str:
    limit = facts.config.near_duplicate_bits
    if facts.passed:
        return f"No image looks nearly like one of another split (up to {limit} of 64 hash bits)."
    return (
        f"{_amount(facts.at_fault, 'image')} that look nearly like one of another split (up to {limit} of 64 hash bits "
        "differ): test scores may flatter the model. Examples are in pairs."
    )


def class_drift(facts: Facts) -> str:
    shares = facts.table
    psi, limit = float(shares["psi"].sum()), facts.tables.drift_limit
    figure = f"population stability index {psi:.3f}, limit {limit:.3f}"
    if facts.passed:
        return f"Class shares are like the reference data's ({figure})."
    moved = shares.sort_values("psi", ascending=False).query("psi > 0")
    details = (f"{row.label!r} {row.reference_share:.1%} -> {row.share:.1%}" for row in moved.itertuples(index=False))
    return f"Class shares moved against the reference data ({figure}): {named(details)}."


def overlooked_files(facts: Facts) -> str:
    if facts.passed:
        return "Nothing else lies in the source."
    return f"{len(facts.table):,} other file(s) or folder(s) in the source are ignored: {named(facts.table['path'])}."
