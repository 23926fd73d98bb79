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
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from typing_extensions import override

from model.augmentation import Augmentation
from model.config import TrainingConfig
from model.errors import DataRejected, ImageRejected, SourceUnreadable
from model.images import Pixels, Preprocessing, open_image, preprocess, to_rgb
from model.manifest import read_manifest
from model.sources import filesystem_of, read_bytes

if TYPE_CHECKING:
    import pandas as pd

    from model.manifest import DataVersion

_REDUCING_GAP: Final = 2.0


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

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch at once; the data loader prefers this to one item after another."""
        chosen = torch.as_tensor(indices)
        if self.cache is not None:
            pixels, aspect = self.cache
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

    Order and augmentation of an epoch depend on the seed and the number of the epoch only, so a training that was
    interrupted goes on exactly as it would have.

    Raises:
        DataRejected: A label has no training image, or there is no validation image.
        SourceUnreadable: See `ManifestImages.load`.
    """

    def __init__(self, data: "DataVersion", config: TrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = data.labels
        self.augment = Augmentation(config.augmentation, config.preprocessing)
        self.threads = config.data_workers or os.cpu_count() or 1
        frame = read_manifest(data.manifest_uri)
        frame = frame[frame["error"].isna()]
        # The same bytes twice teach nothing twice; the manifest keeps them on one side.
        frame = frame.drop_duplicates(["sha256", "label"])
        train, validation = (frame[frame["split"] == split] for split in ("train", "validation"))
        _require_images(data, train, validation)
        self.train = self._images(train, data, whole_image)
        self.validation = self._images(validation, data, centre_crop)
        self.cached = self._fits()

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

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        world, rank = self._place()
        # Shuffles by seed and epoch (Lightning tells it the epoch), for one device as well as for many.
        whole_batches = len(self.train) >= self.config.batch_size * world
        sampler: DistributedSampler[Batch] = DistributedSampler(
            self.train, num_replicas=world, rank=rank, shuffle=True, seed=self.config.seed, drop_last=whole_batches
        )
        return self._loader(self.train, sampler=sampler, drop_last=whole_batches)

    @override
    def val_dataloader(self) -> DataLoader[Batch]:
        world, rank = self._place()
        return self._loader(self.validation, sampler=range(rank, len(self.validation), world))

    def in_order(self, images: ManifestImages, indices: Sequence[int]) -> DataLoader[Batch]:
        """The chosen images, one after another."""
        return self._loader(images, sampler=indices)

    def _loader(self, images: ManifestImages, **options: Any) -> DataLoader[Batch]:
        if images.cache is None:
            # A forked copy of a process with threads can hang; a fresh one can't.
            options |= {
                "num_workers": self.threads,
                "multiprocessing_context": "spawn",
                "persistent_workers": True,
            }
        return DataLoader(
            images,
            batch_size=self.config.batch_size,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels to network inputs, on the device: varied in training, as they are in validation."""
        if self.trainer is None or not self.trainer.training:
            return batch._replace(images=batch.images.permute(0, 3, 1, 2).float())
        number = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        key = (self.config.seed, self.trainer.current_epoch, number, self.trainer.global_rank)
        generator = torch.Generator(batch.aspect.device).manual_seed(_mixed(key))
        return batch._replace(images=self.augment(batch.images, batch.aspect, generator))


def _mixed(key: tuple[int, ...]) -> int:
    """One well-mixed seed of several numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _require_images(data: "DataVersion", train: "pd.DataFrame", validation: "pd.DataFrame") -> None:
    missing = sorted(set(data.labels) - set(train["label"]))
    if missing:
        raise DataRejected(
            f"No image to train on has the label {', '.join(missing)} (data {data.name}@{data.version})."
        )
    if validation.empty:
        raise DataRejected(f"The validation split of {data.name}@{data.version} has no image.")
