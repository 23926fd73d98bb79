"""Checkpoint files of a training: written whole or not at all, checked before they are trusted, never unpickled."""

import hashlib
import io
import json
import logging
import math
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, ValidationError

from model.config import TrainingConfig
from model.errors import CheckpointCorrupt
from model.values import EpochReport, Frozen

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

LAST: Final = "last.ckpt"
PREVIOUS: Final = "previous.ckpt"
BEST: Final = "best.ckpt"
_KEY: Final = "ahclassifier"
_WEIGHTS: Final = "network."
_MACHINE_FIELDS: Final = frozenset(
    {
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "cache_limit_mb",
        "data_workers",
        "compile",
        "find_batch_size",
    }
)
"""What says where a training runs, not what is trained: an evicted training may go on elsewhere."""


class Progress(Frozen):
    """What a checkpoint says of its training."""

    config: TrainingConfig
    labels: tuple[str, ...]
    fingerprint: str
    history: tuple[EpochReport, ...]
    finished: bool = False
    parts: int = Field(default=1, description="In how many parts a batch had to be computed for the GPU's memory.")
    batch: int = Field(default=0, description="Batches that are done of the epoch after the last one in `history`.")

    @property
    def epoch(self) -> int:
        return self.history[-1].epoch


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read whole."""

    path: Path
    progress: Progress
    state_dict: dict[str, "Tensor"]

    @property
    def weights(self) -> dict[str, "Tensor"]:
        """The network's part of the state."""
        return {
            name.removeprefix(_WEIGHTS): value for name, value in self.state_dict.items() if name.startswith(_WEIGHTS)
        }

    @property
    def config(self) -> TrainingConfig:
        return self.progress.config

    @property
    def labels(self) -> tuple[str, ...]:
        return self.progress.labels


def training_fingerprint(config: TrainingConfig, data_version: str, labels: Sequence[str]) -> str:
    """What has to be the same for a training to go on: data, labels, and the configuration but the machine's part."""
    content = {
        "config": config.model_dump(mode="json", exclude=set(_MACHINE_FIELDS)),
        "data": data_version,
        "labels": list(labels),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def attach_progress(checkpoint: dict[str, Any], progress: Progress) -> None:
    """Write `progress` into Lightning's dictionary."""
    checkpoint[_KEY] = progress.model_dump_json()


def rescale_batches(checkpoint: dict[str, Any], parts: int) -> None:
    """Let Lightning's dictionary count partial batches as they are now, if a batch was in fewer parts then."""
    factor = parts // Progress.model_validate_json(checkpoint[_KEY]).parts
    counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for when in ("current", "total"):
        missing = counts[when]["ready"] - counts[when]["completed"]
        counts[when] = {name: count * factor for name, count in counts[when].items()}
        counts[when]["completed"] = counts[when]["ready"] - missing


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint: every byte against its CRC, then as plain tensors and values only.

    Raises:
        CheckpointCorrupt: It is missing, damaged, or not one of ours.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointCorrupt(f"The checkpoint {path} is damaged (its part {damaged}).")
        content = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress.model_validate_json(content[_KEY])
        state_dict = dict(content["state_dict"])
    except FileNotFoundError as error:
        raise CheckpointCorrupt(f"The checkpoint {path} does not exist.", next_step="Train the model anew.") from error
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValidationError) as error:
        raise CheckpointCorrupt(f"The checkpoint {path} is damaged: {_first_line(error)}.") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointCorrupt(f"{path} is no checkpoint of this program: {_first_line(error)}.") from error
    return Checkpoint(path, progress, state_dict)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class CheckpointFolder:
    """The checkpoints of one training: the last one, the one before, and the best epoch's so far.

    Args:
        directory: Where they lie.
        fingerprint: Of the training; see `training_fingerprint`.
    """

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self.directory = directory
        self.fingerprint = fingerprint
        self._best_loss = math.inf
        self._newest = directory / LAST

    @property
    def best(self) -> Path:
        return self.directory / BEST

    @property
    def newest_path(self) -> Path:
        """Where `newest` found one; elsewhere than on the first process nobody looks there."""
        return self._newest

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint to go on from; damaged ones are set aside with a warning.

        Raises:
            CheckpointCorrupt: The folder belongs to another training.
            OSError: The folder can't be written to.
        """
        candidates = [path for name in (LAST, PREVIOUS) if (path := self.directory / name).exists()]
        checkpoint = next(filter(None, map(self._usable, candidates)), None)
        if checkpoint is None:
            if candidates:
                log.warning("No whole checkpoint is left in %s: the training starts anew.", self.directory)
            return None
        self._newest = checkpoint.path
        best = self._usable(self.best)
        if best is None:
            # The best epoch's weights are lost; the best from here on is the next best thing.
            _write(self.best, {"state_dict": checkpoint.state_dict, _KEY: checkpoint.progress.model_dump_json()})
            best = checkpoint
        self._best_loss = best.progress.history[-1].validation_loss
        return checkpoint

    def save(self, content: Mapping[str, Any]) -> None:
        """Store Lightning's dictionary as the last state, keeping the one before; as the best too where it is that.

        Raises:
            OSError: For example when the disk is full. Earlier checkpoints stay whole.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        last = self.directory / LAST
        progress = Progress.model_validate_json(content[_KEY])
        loss = progress.history[-1].validation_loss
        if progress.batch == 0 and loss < self._best_loss:
            _write(self.best, _without_optimizer(content))
            self._best_loss = loss
        fresh = _write_aside(last, content)
        if last.exists():
            last.replace(self.directory / PREVIOUS)
        fresh.replace(last)

    def _usable(self, path: Path) -> Checkpoint | None:
        if not path.exists():
            return None
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointCorrupt as error:
            aside = path.with_name(f"{path.name}.corrupt")
            path.replace(aside)
            log.warning("%s It is set aside as %s; an earlier one is used where there is one.", error, aside.name)
            return None
        if checkpoint.progress.fingerprint != self.fingerprint:
            raise CheckpointCorrupt(
                f"The checkpoint {path} belongs to a training with another configuration or other data.",
                next_step=f"Give this training a directory of its own, or delete {self.directory}.",
            )
        return checkpoint


def _without_optimizer(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"state_dict": content["state_dict"], _KEY: content[_KEY]}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    _write_aside(path, content).replace(path)


def _write_aside(path: Path, content: Mapping[str, Any]) -> Path:
    """Write all of it, to the disk, under a temporary name beside `path`."""
    import torch

    # Through memory: torch's own writer turns a full disk into a RuntimeError without an errno.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    aside = path.with_name(f"{path.name}.part")
    try:
        with aside.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            aside.unlink()
        raise
    return aside
