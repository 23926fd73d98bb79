"""Folders that are published or fetched: which of their files, and whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

from infra.errors import ModelNotFound


def files_of(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """All files below a folder, or those of these names, sorted.

    Raises:
        ModelNotFound: The folder or one of the files is not there.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"The folder {folder} is not there.")
    if not names:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    chosen = sorted(folder / name for name in names)
    if missing := [str(path) for path in chosen if not path.is_file()]:
        raise ModelNotFound(f"Not there: {', '.join(missing)}.")
    return chosen
