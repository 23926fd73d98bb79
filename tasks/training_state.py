"""What a training goes on from when its machine is gone: a copy of its checkpoints, renewed after every epoch."""

from pathlib import Path
from typing import Any, Final

import fsspec

from model.checkpoints import BEST, LAST
from model.fit import RESULT

STATE: Final = (BEST, LAST, RESULT)
"""In the order in which they are copied: the last epoch is known only once its best weights are."""


class TrainingState:
    """The state of one training in a store that outlives this machine.

    Args:
        directory: Where the training works.
        uri: Where its state is kept; where this is the directory itself, as on one machine, there is nothing to do.
    """

    def __init__(self, directory: Path, uri: str) -> None:
        self.directory = directory
        self.uri = uri
        self._store: Any
        self._store, self._path = fsspec.core.url_to_fs(uri)
        self._elsewhere = Path(self._path) != directory
        self._kept: dict[str, int] = {}

    def bring(self, *, newest: bool = False) -> None:
        """Copy the state that another machine kept: where this one has none of its own, or by all means (`newest`)."""
        if not self._elsewhere or ((self.directory / LAST).exists() and not newest):
            return
        for name in STATE:
            if self._store.exists(f"{self._path}/{name}"):
                # Written aside: who is killed meanwhile leaves no half checkpoint.
                aside = self.directory / f"{name}.part"
                self._store.get_file(f"{self._path}/{name}", str(aside))
                aside.replace(self.directory / name)

    def keep(self) -> None:
        """Copy what changed since it was last kept; each file is replaced whole."""
        if not self._elsewhere:
            return
        for name in STATE:
            path = self.directory / name
            changed = path.stat().st_mtime_ns if path.exists() else None
            if changed is not None and self._kept.get(name) != changed:
                self._store.put_file(str(path), f"{self._path}/{name}")
                self._kept[name] = changed
