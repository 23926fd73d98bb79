"""Which files of a folder are published."""

from collections.abc import Sequence
from pathlib import Path

from infra.errors import ModelNotFound


def files_of(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """All files below a folder, or the wanted ones, sorted.

    Raises:
        ModelNotFound: The folder or a wanted file is not there.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"The folder {folder} is not there.")
    if not wanted:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    chosen = sorted(folder / name for name in wanted)
    if missing := [str(path) for path in chosen if not path.is_file()]:
        raise ModelNotFound(f"Not there: {', '.join(missing)}.")
    return chosen
