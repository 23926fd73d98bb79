"""From a checkpoint to a sealed bundle: calibrate, export, check against torch, try int8, evaluate, draw, seal."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from model.bundle.read import BundleRef, Lineage
from model.bundle.write import seal
from model.config import QuantizationConfig, TrainingConfig
from model.data.decoding import Preprocessing
from model.data.manifest import DataVersion, read_manifest
from model.errors import DataRejected
from model.evaluation.evaluate import Assessment, Evaluation, evaluate
from model.evaluation.metrics import Floats, expected_calibration_error, reliability
from model.evaluation.plots import draw_evaluation, training_curves
from model.evaluation.predictions import Images, Predictions, ask, onnx_answer, select_images
from model.export.calibration import fit_temperature, softmax
from model.export.golden_images import write_golden
from model.export.model_card import render_card
from model.files import staged
from model.network.build import build_network
from model.network.classifier import Classifier
from model.training.checkpoints import read_checkpoint

if TYPE_CHECKING:
    from torch import nn

    from model.export.quantization import Quantization


def load_network(checkpoint: Path) -> tuple[Classifier, tuple[str, ...], TrainingConfig]:
    """The trained network in eval mode on the CPU, its labels in the order of its outputs, and its configuration.

    Raises:
        CheckpointCorrupt: The file is missing, damaged, or no checkpoint of ours.
    """
    state = read_checkpoint(checkpoint)
    network = build_network(state.config, len(state.labels), pretrained=False)
    network.load_state_dict(state.weights)
    return network.eval(), state.labels, state.config


FLOAT32 = "model.onnx"
INT8 = "model.int8.onnx"
TIMES = frozenset({"seconds", "images_per_second"})
"""Not drawn into a bundle: they differ from run to run, and the digest would with them."""
History = Sequence[Mapping[str, float | None]]


@dataclass
class Stopwatch:
    """Seconds of each step, by name; they differ from build to build and stay outside of the digest."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[f"{name}_seconds"] = round(time.perf_counter() - began, 3)


@dataclass(frozen=True)
class Trained:
    """A trained network and what is known of it."""

    network: "nn.Module"
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    config: Mapping[str, Any]
    history: History = ()


def build_bundle(
    checkpoint: Path,
    data: DataVersion,
    directory: Path,
    *,
    name: str,
    lineage: Lineage,
    history: History = (),
    quantization: QuantizationConfig | None = None,
) -> BundleRef:
    """Make a bundle from a checkpoint; the same inputs give the same digest.

    Args:
        checkpoint: As `model.export.build.load_network` reads it.
        data: Its splits `validation` (temperature, int8 gate), `test` (parity, evaluation, golden images) and a few
            images of `train` (int8 ranges) are read.
        directory: Where the bundle goes; what was there before stays until the new one is whole.
        name: Of the model.
        lineage: What it was made from.
        history: Metrics by epoch for the training curves, if there are any.
        quantization: When int8 is tried and served.

    Raises:
        CheckpointCorrupt: The checkpoint can't be read.
        DataRejected: There is no test image.
        ExportFailed: The network can't be exported, or ONNX Runtime answers otherwise than torch.
        SourceUnreadable: An image has gone or changed since the manifest was made.
    """
    network, labels, config = load_network(checkpoint)
    trained = Trained(network, labels, config.preprocessing, config.model_dump(mode="json"), history)
    return bundle_network(trained, data, directory, name=name, lineage=lineage, quantization=quantization)


def bundle_network(
    trained: Trained,
    data: DataVersion,
    directory: Path,
    *,
    name: str,
    lineage: Lineage,
    quantization: QuantizationConfig | None = None,
) -> BundleRef:
    """`build_bundle` for a network in memory: eval mode, on the CPU, float NCHW raw 0..255 -> logits."""
    frame = read_manifest(data.manifest_uri)
    train, validation, test = (select_images(frame, data.source_uri, part) for part in ("train", "validation", "test"))
    if not len(test):
        raise DataRejected(
            f"{data.name}@{data.version} has no test image to check the exported model on.",
            next_step="Add images, or raise the share of the test split.",
        )
    watch = Stopwatch()
    with staged(directory) as folder:
        probabilities, calibration = _export(trained, validation, folder / FLOAT32, watch)
        predictions, parity = _check(trained, test, calibration["temperature"], folder / FLOAT32, name, watch)
        decision, measured = _try_int8(trained, train, validation, probabilities, folder, quantization, watch)
        served = INT8 if decision.served else FLOAT32
        answer = onnx_answer(folder / served)
        if decision.served:
            [answers] = ask([(trained.preprocessing, answer)], test)
            predictions = _predictions(trained, test, answers, name, folder / served)
        with watch.step("evaluation"):
            evaluation = evaluate(predictions, seed=lineage.seed)
            golden = write_golden(folder, predictions, answer, trained.preprocessing)
        with watch.step("plots"):
            curves = _draw(folder, evaluation, data.source_uri, trained.history)
        metrics = {
            "evaluation": evaluation.model_dump(mode="json"),
            "calibration": calibration,
            "parity": {"largest_difference": float(f"{parity:.1g}"), "images": len(test)},
            "int8": decision.model_dump(mode="json"),
        }
        card = render_card(
            name, evaluation, data, lineage, config=trained.config, metrics=metrics, served=served, curves=curves
        )
        (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        sealed = seal(
            folder,
            name=name,
            served=served,
            labels=trained.labels,
            preprocessing=trained.preprocessing,
            golden=golden,
            lineage=lineage,
            metrics=metrics,
            measured={**watch.seconds, **measured},
        )
    return BundleRef(path=str(directory), digest=sealed.digest, name=name)


def _export(trained: Trained, validation: Images, model: Path, watch: Stopwatch) -> tuple[Floats, dict[str, float]]:
    """Write the calibrated float32 model; its probabilities on validation, and what the calibration changed."""
    from model.export.onnx_export import add_probabilities, export_logits

    with watch.step("export"):
        export_logits(trained.network, model, size=trained.preprocessing.size)
    with watch.step("calibration"):
        [logits] = ask([(trained.preprocessing, onnx_answer(model))], validation)
        logits = logits.reshape(len(validation), len(trained.labels))
        targets = validation.targets(trained.labels)
        # Six digits: the last bits of a minimiser are no property of the model.
        temperature = float(f"{fit_temperature(logits, targets):.6g}")
        before, after = softmax(logits), softmax(logits, temperature)
        add_probabilities(model, temperature=temperature)
    return after, {
        "temperature": temperature,
        "validation_images": float(len(validation)),
        "ece_before": expected_calibration_error(reliability(before, targets)),
        "ece_after": expected_calibration_error(reliability(after, targets)),
    }


def _check(
    trained: Trained, test: Images, temperature: float, model: Path, name: str, watch: Stopwatch
) -> tuple[Predictions, float]:
    """The float32 model's predictions on the test split, and how far they are from torch's."""
    from model.export.onnx_export import check_parity, torch_logits

    with watch.step("parity"):
        models = [(trained.preprocessing, torch_logits(trained.network)), (trained.preprocessing, onnx_answer(model))]
        logits, answers = ask(models, test)
        parity = check_parity(test, softmax(logits, temperature), answers)
    return _predictions(trained, test, answers, name, model), parity


def _predictions(trained: Trained, images: Images, answers: Floats, name: str, model: Path) -> Predictions:
    return Predictions(
        images=images,
        labels=trained.labels,
        probabilities=answers,
        targets=images.targets(trained.labels),
        name=name,
        size_bytes=model.stat().st_size,
    )


def _try_int8(
    trained: Trained,
    train: Images,
    validation: Images,
    probabilities: Floats,
    folder: Path,
    config: QuantizationConfig | None,
    watch: Stopwatch,
) -> "tuple[Quantization, dict[str, float]]":
    from model.export.quantization import try_int8

    with watch.step("int8"):
        return try_int8(
            folder / FLOAT32,
            folder / INT8,
            calibration=train,
            validation=validation,
            probabilities=probabilities,
            targets=validation.targets(trained.labels),
            preprocessing=trained.preprocessing,
            config=config or QuantizationConfig(),
        )


def _draw(folder: Path, evaluation: Evaluation, source_uri: str, history: History) -> bool:
    """Write the plots; whether the training's is among them."""
    plots = draw_evaluation(Assessment(challenger=evaluation), source_uri)
    if history:
        plots["training"] = training_curves([{k: v for k, v in row.items() if k not in TIMES} for row in history])
    (folder / "plots").mkdir()
    for name, picture in plots.items():
        (folder / "plots" / f"{name}.png").write_bytes(picture)
    return bool(history)
