"""The values that the rooms of the project and its machines exchange, and the base of all others."""

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A small value that may cross a task boundary."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataVersion(Frozen):
    """A stored manifest. `images`, `labels` and `counts` are of the images that can be decoded."""

    name: str
    version: str = Field(pattern=r"^[0-9a-f]{16}$", description="Hash over the manifest's rows.")
    manifest_uri: str
    source_uri: str = Field(description="The source that the manifest's paths are relative to.")
    images: int
    labels: tuple[str, ...] = Field(description="Sorted; a class index is a position in here.")
    counts: dict[str, dict[str, int]] = Field(description="Images by label and split.")

    @property
    def label(self) -> str:
        """Short, for people: `food@3f2a91`."""
        return f"{self.name}@{self.version[:6]}"


class EpochReport(Frozen):
    """How an epoch went. Epoch 0 is the state after the head-only warm-up, before fine-tuning."""

    epoch: int
    epochs: int = Field(description="The last epoch, unless it stops early.")
    train_loss: float | None = Field(description="Mean over the epoch's batches, with label smoothing and weights.")
    validation_loss: float = Field(description="Plain cross-entropy, without smoothing and weights.")
    validation_accuracy: float
    validation_macro_recall: float = Field(description="Mean over the labels of the share that is recognised.")
    learning_rate: float | None = Field(description="Of the head, at the end of the epoch.")
    images_per_second: float | None = Field(description="Training images; validation and checkpoint not counted.")
    seconds: float


class MachineLoad(Frozen):
    """How fast images are trained on just now, and what of the GPU that takes."""

    images_per_second: float = Field(description="Of all devices together, since the last report.")
    gpu: str | None = Field(default=None, description="The GPU's name; None on a CPU.")
    gpu_memory_used: int | None = Field(default=None, description="Bytes in use on this process's GPU, by anybody.")
    gpu_memory_total: int | None = Field(default=None, description="Bytes that this GPU has.")
    gpu_utilisation: float | None = Field(
        default=None, description="Share of the time in which the GPU computed, 0 to 1; None without NVIDIA's library."
    )
