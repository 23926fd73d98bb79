"""A training is interrupted in the middle of an epoch, and ends as if it had not been."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from model.config import TrainingConfig
from model.data.manifest import DataVersion
from model.errors import TrainingInterrupted
from model.training.checkpoints import read_checkpoint
from model.training.fit import FitResult, fit
from tests.support.training_case import short_training

pytestmark = pytest.mark.usefixtures("one_thread")

SAME = ("train_loss", "validation_loss", "validation_accuracy", "validation_macro_recall", "learning_rate")


def config(**changes: object) -> TrainingConfig:
    return short_training(epochs=2, batch_size=4, **changes)


@pytest.fixture(scope="module")
def uninterrupted(data: DataVersion, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(data, config(), tmp_path_factory.mktemp("uninterrupted"))


def metrics(result: FitResult) -> list[dict[str, float]]:
    return [report.model_dump(include=set(SAME)) for report in result.history]


class StopAt:
    """Asks to stop once so many batches of fine-tuning are done."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.done = 0

    def on_batch(self, done: int, total: int) -> None:
        self.done = done

    def __call__(self) -> bool:
        return self.done >= self.batch


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    return read_checkpoint(Path(result.checkpoint).with_name("last.ckpt")).weights


def stop_at(batch: int, data: DataVersion, directory: Path, **changes: object) -> None:
    stop = StopAt(batch)
    with pytest.raises(TrainingInterrupted, match="asked to stop"):
        fit(data, config(**changes), directory, on_batch=stop.on_batch, stop=stop)


def test_a_training_stopped_in_mid_epoch_ends_with_the_same_bits(data, uninterrupted, tmp_path):
    stop_at(3, data, tmp_path)
    progress = read_checkpoint(tmp_path / "last.ckpt").progress
    assert (progress.epoch, progress.batch) == (0, 3)
    batches: list[int] = []
    resumed = fit(data, config(), tmp_path, on_batch=lambda done, total: batches.append(done))
    assert batches[0] == 4
    assert (resumed.resumed_from_epoch, resumed.resumed_at_batch) == (0, 3)
    assert metrics(resumed) == metrics(uninterrupted)
    reference = weights(uninterrupted)
    assert all(value.equal(reference[name]) for name, value in weights(resumed).items())


def test_a_training_stopped_at_every_batch_still_ends_with_the_same_metrics(data, uninterrupted, tmp_path):
    for batch in range(1, 20):
        stop = StopAt(batch)
        try:
            resumed = fit(data, config(), tmp_path, on_batch=stop.on_batch, stop=stop)
            break
        except TrainingInterrupted:
            continue
    assert metrics(resumed) == metrics(uninterrupted)


def test_added_up_gradients_are_never_lost(data, tmp_path):
    whole = fit(data, config(accumulate_grad_batches=2), tmp_path / "whole")
    stop_at(3, data, tmp_path / "fit", accumulate_grad_batches=2)
    assert read_checkpoint(tmp_path / "fit" / "last.ckpt").progress.batch == 4
    resumed = fit(data, config(accumulate_grad_batches=2), tmp_path / "fit")
    assert metrics(resumed) == metrics(whole)


def test_sigterm_is_answered_by_who_called_and_leaves_a_checkpoint(data, tmp_path):
    """In the middle of added-up gradients, after which there is no checkpoint at once."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        with pytest.raises(TrainingInterrupted, match="asked to stop"):
            fit(
                data,
                config(accumulate_grad_batches=2),
                tmp_path,
                on_batch=lambda done, total: signal.raise_signal(signal.SIGTERM) if done == 3 else None,
                stop=asked.is_set,
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert read_checkpoint(tmp_path / "last.ckpt").progress.batch == 4


def test_a_stop_during_the_warm_up_leaves_nothing_and_the_training_starts_anew(data, tmp_path):
    with pytest.raises(TrainingInterrupted, match="warm-up"):
        fit(data, config(), tmp_path, stop=lambda: True)
    assert not list(tmp_path.glob("*.ckpt"))


def test_sigkill_in_mid_epoch_loses_no_more_than_the_time_between_two_checkpoints(data, uninterrupted, tmp_path):
    for name, value in (("data.json", data), ("config.json", config())):
        (tmp_path / name).write_text(value.model_dump_json())
    arguments = [str(tmp_path / name) for name in ("data.json", "config.json", "fit")]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.training_case", *arguments, "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert child.stdout is not None
    kept = 0
    for line in child.stdout:
        kept += line.strip() == "checkpoint"
        if kept == 2:
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait(timeout=60) == -signal.SIGKILL
    child.stdout.close()
    resumed = fit(data, config(), tmp_path / "fit")
    assert resumed.resumed_from_epoch == 0
    assert resumed.resumed_at_batch >= 2
    assert metrics(resumed) == metrics(uninterrupted)
