"""Any backbone of timm as a classifier of ours: cut into the layers that timm itself names, its own head left out."""

from typing import Any, Final

import torch
from torch import Tensor, nn
from typing_extensions import override

from model.config import TIMM, TrainingConfig
from model.errors import InvalidConfig
from model.network.classifier import Classifier

_INSTALL: Final = (
    "Install them where the training runs (pip install timm torchvision), or set `network` to efficientnet_lite0."
)


class TimmClassifier(Classifier):
    """A backbone that pools its features itself, of which only the last layers learn.

    Args:
        backbone: Images to features [n, width].
        layers: Names of the parameters of each layer that learns, first to last.
        width: Number of features.
        classes: Number of labels.
        dropout: Share of the features dropped in training.
        mean: Of the pixels, [3, 1, 1].
        scale: By which they are divided, [3, 1, 1].
    """

    def __init__(self, backbone: nn.Module, layers: list[list[str]], *, width: int, **options: Any) -> None:
        super().__init__(nn.Identity(), nn.Sequential(backbone), width=width, **options)
        self.layers = layers
        learning = {name for layer in layers for name in layer}
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in learning)

    @override
    def parameter_groups(self, *, head: float, backbone: float, decay: float) -> list[dict[str, Any]]:
        parameters = dict(self.blocks[0].named_parameters())
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters()), "lr": head}]
        for depth, layer in enumerate(reversed(self.layers)):
            groups.append({"params": [parameters[name] for name in layer], "lr": backbone * decay**depth})
        return groups


def timm_classifier(config: TrainingConfig, classes: int, *, pretrained: bool) -> Classifier:
    """The backbone that `config.network` names, with our head; its last `trainable_blocks` layers learn.

    Raises:
        InvalidConfig: timm or torchvision is missing, or timm does not know the name.
    """
    name = config.network.removeprefix(TIMM)
    timm = _timm()
    if not timm.is_model(name.split(".")[0]):
        raise InvalidConfig(f"timm {timm.__version__} has no backbone {name} (`network`).")
    known = timm.get_pretrained_cfg(name)
    size = {"img_size": config.preprocessing.size} if known is not None and known.fixed_input_size else {}
    backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **size)
    layers = list(timm.models.group_parameters(backbone, backbone.group_matcher(coarse=False)).values())
    classifier = TimmClassifier(
        backbone,
        [list(layer) for layer in layers[max(0, len(layers) - config.trainable_blocks) :]],
        width=backbone.num_features,
        classes=classes,
        dropout=config.dropout,
        mean=_pixels(backbone.pretrained_cfg["mean"]),
        scale=_pixels(backbone.pretrained_cfg["std"]),
    )
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _timm() -> Any:
    try:
        import timm  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise InvalidConfig(
            f"`network` names a backbone of timm, but {error.name or 'timm'} is not installed here.",
            next_step=_INSTALL,
        ) from error
    return timm


def _pixels(of_unit: tuple[float, float, float]) -> Tensor:
    """Statistics of values from 0 to 1 as those of pixels from 0 to 255."""
    return torch.tensor(of_unit).mul(255).view(3, 1, 1)
