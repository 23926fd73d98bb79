"""Images per second of our training step on one GPU, from JPEG files: near the ceiling, far above the usual recipe.

    python -m pytest -m benchmark tests/benchmarks/test_training_gpu.py -s

Needs a CUDA GPU; ResNet-50 needs timm and torchvision too, with its weights in their cache or a network to fetch them.
Where torchvision is missing, (b) is the same recipe with PyTorch and Pillow alone. `AHC_BENCHMARK_TINY=1` runs all of
it on the CPU with a few small images: it shows that this file works, no number of it counts.
"""

import os
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from model.config import TrainingConfig
from model.data.decoding import Preprocessing
from model.data.manifest import DataVersion, SplitConfig, build_manifest, write_manifest
from model.network.build import build_network, compile_network
from model.training.augmentation import Augmentation
from model.training.fit import fit
from model.training.process_state import own_process_state

TINY = os.environ.get("AHC_BENCHMARK_TINY") == "1"
DEVICE = torch.device("cpu" if TINY else "cuda")
AUTOCAST = torch.bfloat16


class Scale(NamedTuple):
    """How much is measured."""

    images: int
    size: int
    batch: int
    epochs: int
    passes: int
    workers: int


SCALE = Scale(24, 64, 8, 2, 1, 1) if TINY else Scale(8192, 224, 256, 4, 3, os.cpu_count() or 1)
NETWORKS = ("efficientnet_lite0", "timm:resnet50")


def jpegs(root: Path) -> DataVersion:
    """Photos of 640 x 480 pixels, two labels."""
    random = np.random.default_rng(0)
    for number in range(SCALE.images + max(8, SCALE.images // 16)):
        folder = root / "source" / ("even" if number % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:05}.jpg", quality=90)
    source = str(root / "source")
    frame = build_manifest(source, split=SplitConfig(test=0.01, validation=0.05))
    return write_manifest(frame, root=str(root / "manifests"), name="throughput", source_uri=source)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataVersion:
    if not TINY and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    return jpegs(tmp_path_factory.mktemp("jpegs"))


def config_of(network: str, *, compiled: bool) -> TrainingConfig:
    if network.startswith("timm:") and not (find_spec("timm") and find_spec("torchvision")):
        pytest.skip(f"{network} needs timm and torchvision, which are not installed here")
    return TrainingConfig(
        network=network,
        preprocessing=Preprocessing(size=SCALE.size),
        head_epochs=1,
        epochs=SCALE.epochs,
        trainable_blocks=100,
        batch_size=SCALE.batch,
        early_stopping_patience=0,
        precision="bf16-mixed",
        accelerator="cpu" if TINY else "gpu",
        devices=1,
        data_workers=SCALE.workers,
        cache_limit_mb=20_000,
        compile=compiled,
    )


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def train_on(
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]], config: TrainingConfig, *, compiled: bool, precise: bool
) -> float:
    """Images per second of the best pass of a bare loop.

    Args:
        batches: One pass: images on the GPU, as the network takes them, and targets.
        config: Names the network.
        compiled: By torch.compile.
        precise: fp32 without fused optimizer, as a plain recipe does; else bf16.
    """
    network = build_network(config, 2, pretrained=True).train().to(DEVICE)
    if compiled:
        compile_network(network)
    groups = network.parameter_groups(head=1e-3, backbone=1e-4, decay=1.0)
    optimizer = torch.optim.AdamW(groups, fused=None if precise or TINY else True)
    best = 0.0
    for turn in range(SCALE.passes + 1):
        wait()
        began, images = time.perf_counter(), 0
        for pixels, targets in batches():
            with torch.autocast(DEVICE.type, dtype=AUTOCAST, enabled=not precise):
                loss = nn.functional.cross_entropy(network(pixels), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            images += len(targets)
        wait()
        if turn:  # the first one compiles and looks for the fastest convolutions
            best = max(best, images / (time.perf_counter() - began))
    return best


def ceiling(config: TrainingConfig, *, compiled: bool) -> float:
    """(a): the same network in a bare loop over one batch that is on the GPU already."""
    pixels = torch.rand(SCALE.batch, 3, SCALE.size, SCALE.size, device=DEVICE) * 255
    targets = torch.arange(SCALE.batch, device=DEVICE) % 2

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(max(1, SCALE.images // SCALE.batch)):
            yield pixels, targets

    with own_process_state():
        torch.backends.cudnn.benchmark = True
        return train_on(batches, config, compiled=compiled, precise=False)


class Folder(Dataset[tuple[Tensor, int]]):
    """What torchvision's ImageFolder with RandomResizedCrop, a mirror and ToTensor does, with Pillow and PyTorch."""

    def __init__(self, root: Path, size: int) -> None:
        self.files = sorted(root.glob("*/*.jpg"))[: SCALE.images]
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.files[index]
        with Image.open(path) as image:
            picture = image.convert("RGB")
        share = float(torch.empty(()).uniform_(0.35, 1)) ** 0.5
        width, height = int(picture.width * share), int(picture.height * share)
        left = int(torch.randint(picture.width - width + 1, ()))
        top = int(torch.randint(picture.height - height + 1, ()))
        box = (left, top, left + width, top + height)
        view = picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        if torch.rand(()) < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(view)).permute(2, 0, 1).float(), int(path.parent.name == "odd")


def folder_of(root: Path) -> tuple[Dataset[tuple[Tensor, int]], str]:
    """The usual data set, and whose it is."""
    if find_spec("torchvision") is None:
        return Folder(root, SCALE.size), "Pillow's"
    from torchvision import datasets, transforms

    views = transforms.Compose(
        [
            transforms.RandomResizedCrop(SCALE.size, scale=(0.35, 1)),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float32),
            transforms.Lambda(_to_pixels),
        ]
    )
    return datasets.ImageFolder(str(root), views), "torchvision's"


def _to_pixels(image: Tensor) -> Tensor:
    return image * 255


def usual(config: TrainingConfig, root: Path, *, precise: bool) -> tuple[float, str]:
    """(b): an ImageFolder with a DataLoader, eager, in fp32 or AMP."""
    folder, whose = folder_of(root)
    loader = DataLoader(
        folder,
        batch_size=SCALE.batch,
        shuffle=True,
        drop_last=True,
        num_workers=SCALE.workers,
        pin_memory=DEVICE.type == "cuda",
        persistent_workers=True,
    )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, targets in loader:
            yield pixels.to(DEVICE, non_blocking=True), targets.to(DEVICE, non_blocking=True)

    return train_on(batches, config, compiled=False, precise=precise), whose


def ours(config: TrainingConfig, data: DataVersion, directory: Path) -> float:
    """Our best epoch after the first, which compiles."""
    result = fit(data, config, directory)
    return max(report.images_per_second or 0 for report in result.history[2:])


def hardware() -> str:
    name = "CPU, tiny" if DEVICE.type == "cpu" else torch.cuda.get_device_name()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}"


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_training_on_a_gpu_is_near_the_ceiling_and_far_above_the_usual_recipe(network, compiled, data, tmp_path):
    config = config_of(network, compiled=compiled)
    top = ceiling(config, compiled=compiled)
    mine = ours(config, data, tmp_path)
    root = Path(data.source_uri)
    (plain, whose), (amp, _) = (usual(config, root, precise=precise) for precise in (True, False))
    print(
        f"\n{hardware()}; {network}, {'compiled' if compiled else 'eager'}, {SCALE.size} px, batch {SCALE.batch}: ours "
        f"{mine:.0f} images/s, (a) ceiling {top:.0f}, (b) {whose} ImageFolder fp32 {plain:.0f}, AMP {amp:.0f}; "
        f"ours/(a) {mine / top:.2f}, ours/(b) {mine / max(plain, amp):.2f}"
    )
    if not TINY:
        assert mine >= 0.90 * top
        assert mine >= 3 * max(plain, amp)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_views_for_the_gpu_are_made_faster_than_it_trains(data):
    """Augmentation alone, where the images are: what it costs of a second of training."""
    size = Preprocessing(size=SCALE.size)
    augment = Augmentation(TrainingConfig().augmentation, size)
    edge = int(np.ceil(size.size / size.crop_fraction))
    pixels = torch.randint(0, 256, (SCALE.batch, edge, edge, 3), dtype=torch.uint8, device=DEVICE)
    aspect = torch.ones(SCALE.batch, device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    turns = 2 if TINY else 50
    for turn in range(turns + 1):
        if turn == 1:
            wait()
            began = time.perf_counter()
        augment(pixels, aspect, generator, whole=SCALE.batch, places=slice(None))
    wait()
    print(f"\n{hardware()}: {turns * SCALE.batch / (time.perf_counter() - began):.0f} views/s")
