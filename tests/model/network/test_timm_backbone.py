"""Backbones of timm, which needs torchvision, of which there is none for these machines.

So timm itself is a stand-in here: a module in a folder on the import path with the five names that are used of it, over
a real network of PyTorch. What is ours around it is real. Where timm is installed, the last test takes the real one.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from model.config import TrainingConfig
from model.data.decoding import Preprocessing
from model.errors import InvalidConfig
from model.export.build import load_network
from model.export.onnx_export import export_logits
from model.network.build import build_network
from model.training.fit import fit
from tests.support.training_case import short_training, small_data

STAND_IN = """
import torch
from torch import nn
from types import SimpleNamespace

__version__ = "0.0-stand-in"


class Tiny(nn.Module):
    num_features = 8
    pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        return self.layer2(self.layer1(self.stem(x))).mean((2, 3))

    def group_matcher(self, coarse=False):
        return ("stem", "layer1", "layer2")


def is_model(name):
    return name == "tiny"


def get_pretrained_cfg(name):
    return SimpleNamespace(fixed_input_size=False)


def create_model(name, pretrained=False, num_classes=1000):
    assert num_classes == 0
    torch.manual_seed(0)
    return Tiny()


def group_parameters(module, matcher):
    names = [name for name, _ in module.named_parameters()]
    return {at: [name for name in names if name.startswith(layer)] for at, layer in enumerate(matcher)}


models = SimpleNamespace(group_parameters=group_parameters)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "path" / "timm").mkdir(parents=True)
    (tmp_path / "path" / "timm" / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.delitem(sys.modules, "timm", raising=False)


def config(**changes: object) -> TrainingConfig:
    return short_training(network="timm:tiny", epochs=1, **changes)


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as where it is not installed
    with pytest.raises(InvalidConfig, match="timm is not installed") as caught:
        build_network(config(), 3, pretrained=False)
    assert "pip install timm torchvision" in caught.value.next_step


@pytest.mark.usefixtures("stand_in")
def test_a_backbone_that_timm_does_not_know_is_named():
    with pytest.raises(InvalidConfig, match="no backbone resnet51"):
        build_network(TrainingConfig(network="timm:resnet51"), 3, pretrained=False)


@pytest.mark.usefixtures("stand_in")
def test_only_the_last_layers_learn_and_earlier_ones_slower():
    network = build_network(config(trainable_blocks=2), 3, pretrained=True)
    groups = network.parameter_groups(head=0.1, backbone=0.01, decay=0.5)
    assert [group["lr"] for group in groups] == [0.1, 0.01, 0.005]
    in_groups = {id(parameter) for group in groups for parameter in group["params"]}
    assert in_groups == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[2] for name in names if name.startswith("blocks")} == {"layer1", "layer2"}


@pytest.mark.usefixtures("stand_in")
def test_pixels_are_normalised_as_timm_says():
    network = build_network(config(), 3, pretrained=True)
    images = torch.rand(2, 3, 64, 64) * 255
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    with torch.no_grad():
        assert torch.allclose(network.features(images), network.blocks[0]((images / 255 - mean) / std), atol=1e-5)


@pytest.mark.usefixtures("stand_in")
def test_it_trains_is_loaded_and_exported_like_any_network(tmp_path):
    result = fit(small_data(tmp_path / "data"), config(), tmp_path / "fit")
    network, _, _ = load_network(Path(result.checkpoint))
    export_logits(network, tmp_path / "network.onnx", size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    (answer,) = onnxruntime.InferenceSession(tmp_path / "network.onnx").run(["logits"], {"images": pixels})
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    assert np.allclose(answer, expected.numpy(), atol=1e-4)


def test_a_real_backbone_becomes_a_classifier():
    pytest.importorskip("torchvision", reason="timm needs torchvision")
    pytest.importorskip("timm", reason="timm is not installed")
    size = Preprocessing(size=64)
    for name in ("resnet18", "vit_tiny_patch16_224", "convnext_atto"):
        network = build_network(
            TrainingConfig(network=f"timm:{name}", preprocessing=size, trainable_blocks=2), 3, pretrained=False
        )
        assert network(torch.rand(2, 3, 64, 64) * 255).shape == (2, 3)
        groups = network.parameter_groups(head=0.1, backbone=0.01, decay=0.5)
        assert len(groups) == 3
        in_groups = {id(parameter) for group in groups for parameter in group["params"]}
        assert in_groups == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
