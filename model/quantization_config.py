"""When int8 is tried and served, as a form; apart from `model.quantization` so that reading it imports no onnx."""

from pydantic import BaseModel, ConfigDict, Field


class QuantizationConfig(BaseModel):
    """Whether a smaller, faster int8 model may be served instead of float32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
