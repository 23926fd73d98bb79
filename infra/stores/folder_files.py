"""Folders that are published or fetched: which of their files, and whole or not at all."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

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


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A name beside `target` at which the block makes it, to be renamed at the end; no draft is left.

    An error is passed over where `target` is there after it: another process was first, with the same bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        yield draft
    except OSError:
        # The disk is full, for instance.
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
