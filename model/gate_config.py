"""The limits of the verdict, as a form."""

from pydantic import BaseModel, ConfigDict, Field


class GateConfig(BaseModel):
    """What a model must show before it is released."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Largest loss of accuracy against the champion that the test images must rule out (0.05 = 5 "
        "points). The measured accuracy may never be lower than the champion's.",
    )
    confidence: float = Field(
        default=0.90,
        ge=0.5,
        lt=1,
        description="Confidence of the two-sided interval of the difference; 0.90 leaves 5 % for either error.",
    )
    max_recall_drop: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="Recall that any class may lose against the champion. A larger drop rejects the model once the "
        "class's images show it with confidence; a handful of images don't.",
    )
    max_latency_ms: float = Field(
        default=250.0,
        gt=0,
        description="Longest median time for one image in milliseconds, on one thread of the machine that evaluates.",
    )
    max_latency_ratio: float = Field(
        default=1.5, gt=0, description="Longest median time as a multiple of the champion's, measured side by side."
    )
    quick_ms: float = Field(
        default=25.0,
        ge=0,
        description="Below this many milliseconds the ratio to the champion's time is not looked at.",
    )
    max_size_mb: float = Field(default=250.0, gt=0, description="Largest served model file in MB (1,000,000 bytes).")
    max_size_ratio: float = Field(default=2.0, gt=0, description="Largest model file as a multiple of the champion's.")
    small_mb: float = Field(
        default=50.0, ge=0, description="Below this many MB the ratio to the champion's size is not looked at."
    )
    first_gain: float = Field(
        default=0.10,
        ge=0,
        lt=1,
        description="First model: by how much the lower bound of its accuracy must exceed always answering the "
        "commonest class.",
    )
    first_accuracy: float = Field(
        default=0.0, ge=0, lt=1, description="First model: the lower bound of its accuracy must exceed this as well."
    )
    first_macro_recall: float = Field(
        default=0.5, ge=0, le=1, description="First model: least mean recall of the classes (balanced accuracy)."
    )
    seed: int = Field(default=0, ge=0, description="Of the bootstrap resampling.")
