"""A batch that does not fit into the GPU's memory.

There is no GPU here. The error is PyTorch's own class, raised from a real forward pass of the real network as CUDA's
allocator raises it, as soon as more images come at once than the pretended memory holds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from model.data.manifest import DataVersion
from model.errors import GpuMemoryExhausted
from model.network.classifier import Classifier
from model.training.checkpoints import read_checkpoint
from model.training.fit import fit
from tests.support.training_case import short_training, small_data

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataVersion:
    return small_data(tmp_path_factory.mktemp("colours"))


@contextmanager
def memory_for(images: int, *, after: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Memory for so many images in training."""

    def allocate(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, Classifier) and module.training and len(inputs[0]) > images and after():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 15.0 GiB.")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(allocate)
    try:
        yield
    finally:
        hook.remove()


def test_the_error_says_the_numbers_and_what_to_set(data, tmp_path):
    with memory_for(4), pytest.raises(GpuMemoryExhausted, match=r"8 images of 64 x 64 pixels.*Tried to") as caught:
        fit(data, short_training(), tmp_path)
    assert "`batch_size` 8 -> 4 and `accumulate_grad_batches` 1 -> 2" in caught.value.next_step


def test_one_image_too_much_is_no_question_of_the_batch(data, tmp_path):
    with memory_for(0), pytest.raises(GpuMemoryExhausted) as caught:
        fit(data, short_training(batch_size=1, find_batch_size=True), tmp_path)
    assert "preprocessing.size" in caught.value.next_step


def test_the_batch_that_fits_is_found_and_the_steps_stay_the_same(data, tmp_path, caplog):
    reference = fit(data, short_training(epochs=1), tmp_path / "reference")
    with memory_for(2):
        found = fit(data, short_training(epochs=1, find_batch_size=True), tmp_path / "found")
    assert read_checkpoint(tmp_path / "found" / "last.ckpt").progress.parts == 4
    assert "Goes on with each batch in 4 parts" in caplog.text
    for one, other in zip(found.history, reference.history, strict=True):
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert one.learning_rate == other.learning_rate


def test_memory_that_gets_short_in_mid_epoch_loses_no_more_than_the_last_checkpoint(data, tmp_path):
    config = short_training(epochs=2, batch_size=4, find_batch_size=True)
    reference = fit(data, config, tmp_path / "reference")
    batches: list[int] = []
    with memory_for(2, after=lambda: len(batches) >= 3):
        found = fit(
            data,
            config,
            tmp_path / "found",
            on_batch=lambda done, total: batches.append(done),
            checkpoint_seconds=0,
        )
    assert batches[:4] == [1, 2, 3, 7]  # three whole batches, then the fourth in halves
    for one, other in zip(found.history, reference.history, strict=True):
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
