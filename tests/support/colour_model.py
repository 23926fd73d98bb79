"""A data set of coloured noise and a network that knows its colours: everything the export needs, in milliseconds."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from model.bundle.read import Lineage
from model.data.decoding import Preprocessing
from model.data.manifest import DataVersion, SplitConfig, build_manifest, write_manifest
from model.export.build import Trained

CENTRES = {"blue": (60, 70, 190), "green": (70, 180, 70), "red": (190, 70, 60)}
SIZE = 32


class ColourNetwork(nn.Module):
    """Strided convolution -> ReLU -> mean -> linear; logits are closeness to each colour."""

    def __init__(self, sharpness: float = 1.0, offset: tuple[float, float, float] = (0, 0, 0)) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, 3, 3, stride=2)
        self.head = nn.Linear(3, 3)
        colours = torch.tensor(list(CENTRES.values()), dtype=torch.float32) / 255
        with torch.no_grad():
            self.filters.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3) / 9)
            self.filters.bias.zero_()
            self.head.weight.copy_(2 * sharpness * 20 * colours)
            self.head.bias.copy_(-sharpness * 20 * (colours**2).sum(1) + torch.tensor(offset))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.filters(images / 255)).mean((2, 3)))


def colour_data(folder: Path, *, each: int = 30, noise: float = 22.0, seed: int = 0) -> DataVersion:
    """`each` noisy images a colour, as a source folder and its stored manifest."""
    random = np.random.default_rng(seed)
    for label, centre in CENTRES.items():
        (folder / "source" / label).mkdir(parents=True)
        for number in range(each):
            shade = np.array(centre) + random.normal(0, noise, 3)
            pixels = shade + random.normal(0, 10, (36, 40, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "source" / label / f"{number:02d}.png")
    source = str(folder / "source")
    frame = build_manifest(source, split=SplitConfig(test=0.2, validation=0.2))
    return write_manifest(frame, root=str(folder / "manifests"), name="colours", source_uri=source)


def trained(**changes: float) -> Trained:
    history = [
        {"epoch": 0, "train_loss": None, "validation_loss": 1.1, "seconds": 0.1},
        {"epoch": 1, "train_loss": 0.8, "validation_loss": 0.7, "seconds": 0.2},
    ]
    network = ColourNetwork(**changes).eval()
    preprocessing = Preprocessing(size=SIZE)
    return Trained(network, tuple(CENTRES), preprocessing, {"network": "colours", "depth": {"layers": 1}}, history)


def lineage(data: DataVersion) -> Lineage:
    return Lineage(data_version=data.version, data_uri=data.manifest_uri, code="0123abc", config_hash="c0ffee", seed=3)
