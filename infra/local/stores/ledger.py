"""Files of the release ledger in a folder of this machine."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


class EventFolder:
    """EventFiles below `root`; reading makes no folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def place(self, environment: str) -> str:
        return str(self._root / environment)

    def names(self, environment: str) -> list[str]:
        with suppress(FileNotFoundError):
            return [path.name for path in (self._root / environment).iterdir() if not path.name.startswith(".")]
        return []

    def read(self, environment: str, names: Sequence[str]) -> list[bytes | None]:
        return [_content(self._root / environment / name) for name in names]

    def create(self, environment: str, name: str, content: bytes) -> bool:
        folder = self._root / environment
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{name}.{uuid4().hex}"
        try:
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link replaces nothing.
            os.link(draft, folder / name)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        _keep(folder)
        return True


def _content(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _keep(folder: Path) -> None:
    """Let the folder's list of names outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
