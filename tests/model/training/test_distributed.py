"""Several processes train together: as one does, and none is left behind."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model.config import TrainingConfig
from model.data.manifest import DataVersion
from model.errors import InvalidConfig, SourceUnreadable, TrainingInterrupted
from model.training.dataset import ImageData
from model.training.distributed import Place, place_of
from model.training.fit import FitResult, fit
from model.training.sampling import Share
from tests.conftest import free_ports
from tests.support.training_case import short_training, small_data

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("one_thread")]

TOLERANCE = 1e-4
"""Of losses, relative; sums of floats in another order differ by about 1e-6 after an epoch."""


def config(**changes: object) -> TrainingConfig:
    return short_training(epochs=2, batch_size=7, **changes)


@pytest.fixture(scope="module")
def alone(data: DataVersion, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(data, config(), tmp_path_factory.mktemp("alone"))


def assert_same(one: FitResult, other: FitResult) -> None:
    assert len(one.history) == len(other.history)
    for a, b in zip(one.history, other.history, strict=True):
        assert a.validation_loss == pytest.approx(b.validation_loss, rel=TOLERANCE)
        assert a.train_loss == (None if b.train_loss is None else pytest.approx(b.train_loss, rel=TOLERANCE))
        assert a.validation_accuracy == b.validation_accuracy
        assert a.learning_rate == b.learning_rate


def test_two_processes_end_where_one_does(data, alone, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    batches: list[tuple[int, int]] = []
    pair = fit(data, config(devices=2), tmp_path, on_batch=lambda done, total: batches.append((done, total)))
    print([(a.validation_loss, b.validation_loss) for a, b in zip(alone.history, pair.history, strict=True)])
    assert_same(pair, alone)
    assert batches[-1] == (len(batches), len(batches))
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt", "result.json"}


def test_a_training_goes_on_with_another_number_of_processes(data, alone, tmp_path):
    done = 0

    def on_batch(batch: int, total: int) -> None:
        nonlocal done
        done = batch

    with pytest.raises(TrainingInterrupted, match="asked to stop"):
        fit(data, config(devices=2), tmp_path, on_batch=on_batch, stop=lambda: done >= 2)
    resumed = fit(data, config(devices=1), tmp_path)
    assert (resumed.resumed_from_epoch, resumed.resumed_at_batch) == (0, 2)
    assert_same(resumed, alone)


def children() -> list[int]:
    answer = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in answer.stdout.splitlines() if "model.training.rank_process" in line]


def test_a_killed_rank_ends_the_training_with_its_name_and_the_next_call_goes_on(data, alone, tmp_path):
    def on_batch(done: int, total: int) -> None:
        if done == 2:
            for child in children():
                os.kill(child, signal.SIGKILL)

    with pytest.raises(TrainingInterrupted, match="Rank 1 of this training was killed by signal 9"):
        fit(data, config(devices=2), tmp_path, on_batch=on_batch, checkpoint_seconds=0)
    assert children() == []
    resumed = fit(data, config(devices=2), tmp_path)
    assert resumed.resumed_at_batch >= 1
    assert_same(resumed, alone)


def test_what_is_wrong_in_one_process_is_what_the_training_says(tmp_path):
    data = small_data(tmp_path, images=8)
    (tmp_path / "source" / "green").rename(tmp_path / "source" / "gone")
    with pytest.raises(SourceUnreadable, match=r"green/\d\d\.jpg"):
        fit(data, config(devices=2), tmp_path / "fit")
    assert children() == []


def test_more_processes_than_images_are_refused(data):
    with pytest.raises(InvalidConfig, match="40 processes"):
        ImageData(data, config(), Share(0, 40))


def test_processes_that_are_started_from_outside_train_together(data, alone, tmp_path):
    """As torchrun, Azure ML or an indexed Job start them: by the environment."""
    for name, value in (("data.json", data), ("config.json", config())):
        (tmp_path / name).write_text(value.model_dump_json())
    arguments = [str(tmp_path / name) for name in ("data.json", "config.json")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    ended = subprocess.run(
        [*command, "tests.support.training_case", *arguments, str(tmp_path / "fit")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    results = [FitResult.model_validate_json(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(results) == 2
    assert results[0].history == results[1].history
    assert_same(results[0], alone)
    assert ended.stdout.count("epoch 1") == 1


def test_a_process_that_was_started_from_outside_and_loses_another_is_interrupted(data, tmp_path):
    for name, value in (("data.json", data), ("config.json", config())):
        (tmp_path / name).write_text(value.model_dump_json())
    [port] = free_ports(1)
    both = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        arguments = [str(tmp_path / name) for name in ("data.json", "config.json", "fit")]
        both.append(
            subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.support.training_case", *arguments],
                env={**os.environ, **place, "MASTER_PORT": str(port)},
                cwd=Path(__file__).parents[3],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    first, second = both
    assert first.stdout is not None
    assert first.stdout.readline() == "epoch 0\n"
    second.kill()
    _, said = first.communicate(timeout=120)
    second.communicate()
    assert "model.errors.TrainingInterrupted: Rank 0 of 2 lost" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("environ", "changes", "expected"),
    [
        ({}, {}, (Place(), False)),
        ({}, {"devices": 4}, (Place(0, 4, 0, 4), False)),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "4"},
            {"num_nodes": 2},
            (Place(5, 8, 1, 4, "first", 4), True),
        ),
        (
            {"NODE_RANK": "1", "MASTER_ADDR": "first"},
            {"num_nodes": 2, "devices": 2},
            (Place(2, 4, 0, 2, "first", 29500), False),
        ),
    ],
)
def test_a_process_finds_its_place_by_the_environment(environ, changes, expected):
    assert place_of(environ, short_training(**changes)) == expected


def test_several_machines_need_to_know_the_first():
    with pytest.raises(InvalidConfig, match="MASTER_ADDR"):
        place_of({}, short_training(num_nodes=2))
