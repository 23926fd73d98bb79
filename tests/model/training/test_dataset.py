"""Images as batches, and how they are varied."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import AugmentationConfig
from model.data.decoding import Preprocessing, decode
from model.data.manifest import DataVersion, read_manifest
from model.training.augmentation import Augmentation
from model.training.dataset import Batch, ImageData, whole_image
from tests.support.training_case import data_version, short_training, small_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataVersion:
    return small_data(tmp_path_factory.mktemp("colours"), images=8)


def batches(loader: Iterator[Batch]) -> list[Batch]:
    return list(loader)


def test_worker_processes_deliver_what_the_cache_does(data):
    cached, streamed = (ImageData(data, short_training(cache_limit_mb=limit)) for limit in (100, 0))
    for images in (cached, streamed):
        images.setup()
    assert cached.train.cache is not None
    assert streamed.train.cache is None
    for one, other in zip(batches(cached.train_dataloader()), batches(streamed.train_dataloader()), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_validation_shows_exactly_what_scoring_sees(data):
    images = ImageData(data, short_training())
    images.setup()
    frame = read_manifest(data.manifest_uri)
    expected = [
        decode((Path(data.source_uri) / path).read_bytes(), Preprocessing(size=64))
        for path in frame[frame["split"] == "validation"]["path"]
    ]
    shown = torch.cat([batch.images for batch in images.val_dataloader()])
    assert np.array_equal(shown.numpy(), np.stack(expected))


def test_each_epoch_has_an_order_of_its_own_and_the_same_each_time(data):
    images = ImageData(data, short_training())
    images.setup()
    loader = images.train_dataloader()

    def order(epoch: int) -> list[int]:
        loader.batch_sampler.set_epoch(epoch)
        return [image for batch in loader.batch_sampler for image in batch]

    assert order(0) != order(1)
    assert order(0) == order(0)
    assert len(order(1)) == len(set(order(1))) == len(loader) * loader.batch_sampler.batch_size


def test_images_at_fault_and_exact_duplicates_are_left_out(tmp_path):
    data = small_data(tmp_path, images=8)
    before = len(ImageData(data, short_training()).train)
    frame = read_manifest(data.manifest_uri)
    original = frame[frame["split"] == "train"]["path"].iloc[0]
    source = tmp_path / "source"
    (source / original).with_name("copy.jpg").write_bytes((source / original).read_bytes())
    (source / "red" / "broken.jpg").write_text("no image")
    assert len(ImageData(data_version(tmp_path), short_training()).train) == before


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


def stored(picture: Image.Image, path: Path, preprocessing: Preprocessing) -> tuple[bytes, torch.Tensor, torch.Tensor]:
    picture.save(path)
    data = path.read_bytes()
    image = whole_image(data, preprocessing)
    return data, torch.tensor(image.pixels)[None], torch.tensor([image.aspect])


@pytest.mark.parametrize(("width", "height"), [(120, 120), (200, 100), (90, 240)])
def test_the_plain_view_is_the_centre_crop_in_true_proportions(width, height, tmp_path):
    preprocessing = Preprocessing(size=64)
    data, pixels, aspect = stored(gradient(width, height), tmp_path / "gradient.png", preprocessing)
    plain = Augmentation(AugmentationConfig(), preprocessing).plain(pixels, aspect)
    expected = torch.tensor(decode(data, preprocessing)).permute(2, 0, 1).float()
    assert plain.shape == (1, 3, 64, 64)
    assert (plain[0] - expected).abs().max() < 4


def test_a_random_view_is_a_part_of_the_image_of_the_promised_size_and_shape(tmp_path):
    preprocessing = Preprocessing(size=64)
    config = AugmentationConfig(min_scale=0.25, max_stretch=4 / 3, colour=0)
    _, pixels, aspect = stored(gradient(200, 100), tmp_path / "gradient.png", preprocessing)
    views = Augmentation(config, preprocessing)(
        pixels.expand(200, -1, -1, -1),
        aspect.expand(200),
        torch.Generator().manual_seed(0),
        whole=200,
        places=slice(None),
    )
    left, right = views[:, 0, 32, 0], views[:, 0, 32, -1]
    # In units of the shorter side, from the colours of the gradient.
    width, height = (right - left).abs() / 255 * 2, (views[:, 1, -1, 32] - views[:, 1, 0, 32]) / 255
    assert 0.3 < (left > right).float().mean() < 0.7
    assert (width * height).min() > 0.22
    assert (width * height).max() <= 1.01
    assert (width / height).max() < 1.4
    assert (width / height).min() > 0.7
    assert views.min() >= 0
    assert views.max() <= 255


def test_the_same_generator_draws_the_same_views_and_colours_stay_in_range(tmp_path):
    preprocessing = Preprocessing(size=64)
    _, pixels, aspect = stored(gradient(100, 100), tmp_path / "gradient.png", preprocessing)
    augment = Augmentation(AugmentationConfig(colour=0.9), preprocessing)
    pixels, aspect = pixels.expand(20, -1, -1, -1), aspect.expand(20)
    one, same, other = (
        augment(pixels, aspect, torch.Generator().manual_seed(seed), whole=20, places=slice(None)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 255


def test_full_scale_without_flip_or_colour_changes_nothing_but_the_crop(tmp_path):
    preprocessing = Preprocessing(size=64, crop_fraction=1.0)
    config = AugmentationConfig(min_scale=1, max_stretch=1, flip=False, colour=0)
    _, pixels, aspect = stored(gradient(100, 100), tmp_path / "gradient.png", preprocessing)
    augment = Augmentation(config, preprocessing)
    view = augment(pixels, aspect, torch.Generator().manual_seed(0), whole=1, places=slice(None))
    assert torch.allclose(view, augment.plain(pixels, aspect), atol=1e-2)
