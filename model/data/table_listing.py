"""A CSV or Parquet file that names images: columns path, label and, optionally, split."""

import difflib
import posixpath
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from model.data.folder_listing import Listed, Listing, clean_label, is_absolute, some
from model.data.splits import SPLITS
from model.errors import SourceUnreadable

if TYPE_CHECKING:
    import pandas as pd


def list_table(filesystem: Any, path: str, uri: str) -> Listing:
    """The images that a manifest file names, sorted by path.

    Raises:
        SourceUnreadable: It can't be read, lacks a column, repeats an image or has an unknown split; rows are named.
    """
    if not filesystem.exists(path):
        raise SourceUnreadable(f"The manifest {uri} does not exist.")
    if filesystem.isdir(path):
        raise SourceUnreadable(f"{uri} is a folder, but is named like a manifest file; rename it.")
    table = _read_table(filesystem, path, uri)
    for column in ("path", "label"):
        _require_column(column, list(table.columns), uri)
    if table.empty:
        raise SourceUnreadable(f"The manifest {uri} has no rows.")
    paths = [_clean_path(value) for value in table["path"]]
    labels = [clean_label(value) for value in table["label"]]
    splits = [value.strip().lower() for value in table["split"]] if "split" in table else [""] * len(table)
    _refuse_empty_paths(paths, uri)
    _refuse_unknown_splits(splits, uri)
    _refuse_repeated_rows(paths, labels, uri)
    return Listing(sorted(map(Listed, paths, labels, splits)), [])


def _read_table(filesystem: Any, path: str, uri: str) -> "pd.DataFrame":
    import pandas as pd

    try:
        with filesystem.open(path, "rb") as file:
            if path.lower().endswith(".csv"):
                table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
            else:
                table = pd.read_parquet(file)
    # pandas' parser errors and pyarrow's are ValueErrors.
    except ValueError as error:
        raise SourceUnreadable(f"The manifest {uri} can't be read: {error}.") from error
    table.columns = pd.Index([str(column).strip().lower() for column in table.columns])
    columns = [column for column in ("path", "label", "split") if column in table]
    return table.assign(**{column: table[column].astype("object").fillna("").map(str) for column in columns})


def _require_column(column: str, present: list[str], uri: str) -> None:
    if column in present:
        return
    close = difflib.get_close_matches(column, present, n=1, cutoff=0.0)
    hint = f"; the nearest one present is `{close[0]}`" if close else ""
    raise SourceUnreadable(f"The manifest {uri} has no column `{column}`{hint}. Its columns: {', '.join(present)}.")


def _clean_path(value: str) -> str:
    value = value.strip()
    return value if not value or is_absolute(value) else posixpath.normpath(value)


def _refuse_empty_paths(paths: list[str], uri: str) -> None:
    rows = [str(number) for number, path in enumerate(paths, start=1) if not path]
    if rows:
        raise SourceUnreadable(f"The manifest {uri} has {len(rows)} row(s) without a path: row {some(rows)}.")


def _refuse_unknown_splits(splits: list[str], uri: str) -> None:
    for number, word in enumerate(splits, start=1):
        if word and word not in SPLITS:
            close = difflib.get_close_matches(word, SPLITS, n=1, cutoff=0.3)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise SourceUnreadable(
                f"The manifest {uri} has the split `{word}` in row {number}; "
                f"valid: {', '.join(SPLITS)}, or empty to let it be chosen.{hint}"
            )


def _refuse_repeated_rows(paths: list[str], labels: list[str], uri: str) -> None:
    if len(set(paths)) == len(paths):
        return
    labels_of = defaultdict(list)
    for path, label in zip(paths, labels, strict=True):
        labels_of[path].append(label)
    repeated = {path: labels for path, labels in labels_of.items() if len(labels) > 1}
    named = [
        f"{path} ({len(labels)} times"
        + (f", with the labels {', '.join(sorted(set(labels)))})" if len(set(labels)) > 1 else ")")
        # Contradictions first: they are the worse half.
        for path, labels in sorted(repeated.items(), key=lambda item: (len(set(item[1])) == 1, item[0]))
    ]
    raise SourceUnreadable(f"The manifest {uri} lists {len(repeated)} image(s) more than once: {some(named)}.")
