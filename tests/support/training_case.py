"""A small, learnable data set and a short training, which tests and their child processes share."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from model.config import TrainingConfig
from model.data.decoding import Preprocessing
from model.data.manifest import DataVersion, SplitConfig, build_manifest, write_manifest
from model.training.callbacks import CHECKPOINT_SECONDS
from model.training.fit import FitResult, fit

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}


def short_training(**changes: object) -> TrainingConfig:
    settings: dict[str, object] = {
        "preprocessing": Preprocessing(size=64),
        "head_epochs": 2,
        "epochs": 3,
        "trainable_blocks": 2,
        "batch_size": 8,
        "deterministic": True,
        "accelerator": "cpu",
        "devices": 1,
        "data_workers": 1,
    }
    return TrainingConfig.model_validate(settings | changes)


def coloured(colour: tuple[int, int, int], seed: int, width: int = 80, height: int = 64) -> Image.Image:
    """A noisy picture of mostly one colour."""
    noise = np.random.default_rng(seed).normal(0, 40, (height, width, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def small_data(root: Path, images: int = 12) -> DataVersion:
    """Three labels that their colour tells apart."""
    seed = 0
    for label, colour in COLOURS.items():
        (root / "source" / label).mkdir(parents=True)
        for number in range(images):
            seed += 1
            coloured(colour, seed).save(root / "source" / label / f"{number:02}.jpg")
    return data_version(root)


def data_version(root: Path) -> DataVersion:
    source = str(root / "source")
    frame = build_manifest(source, split=SplitConfig(test=0.2, validation=0.2))
    return write_manifest(frame, root=str(root / "manifests"), name="colours", source_uri=source)


def train(
    data: DataVersion, config: TrainingConfig, directory: Path, checkpoint_seconds: float = CHECKPOINT_SECONDS
) -> FitResult:
    """One thread: sums of floats depend on how many there are."""
    import torch

    torch.set_num_threads(1)
    return fit(
        data,
        config,
        directory,
        on_epoch=lambda report: print(f"epoch {report.epoch}", flush=True),
        on_checkpoint=lambda: print("checkpoint", flush=True),
        checkpoint_seconds=checkpoint_seconds,
    )


if __name__ == "__main__":
    result = train(
        DataVersion.model_validate_json(Path(sys.argv[1]).read_text()),
        TrainingConfig.model_validate_json(Path(sys.argv[2]).read_text()),
        Path(sys.argv[3]),
        *map(float, sys.argv[4:]),
    )
    # In one write: several processes share the output.
    sys.stdout.write(f"{result.model_dump_json()}\n")
