"""Training runs, is interrupted, and goes on."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import TrainingConfig
from model.data.decoding import decode
from model.data.manifest import DataVersion
from model.errors import CheckpointCorrupt, DataRejected, SourceUnreadable, TrainingDiverged
from model.export.build import load_network
from model.training.checkpoints import read_checkpoint
from model.training.fit import FitResult, fit
from model.values import EpochReport
from tests.support.training_case import COLOURS, coloured, data_version, short_training, small_data

pytestmark = pytest.mark.usefixtures("one_thread")

SAME = ("train_loss", "validation_loss", "validation_accuracy", "validation_macro_recall", "learning_rate")


@pytest.fixture(scope="module")
def uninterrupted(data: DataVersion, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(data, short_training(), tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_one_epoch_of_few_steps_trains(data, tmp_path, steps):
    images = sum(splits["train"] for splits in data.counts.values())
    result = fit(data, short_training(epochs=1, head_epochs=1, batch_size=-(-images // steps)), tmp_path)
    assert result.epochs == 1


class PowerCut(Exception):
    pass


def interrupt(data: DataVersion, config: TrainingConfig, directory: Path, *, after: int) -> None:
    """Train until the checkpoint of an epoch is on the disk, and no further."""

    def on_epoch(report: EpochReport) -> None:
        if report.epoch == after:
            raise PowerCut

    with pytest.raises(PowerCut):
        fit(data, config, directory, on_epoch=on_epoch)


def metrics(result: FitResult) -> list[dict[str, float]]:
    return [report.model_dump(include=set(SAME)) for report in result.history]


def test_a_training_learns_reports_and_leaves_nothing_but_its_files(data, tmp_path, capfd, caplog):
    reports, batches = [], []
    caplog.set_level(logging.INFO)
    result = fit(
        data,
        short_training(),
        tmp_path,
        on_epoch=reports.append,
        on_batch=lambda done, total: batches.append((done, total)),
    )
    assert [report.epoch for report in reports] == [0, 1, 2, 3]
    assert tuple(reports) == result.history
    assert result.epochs == 3
    assert not result.stopped_early
    assert result.history[-1].validation_accuracy > 0.8
    assert result.history[-1].train_loss < result.history[1].train_loss
    assert result.images_per_second > 0
    assert batches[-1][0] == batches[-1][1] == len(batches)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt", "result.json"}
    said = capfd.readouterr()
    assert said.out == ""
    assert "Lightning" not in said.err + caplog.text
    assert "TPU" not in said.err + caplog.text


def test_the_best_checkpoint_becomes_a_network_with_its_labels_and_configuration(uninterrupted, tmp_path):
    network, labels, config = load_network(Path(uninterrupted.checkpoint))
    assert labels == tuple(COLOURS)
    assert config == short_training()
    assert not network.training
    unseen = []
    for colour in COLOURS.values():
        coloured(colour, 999).save(tmp_path / "unseen.jpg")
        unseen.append(decode((tmp_path / "unseen.jpg").read_bytes(), config.preprocessing))
    pictures = torch.from_numpy(np.stack(unseen)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        assert network(pictures).argmax(1).tolist() == [0, 1, 2]
    best = min(uninterrupted.history, key=lambda report: report.validation_loss)
    assert uninterrupted.best_epoch == best.epoch


def test_a_finished_training_is_answered_at_once(data, tmp_path):
    first = fit(data, short_training(epochs=1), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = fit(data, short_training(epochs=1), tmp_path, on_batch=lambda *_: pytest.fail("It trained again."))
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_finished_training_that_lost_its_result_file_is_not_repeated(data, tmp_path):
    first = fit(data, short_training(epochs=1), tmp_path)
    (tmp_path / "result.json").write_text("{")
    again = fit(data, short_training(epochs=1), tmp_path, on_batch=lambda *_: pytest.fail("It trained again."))
    assert again.history == first.history
    assert json.loads((tmp_path / "result.json").read_text())["best_epoch"] == first.best_epoch


def test_a_training_killed_with_sigkill_goes_on_at_its_last_epoch_as_if_nothing_had_been(data, uninterrupted, tmp_path):
    for name, value in (("data.json", data), ("config.json", short_training())):
        (tmp_path / name).write_text(value.model_dump_json())
    command = [sys.executable, "-m", "tests.support.training_case", "data.json", "config.json", "fit"]
    command[3:] = [str(tmp_path / name) for name in command[3:]]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "epoch 2":
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait(timeout=60) == -signal.SIGKILL
    child.stdout.close()
    resumed = fit(data, short_training(), tmp_path / "fit")
    assert resumed.resumed_from_epoch == 2
    assert metrics(resumed) == metrics(uninterrupted)
    assert resumed.best_epoch == uninterrupted.best_epoch


def test_a_training_interrupted_after_the_warm_up_does_not_repeat_it(data, uninterrupted, tmp_path):
    interrupt(data, short_training(), tmp_path, after=0)
    resumed = fit(data, short_training(), tmp_path)
    assert resumed.resumed_from_epoch == 0
    assert metrics(resumed) == metrics(uninterrupted)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribble(path: Path) -> None:
    path.write_bytes(b"not a checkpoint")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, scribble, flip_a_bit, empty])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(damage, data, uninterrupted, tmp_path, caplog):
    interrupt(data, short_training(), tmp_path, after=2)
    damage(tmp_path / "last.ckpt")
    resumed = fit(data, short_training(), tmp_path)
    assert resumed.resumed_from_epoch == 1
    assert (tmp_path / "last.ckpt.corrupt").exists()
    assert "last.ckpt" in caplog.text
    assert metrics(resumed) == metrics(uninterrupted)


def test_without_a_whole_checkpoint_training_starts_anew(data, uninterrupted, tmp_path, caplog):
    interrupt(data, short_training(), tmp_path, after=2)
    for name in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        truncate(tmp_path / name)
    result = fit(data, short_training(), tmp_path)
    assert result.resumed_from_epoch is None
    assert metrics(result) == metrics(uninterrupted)
    assert read_checkpoint(Path(result.checkpoint)).progress.epoch == uninterrupted.best_epoch
    assert "starts anew" in caplog.text


def test_a_damaged_best_checkpoint_is_replaced_from_the_epoch_that_training_goes_on_from(data, tmp_path):
    interrupt(data, short_training(), tmp_path, after=2)
    truncate(tmp_path / "best.ckpt")
    result = fit(data, short_training(), tmp_path)
    assert result.best_epoch in (2, 3)
    assert load_network(Path(result.checkpoint))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"state_dict": Bomb()}, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointCorrupt):
        load_network(tmp_path / "best.ckpt")
    assert not (tmp_path / "exploded").exists()


def test_the_checkpoints_of_another_training_are_refused(data, tmp_path):
    interrupt(data, short_training(), tmp_path, after=0)
    with pytest.raises(CheckpointCorrupt, match="another configuration"):
        fit(data, short_training(label_smoothing=0.2), tmp_path)
    assert (tmp_path / "last.ckpt").exists()


def test_an_evicted_training_may_go_on_on_another_kind_of_machine(data, tmp_path):
    interrupt(data, short_training(epochs=1), tmp_path, after=0)
    resumed = fit(data, short_training(epochs=1, devices="auto", accelerator="auto", cache_limit_mb=999), tmp_path)
    assert resumed.resumed_from_epoch == 0


def test_a_full_disk_is_reported_as_such_and_leaves_earlier_checkpoints_whole(data, uninterrupted, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(small)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:

        def on_epoch(report: EpochReport) -> None:
            if report.epoch == 1:
                free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
                (small / "filler").write_bytes(bytes(free - 2_000_000))

        with pytest.raises(OSError, match="No space left on device"):
            fit(data, short_training(), small / "fit", on_epoch=on_epoch)
        assert read_checkpoint(small / "fit" / "last.ckpt").progress.epoch == 1
        assert not list(small.glob("fit/*.part"))
        (small / "filler").unlink()
        resumed = fit(data, short_training(), small / "fit")
        assert resumed.resumed_from_epoch == 1
        assert metrics(resumed) == metrics(uninterrupted)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_loss_that_is_no_number_ends_the_training(data, tmp_path):
    interrupt(data, short_training(), tmp_path, after=1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["state_dict"]["network.head.weight"].fill_(torch.nan)
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(TrainingDiverged, match="epoch 2, batch 1"):
        fit(data, short_training(), tmp_path)
    assert read_checkpoint(tmp_path / "last.ckpt").progress.epoch == 1


@pytest.mark.parametrize("cache_limit_mb", [0, 100])
def test_an_image_that_went_after_the_manifest_was_written_is_named(cache_limit_mb, tmp_path):
    data = small_data(tmp_path, images=6)
    shutil.rmtree(tmp_path / "source" / "green")
    with pytest.raises(SourceUnreadable, match=r"green/\d\d\.jpg"):
        fit(data, short_training(cache_limit_mb=cache_limit_mb), tmp_path / "fit")


def test_training_stops_early_when_the_validation_loss_does_not_fall(data, tmp_path):
    config = short_training(epochs=20, early_stopping_patience=1, backbone_learning_rate=0.5, head_learning_rate=0.5)
    result = fit(data, config, tmp_path)
    assert result.stopped_early
    assert result.epochs < 20
    again = fit(data, config, tmp_path)
    assert again == result


def test_without_fine_tuning_the_warmed_up_head_is_the_model(data, tmp_path):
    result = fit(data, short_training(epochs=0, head_epochs=10), tmp_path)
    assert [report.epoch for report in result.history] == [0]
    assert result.best_epoch == 0
    assert result.images_per_second is None
    assert load_network(Path(result.checkpoint))[1] == tuple(COLOURS)


def test_odd_images_of_many_labels_can_be_trained_on(tmp_path):
    modes = ("RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "I;16")
    for number, mode in enumerate(modes):
        folder = tmp_path / "source" / f"label-{number}"
        folder.mkdir(parents=True)
        for image in range(6):
            picture = coloured(
                (30 * number, 90, 200), image + 100 * number, width=31 + 40 * image, height=97 - 11 * image
            )
            if mode == "CMYK":
                picture.convert(mode).save(folder / f"{image}.jpg")
            else:
                (picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)).save(
                    folder / f"{image}.png"
                )
    result = fit(data_version(tmp_path), short_training(epochs=1, class_weights=True), tmp_path / "fit")
    assert result.epochs == 1


def test_a_label_without_a_training_image_is_refused(data, tmp_path):
    with pytest.raises(DataRejected, match="yellow"):
        fit(data.model_copy(update={"labels": (*data.labels, "yellow")}), short_training(), tmp_path)


def test_training_leaves_the_random_state_of_the_process_alone(data, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(data, short_training(epochs=1), tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
