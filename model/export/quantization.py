"""An int8 twin of the exported model, and the gate that decides which of them is served. Imports onnx."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from model.config import QuantizationConfig
from model.data.decoding import Preprocessing
from model.evaluation.metrics import PairedCounts, difference_bound
from model.evaluation.predictions import Answer, Images, Latency, ask, measure_latency, onnx_answer, pixels_of
from model.values import Frozen

ALPHA: Final = 0.05
"""Chance to serve an int8 model that loses exactly the margin."""
UNTOUCHED: Final = frozenset({"Softmax", "Div"})
"""Probabilities in 256 steps would be no use, and they cost no time."""


class Quantization(Frozen):
    """What became of int8. Holds no times: those are in the bundle's `measured`."""

    served: bool
    reason: str
    images: int = 0
    agreement: float | None = None
    difference: float | None = None
    lower_bound: float | None = None


def images_needed(margin: float) -> int:
    """How many validation images it takes to show that int8 without a single difference loses less than `margin`."""
    images = 1
    while not _shown(PairedCounts(images=images, wins=0, losses=0), margin):
        images += max(1, images // 50)
    return images


def quantize(source: Path, target: Path, images: Images, preprocessing: Preprocessing) -> None:
    """Write the int8 (QDQ, per-channel weights, unsigned activations) twin of an exported model.

    Static ranges are the smallest and largest activations on `images` (Jacob et al. 2018, section 3; Nagel et al.
    2021, section 3).
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        # Shapes are static but for the batch: onnx's own inference is enough, and it folds what it can.
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Batches([batch[0] for batch in pixels_of(images, [preprocessing])]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry} - UNTOUCHED),
        )


def decide(
    float32: NDArray[np.float64],
    int8: NDArray[np.float64],
    targets: NDArray[np.int64],
    latencies: Sequence[Latency],
    config: QuantizationConfig,
) -> Quantization:
    """Whether int8 is served.

    Args:
        float32: Probabilities [n, classes] on the validation images.
        int8: The same of the int8 model.
        targets: True classes [n].
        latencies: Of float32 and of int8, measured side by side.
        config: The limits.
    """
    before, after = float32.argmax(axis=1) == targets, int8.argmax(axis=1) == targets
    counts = PairedCounts(images=len(targets), wins=int((after & ~before).sum()), losses=int((before & ~after).sum()))
    quick = latencies[0].median >= config.min_speedup * latencies[1].median
    holds = _shown(counts, config.margin)
    bound = difference_bound(counts, alpha=ALPHA, upper=False)
    evidence = f"{counts.difference:+.3f} on {len(targets)} validation images, lower bound {bound:+.3f}"
    if not holds:
        reason = f"The accuracy of int8 isn't shown to hold ({evidence}; above {-config.margin:+g} is asked for)."
    elif not quick:
        reason = f"int8 is not {config.min_speedup:g} times as fast as float32 on the machine that built this bundle."
    else:
        reason = f"int8 is faster, and its accuracy holds ({evidence})."
    return Quantization(
        served=holds and quick,
        reason=reason,
        images=len(targets),
        agreement=float((float32.argmax(axis=1) == int8.argmax(axis=1)).mean()),
        difference=counts.difference,
        lower_bound=bound,
    )


def try_int8(
    float32: Path,
    int8: Path,
    *,
    calibration: Images,
    validation: Images,
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    preprocessing: Preprocessing,
    config: QuantizationConfig,
) -> tuple[Quantization, dict[str, float]]:
    """Make the int8 model and keep its file only where it is to be served.

    Args:
        float32: The exported model.
        int8: Where the quantized one goes.
        calibration: Training images for the activation ranges.
        validation: What both are compared on.
        probabilities: float32's answers to these [n, classes].
        targets: Their true classes.
        preprocessing: Of both.
        config: The gate's limits.

    Returns:
        The decision and the measured milliseconds and sizes (empty where nothing was tried).
    """
    if not config.enabled:
        return Quantization(served=False, reason="int8 is switched off."), {}
    needed = images_needed(config.margin)
    if len(validation) < needed:
        return Quantization(
            served=False,
            reason=f"{len(validation)} validation images can't show that int8 loses less than {config.margin:g} of "
            f"accuracy; {needed} are needed.",
            images=len(validation),
        ), {}
    quantize(float32, int8, calibration.first(config.calibration_images), preprocessing)
    answer: Answer = onnx_answer(int8)
    [answers] = ask([(preprocessing, answer)], validation)
    latencies = measure_latency([float32, int8], [preprocessing.size] * 2)
    decision = decide(probabilities, answers, targets, latencies, config)
    measured = {
        "float32_ms": latencies[0].median,
        "int8_ms": latencies[1].median,
        "int8_bytes": float(int8.stat().st_size),
    }
    if not decision.served:
        int8.unlink()
    return decision, measured


def _shown(counts: PairedCounts, margin: float) -> bool:
    return difference_bound(counts, alpha=ALPHA, upper=False) > -margin


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: list[NDArray[np.uint8]]) -> None:
        self._rest: Iterator[NDArray[np.uint8]] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._rest, None)
        return None if batch is None else {"images": batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer warns on the root logger that it wants a preprocessing which was just done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
