"""Files of the release ledger in a folder of this machine."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from model.files import write_whole


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
        return write_whole(self._root / environment / name, content, replace=False)


def _content(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None
