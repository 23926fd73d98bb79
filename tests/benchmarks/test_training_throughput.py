"""The input pipeline and Lightning must not be the bottleneck of training."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import TrainingConfig
from model.data.manifest import DataVersion, SplitConfig, build_manifest, write_manifest
from model.network.build import build_network
from model.training.fit import fit

IMAGES = 192
EPOCHS = 4


def jpegs(root: Path) -> DataVersion:
    """Photos of 640 x 480 pixels, two labels."""
    random = np.random.default_rng(0)
    for number in range(IMAGES + 32):
        folder = root / "source" / ("even" if number % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:04}.jpg", quality=90)
    source = str(root / "source")
    frame = build_manifest(source, split=SplitConfig(test=0.01, validation=0.13))
    return write_manifest(frame, root=str(root / "manifests"), name="throughput", source_uri=source)


def bare_epoch(config: TrainingConfig, images: torch.Tensor, targets: torch.Tensor) -> float:
    """Images per second of a plain loop over tensors in memory: same network, same layers that learn."""
    network = build_network(config, 2, pretrained=True).train()
    groups = network.parameter_groups(head=1e-3, backbone=1e-4, decay=1.0)
    optimizer = torch.optim.AdamW(groups)
    began = time.perf_counter()
    for start in range(0, len(images), config.batch_size):
        loss = torch.nn.functional.cross_entropy(
            network(images[start : start + config.batch_size]), targets[start : start + config.batch_size]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(images) / (time.perf_counter() - began)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_training_is_nearly_as_fast_as_a_bare_loop_over_tensors(tmp_path):
    """Epoch by epoch in turn, so that both meet the same other load on the machine; the best epoch of each counts.

    Ours reads JPEG files; they are decoded once, before the first epoch, and varied anew for each batch.
    """
    data = jpegs(tmp_path)
    config = TrainingConfig(epochs=EPOCHS, head_epochs=1, early_stopping_patience=0)
    size = config.preprocessing.size
    whole_batches = data.counts["even"]["train"] // config.batch_size * 2 * config.batch_size
    images = torch.rand(whole_batches, 3, size, size) * 255
    targets = torch.arange(whole_batches) % 2
    bare: list[float] = []
    result = fit(
        data, config, tmp_path / "fit", on_epoch=lambda report: bare.append(bare_epoch(config, images, targets))
    )
    ours = [report.images_per_second for report in result.history if report.images_per_second is not None]
    ratio = max(ours) / max(bare)
    print(f"\nours {[round(v, 1) for v in ours]}, bare {[round(v, 1) for v in bare]} images/s; ratio {ratio:.3f}")
    assert ratio >= 0.90
