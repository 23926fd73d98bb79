"""The classifier: a backbone, dropout that many rows share, and a linear head."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override


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
        mean, scale: Pixels are normalised as (x - mean) / scale; one number each, or one a channel: [3, 1, 1].
    """

    mean: float | Tensor
    scale: float | Tensor

    def __init__(
        self,
        frozen: nn.Module,
        blocks: nn.Sequential,
        *,
        width: int,
        classes: int,
        dropout: float,
        mean: float | Tensor,
        scale: float | Tensor,
    ) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False).eval()
        self.blocks = blocks.eval()
        self.dropout = SharedDropout(dropout)
        self.head = nn.Linear(width, classes)
        if isinstance(mean, Tensor) and isinstance(scale, Tensor):
            # With the network to its device, but in no checkpoint: the network's name says them.
            self.register_buffer("mean", mean, persistent=False)
            self.register_buffer("scale", scale, persistent=False)
        else:
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
        return _pooled(self.blocks(x))

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


def _pooled(features: Tensor) -> Tensor:
    """Maps [n, width, height, depth] to their means; features that are pooled already stay."""
    return features.mean((2, 3)) if features.dim() == 4 else features
