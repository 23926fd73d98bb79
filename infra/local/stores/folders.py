"""Folders that a later run needs, on one machine: they stay where they were made."""

from collections.abc import Sequence
from pathlib import Path

from infra.errors import ModelNotFound
from infra.stores.folder_files import files_of


class LocalFolders:
    """A FolderStore whose URLs are paths."""

    def publish(self, folder: Path, name: str, *, files: Sequence[str] = ()) -> str:  # noqa: ARG002 - the path says it
        files_of(folder, files)
        return str(folder)

    def fetch(self, url: str) -> Path:
        folder = Path(url)
        if not folder.is_dir():
            raise ModelNotFound(
                f"The folder {folder} is gone; an earlier run made it.",
                next_step="Run the lifecycle again: what is missing is made anew.",
            )
        return folder
