"""The images of a manifest as batches: decoded once and kept in memory where they fit, else by worker processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pytorch_lightning as lightning
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from model.config import TrainingConfig
from model.data.decoding import Pixels, Preprocessing, open_image, preprocess, to_rgb
from model.data.manifest import read_manifest
from model.data.sources import filesystem_of, read_bytes
from model.errors import DataRejected, ImageRejected, InvalidConfig, SourceUnreadable
from model.training.augmentation import Augmentation
from model.training.sampling import EpochBatches, Share

if TYPE_CHECKING:
    import pandas as pd

    from model.data.manifest import DataVersion

_REDUCING_GAP: Final = 2.0
_SHARE_OF_GPU: Final = 0.25
"""Of the GPU's free memory, for decoded images: the network and its activations need the rest."""
_ALL: Final = Share()


class Batch(NamedTuple):
    """Images and their classes.

    From the loaders, `images` are uint8 [n, edge, edge, 3]; after the transfer to the device they are what the
    network takes, float [n, 3, size, size]. `aspect` is width by height of the originals, [n]; `targets` are class
    indices, [n].
    """

    images: Tensor
    aspect: Tensor
    targets: Tensor


class StoredImage(NamedTuple):
    """Pixels as they are cached, and the aspect ratio of the original."""

    pixels: Pixels
    aspect: float


def whole_image(data: bytes, preprocessing: Preprocessing) -> StoredImage:
    """The whole image, squeezed into the smallest square that holds a centre crop at full size: for random crops."""
    edge = stored_edge(preprocessing)
    rgb = to_rgb(open_image(data), at_least=edge)
    squeezed = rgb.resize((edge, edge), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)
    return StoredImage(np.asarray(squeezed), rgb.width / rgb.height)


def stored_edge(preprocessing: Preprocessing) -> int:
    """Edge of a whole stored image in pixels."""
    return int(np.ceil(preprocessing.size / preprocessing.crop_fraction))


def centre_crop(data: bytes, preprocessing: Preprocessing) -> StoredImage:
    """Exactly what evaluation and scoring see."""
    return StoredImage(preprocess(open_image(data), preprocessing), 1.0)


class ManifestImages(Dataset[Batch]):
    """The decoded images of some rows of a manifest, fetched by the batch.

    Args:
        frame: Rows with `path` and `label`.
        source_uri: What the paths are relative to.
        labels: A class index is a position in here.
        decode: Bytes to stored pixels.
        preprocessing: Given to `decode`.
    """

    def __init__(
        self,
        frame: "pd.DataFrame",
        source_uri: str,
        labels: Sequence[str],
        *,
        decode: Callable[[bytes, Preprocessing], StoredImage],
        preprocessing: Preprocessing,
    ) -> None:
        index = {label: number for number, label in enumerate(labels)}
        self.paths = [str(path) for path in frame["path"]]
        self.targets = torch.tensor([index[label] for label in frame["label"]], dtype=torch.long)
        self.source_uri = source_uri
        # Goes with this to the loader's processes, which would not know by the URL alone how it is opened.
        self.filesystem = filesystem_of(source_uri)
        self.decode = decode
        self.preprocessing = preprocessing
        self.cache: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> StoredImage:
        """Read and decode one image.

        Raises:
            SourceUnreadable: It has gone or changed since the manifest was written.
        """
        path = self.paths[index]
        try:
            return self.decode(read_bytes(self.source_uri, path), self.preprocessing)
        except (OSError, ImageRejected) as error:
            raise SourceUnreadable(
                f"The image {path} of {self.source_uri} is in the data manifest, but can't be read any more: {error}",
                next_step="Bring the file back, or run the data validation again for a new manifest.",
            ) from error

    def fill_cache(self, threads: int) -> None:
        """Decode every image into memory, in parallel: Pillow works outside the interpreter's lock."""
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            self.cache = _stack(pool.map(self.load, range(len(self))), len(self))

    @property
    def on_gpu(self) -> bool:
        """Whether the decoded images are in a GPU's memory."""
        return self.cache is not None and self.cache[0].is_cuda

    def move_cache(self, device: torch.device) -> None:
        """Hold the decoded images and their targets on this device."""
        assert self.cache is not None
        pixels, aspect = self.cache
        self.cache = pixels.to(device), aspect.to(device)
        self.targets = self.targets.to(device)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch at once; the data loader prefers this to one item after another."""
        chosen = torch.as_tensor(indices)
        if self.cache is not None:
            pixels, aspect = self.cache
            if self.on_gpu:
                chosen = chosen.pin_memory().to(pixels.device, non_blocking=True)
            return Batch(pixels[chosen], aspect[chosen], self.targets[chosen])
        pixels, aspect = _stack((self.load(index) for index in indices), len(indices))
        return Batch(pixels, aspect, self.targets[chosen])


def _stack(images: Iterator[StoredImage], count: int) -> tuple[Tensor, Tensor]:
    """Fill one block of memory as the images arrive; a list of them first would need it twice."""
    pixels: Tensor | None = None
    aspect = torch.empty(count)
    for number, image in enumerate(images):
        if pixels is None:
            pixels = torch.empty((count, *image.pixels.shape), dtype=torch.uint8)
        pixels[number] = torch.from_numpy(np.array(image.pixels))
        aspect[number] = image.aspect
    assert pixels is not None
    return pixels, aspect


def _as_is(batch: Any) -> Any:
    """The images come as a batch already; see `ManifestImages.__getitems__`."""
    return batch


class ImageData(lightning.LightningDataModule):
    """The train and validation splits of a data version, as batches.

    Order and augmentation depend on the seed, the epoch and the number of the batch only, so a training that was
    interrupted goes on exactly as it would have, on more devices or fewer too.

    Args:
        data: The data version.
        config: The hyperparameters.
        share: The part of each batch that this process computes at once.
        interrupted: See `EpochBatches`.

    Raises:
        DataRejected: A label has no training image, or there is no validation image.
        SourceUnreadable: See `ManifestImages.load`.
    """

    def __init__(
        self,
        data: "DataVersion",
        config: TrainingConfig,
        share: Share = _ALL,
        interrupted: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.config = config
        self.share = share
        self.labels = data.labels
        self.augment = Augmentation(config.augmentation, config.preprocessing)
        self.threads = config.data_workers or os.cpu_count() or 1
        frame = read_manifest(data.manifest_uri)
        frame = frame[frame["error"].isna()]
        # The same bytes twice teach nothing twice; the manifest keeps them on one side.
        frame = frame.drop_duplicates(["sha256", "label"])
        train, validation = (frame[frame["split"] == split] for split in ("train", "validation"))
        _require_images(data, train, validation, share.world)
        self.train = self._images(train, data, whole_image)
        self.validation = self._images(validation, data, centre_crop)
        self.cached = self._fits()
        self.batches = EpochBatches(
            len(self.train), config.batch_size, seed=config.seed, share=share, interrupted=interrupted
        )
        self.images_at_once = max(1, config.batch_size // (share.world * share.parts))

    def _images(
        self, frame: "pd.DataFrame", data: "DataVersion", decode: Callable[[bytes, Preprocessing], StoredImage]
    ) -> ManifestImages:
        return ManifestImages(
            frame, data.source_uri, data.labels, decode=decode, preprocessing=self.config.preprocessing
        )

    def _fits(self) -> bool:
        size = self.config.preprocessing.size
        needed = 3 * (len(self.train) * stored_edge(self.config.preprocessing) ** 2 + len(self.validation) * size**2)
        return needed <= self.config.cache_limit_mb * 10**6

    @override
    def setup(self, stage: str | None = None) -> None:
        """Decode everything, where it fits and hasn't been done yet."""
        for images in (self.train, self.validation):
            if self.cached and images.cache is None:
                images.fill_cache(self.threads)

    def keep_on(self, device: torch.device) -> None:
        """Hold the decoded images in the GPU's own memory, where they take little of it."""
        caches = [images.cache for images in (self.train, self.validation) if images.cache is not None]
        if device.type != "cuda" or not caches:
            return
        needed = sum(pixels.nbytes for pixels, _ in caches)
        if needed > _SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
            return
        for images in (self.train, self.validation):
            images.move_cache(device)

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.train, batch_sampler=self.batches)

    @override
    def val_dataloader(self) -> DataLoader[Batch]:
        own = range(self.share.rank, len(self.validation), self.share.world)
        return self._loader(self.validation, sampler=own, batch_size=self.images_at_once)

    def in_order(self, images: ManifestImages, indices: Sequence[int]) -> DataLoader[Batch]:
        """The chosen images, one after another."""
        return self._loader(images, sampler=indices, batch_size=self.images_at_once)

    def _loader(self, images: ManifestImages, **options: Any) -> DataLoader[Batch]:
        if images.cache is None:
            # A forked copy of a process with threads can hang; a fresh one can't.
            options |= {
                "num_workers": self.threads,
                "multiprocessing_context": "spawn",
                "persistent_workers": True,
                "prefetch_factor": 4,
            }
        pinned = torch.cuda.is_available() and not images.on_gpu
        return DataLoader(images, collate_fn=_as_is, pin_memory=pinned, **options)

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels to network inputs, on the device: varied in training, as they are in validation."""
        if self.trainer is None or not self.trainer.training:
            return batch._replace(images=batch.images.permute(0, 3, 1, 2).float())
        number = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        generator = torch.Generator(batch.aspect.device).manual_seed(self.batches.seed_of_views(number))
        views = self.augment(
            batch.images,
            batch.aspect,
            generator,
            whole=self.batches.batch_size,
            places=self.share.places(number),
        )
        return batch._replace(images=views)


def _require_images(data: "DataVersion", train: "pd.DataFrame", validation: "pd.DataFrame", world: int) -> None:
    missing = sorted(set(data.labels) - set(train["label"]))
    if missing:
        raise DataRejected(
            f"No image to train on has the label {', '.join(missing)} (data {data.name}@{data.version})."
        )
    if validation.empty:
        raise DataRejected(f"The validation split of {data.name}@{data.version} has no image.")
    fewest = min(len(train), len(validation))
    if fewest < world:
        raise InvalidConfig(
            f"{world} processes are to train on {data.name}@{data.version}, of which a split has {fewest} images only.",
            next_step="Set `devices` and `num_nodes` lower.",
        )
