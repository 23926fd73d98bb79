"""Everything that decides how a model is trained; shown as a form in the Prefect UI, stored in every checkpoint."""

from typing import Final, Literal

from pydantic import Field, model_validator

from model.data.decoding import Preprocessing
from model.errors import InvalidConfig
from model.values import Frozen

TIMM: Final = "timm:"
NETWORK: Final = r"^(efficientnet_lite0|timm:[A-Za-z0-9_.-]+)$"


class AugmentationConfig(Frozen):
    """How much the training images are varied."""

    min_scale: float = Field(
        default=0.35,
        gt=0,
        le=1,
        description="Smallest area of a random crop, as a share of the largest square in the image.",
    )
    max_stretch: float = Field(
        default=4 / 3,
        ge=1,
        le=4,
        description="Largest ratio of width to height (or height to width) of a random crop.",
    )
    flip: bool = Field(
        default=True, description="Mirror half of the images. Off where left and right mean something (text, digits)."
    )
    colour: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Largest relative change of brightness, contrast and saturation; 0 leaves the colours alone.",
    )


class TrainingConfig(Frozen):
    """The hyperparameters of one training.

    Raises:
        InvalidConfig: Values that exclude each other.
    """

    network: str = Field(
        default="efficientnet_lite0",
        pattern=NETWORK,
        description="The pretrained network: efficientnet_lite0, or timm:NAME for a backbone of timm, where timm and "
        "torchvision are installed.",
    )
    preprocessing: Preprocessing = Field(
        default=Preprocessing(size=192), description="How an image becomes the network's input."
    )
    augmentation: AugmentationConfig = Field(
        default=AugmentationConfig(), description="How the training images are varied."
    )
    head_epochs: int = Field(
        default=30,
        ge=0,
        le=1000,
        description="Head-only warm-up: passes over the features of the frozen backbone, which are computed once.",
    )
    epochs: int = Field(default=8, ge=0, le=1000, description="Fine-tuning: passes over the training images.")
    trainable_blocks: int = Field(
        default=8,
        ge=0,
        le=100,
        description="How many of the network's last blocks are fine-tuned; earlier ones stay as pretrained. "
        "More blocks suit more data and take longer.",
    )
    batch_size: int = Field(default=16, ge=1, le=4096, description="Images in a batch, of all devices together.")
    accumulate_grad_batches: int = Field(
        default=1, ge=1, le=1024, description="Batches whose gradients are added up before a step."
    )
    head_warm_up_learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="Peak learning rate of the head-only warm-up."
    )
    head_learning_rate: float = Field(
        default=2e-4, gt=0, le=1, description="Peak learning rate of the head during fine-tuning."
    )
    backbone_learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Peak learning rate of the backbone's last block."
    )
    layer_decay: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Factor on the learning rate from each block to the one before it (discriminative rates).",
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled weight decay (AdamW).")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="Share of the features dropped before the head.")
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="Probability mass moved from the target to all classes."
    )
    class_weights: bool = Field(
        default=False,
        description="Weigh the loss so that each class counts the same, however many images it has. Raises the recall "
        "of rare classes and usually costs some accuracy.",
    )
    early_stopping_patience: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="Stop after this many epochs without a lower validation loss; 0 never stops early.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of every random choice in training.")
    deterministic: bool = Field(
        default=False, description="Only operations that give the same bits each time; slower on a GPU."
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field(
        default="32-true", description="Number format of the computation (Lightning's flag)."
    )
    compile: bool = Field(
        default=False,
        description="Translate the network for the GPU (torch.compile): minutes at the start, then faster steps.",
    )
    find_batch_size: bool = Field(
        default=False,
        description="Where a batch does not fit into the GPU's memory, halve it and add the gradients up, until it "
        "does; the steps stay the same. For one device.",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field(default="auto", description="What to train on.")
    devices: int | Literal["auto"] = Field(default="auto", description="Devices per node.")
    num_nodes: int = Field(default=1, ge=1, le=1024, description="Machines that train together.")
    strategy: Literal["auto", "ddp"] = Field(
        default="auto", description="How devices work together; `ddp` is DistributedDataParallel."
    )
    cache_limit_mb: int = Field(
        default=2048,
        ge=0,
        le=1_000_000,
        description="Decoded images are kept in memory when all of them take at most this many MB (10^6 bytes); "
        "otherwise worker processes decode them anew in each epoch.",
    )
    data_workers: int = Field(
        default=0, ge=0, le=256, description="Threads or processes that decode images; 0 means one per CPU core."
    )

    @model_validator(mode="after")
    def _possible(self) -> "TrainingConfig":
        problems = [text for broken, text in self._rules() if broken]
        if problems:
            raise InvalidConfig("The training configuration is impossible: " + " ".join(problems))
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        devices = self.devices if isinstance(self.devices, int) else None
        return [
            (self.head_epochs + self.epochs == 0, "`head_epochs` and `epochs` are both 0, so nothing is trained."),
            (devices is not None and devices < 1, "`devices` must be `auto` or at least 1."),
            (
                self.accelerator == "cpu" and self.precision == "16-mixed",
                "`precision` 16-mixed needs a GPU; use 32-true or bf16-mixed with `accelerator` cpu.",
            ),
            (
                self.epochs == 0 and self.accumulate_grad_batches > 1,
                "`accumulate_grad_batches` needs fine-tuning, but `epochs` is 0.",
            ),
        ]


class QuantizationConfig(Frozen):
    """Whether a smaller, faster int8 model may be served instead of float32."""

    enabled: bool = Field(default=True, description="Try int8 at all.")
    margin: float = Field(
        default=0.03,
        gt=0,
        lt=1,
        description="Loss of accuracy against float32 that the validation images must rule out (95 %, one-sided). With "
        "too few of them to do so, int8 isn't tried.",
    )
    min_speedup: float = Field(
        default=1.2, gt=0, description="How many times as fast as float32 int8 must be on the machine that builds."
    )
    calibration_images: int = Field(
        default=32, ge=1, le=1000, description="Training images from which the ranges of the activations are taken."
    )
