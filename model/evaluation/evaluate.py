"""What a model is worth on the frozen test split, and how two models compare on identical images."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import Field

from model.evaluation.metrics import (
    ClassMetrics,
    Interval,
    PairedCounts,
    ReliabilityBin,
    accuracy_interval,
    brier_score,
    class_metrics,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    reliability,
)
from model.evaluation.predictions import Latency, Predictions, score_bundles
from model.values import Frozen

if TYPE_CHECKING:
    import pandas as pd

WORST: Final = 12
DISAGREEMENTS: Final = 8
"""Shown of each kind."""


class Mistake(Frozen):
    """A wrong answer."""

    path: str
    sha256: str
    label: str
    predicted: str
    confidence: float


class Evaluation(Frozen):
    """One model on one split."""

    name: str
    digest: str = Field(description="Of the bundle; empty before it is sealed.")
    labels: tuple[str, ...] = Field(description="The model's, then those of the images that it doesn't know.")
    images: int
    accuracy: Interval
    macro_f1: float = Field(description="Mean F1 of the classes that have images.")
    macro_recall: float = Field(description="Mean recall of the classes that have images (balanced accuracy).")
    majority_share: float = Field(description="Accuracy of always answering the commonest class.")
    per_class: dict[str, ClassMetrics]
    confusion: tuple[tuple[int, ...], ...] = Field(description="[true][predicted] in the order of `labels`.")
    ece: float = Field(description="Expected calibration error, 0 to 1.")
    brier: float = Field(description="0 to 2, smaller is better.")
    log_loss: float = Field(description="In nats.")
    reliability: tuple[ReliabilityBin, ...]
    worst: tuple[Mistake, ...] = Field(description="The most confident mistakes, worst first.")
    size_bytes: int = Field(description="Of the served ONNX file.")
    latency: Latency | None = Field(default=None, description="None where it was not measured.")


class Disagreement(Frozen):
    """An image that two models answer differently."""

    path: str
    label: str
    challenger: str
    challenger_confidence: float
    champion: str
    champion_confidence: float


class Comparison(Frozen):
    """Challenger against champion, image by image."""

    overall: PairedCounts
    shared: PairedCounts = Field(description="Only images of labels that both models know.")
    per_class: dict[str, PairedCounts] = Field(description="Of the labels that both know.")
    added: tuple[str, ...] = Field(default=(), description="Labels that only the challenger knows.")
    removed: tuple[str, ...] = Field(default=(), description="Labels that only the champion knows.")
    differ: int = Field(default=0, description="Images that they answer differently.")
    disagreements: tuple[Disagreement, ...] = Field(
        default=(),
        description="Of these at most 8 where only the champion is right, where only the challenger is, "
        "and where neither is, in this order; the most confident first.",
    )


class Assessment(Frozen):
    """All that a verdict is made from."""

    challenger: Evaluation
    champion: Evaluation | None = None
    comparison: Comparison | None = None


def evaluate(predictions: Predictions, *, seed: int = 0) -> Evaluation:
    """Everything that is measured about one model; the same answers and seed give the same numbers."""
    labels, probabilities, targets = _on_all_labels(predictions)
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    confusion = confusion_matrix(targets, predicted, len(labels))
    per_class = class_metrics(confusion)
    present = [each for each in per_class if each.support] or per_class
    bins = reliability(probabilities, targets)
    images = len(targets)
    return Evaluation(
        name=predictions.name,
        digest=predictions.digest,
        labels=labels,
        images=images,
        accuracy=accuracy_interval(int(np.trace(confusion)), images, seed=seed),
        macro_f1=float(np.mean([each.f1 for each in present])),
        macro_recall=float(np.mean([each.recall.value for each in present])),
        majority_share=float(confusion.sum(axis=1).max()) / images if images else 0.0,
        per_class=dict(zip(labels, per_class, strict=True)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        ece=expected_calibration_error(bins),
        brier=brier_score(probabilities, targets),
        log_loss=log_loss(probabilities, targets),
        reliability=tuple(bins),
        worst=_worst(predictions, count=WORST),
        size_bytes=predictions.size_bytes,
        latency=predictions.latency,
    )


def compare(challenger: Predictions, champion: Predictions) -> Comparison:
    """Pair two models' answers. An image whose label a model doesn't know is one that it got wrong.

    Raises:
        ValueError: They answered different images.
    """
    if challenger.images.sha256s != champion.images.sha256s:
        raise ValueError("The challenger and the champion were scored on different images.")
    mine, theirs = challenger.hits, champion.hits
    truth = np.array(challenger.images.labels, dtype=object)
    shared = [label for label in challenger.labels if label in set(champion.labels)]

    def counts(chosen: np.ndarray) -> PairedCounts:
        return PairedCounts(
            images=int(chosen.sum()),
            wins=int((chosen & mine & ~theirs).sum()),
            losses=int((chosen & theirs & ~mine).sum()),
        )

    return Comparison(
        overall=counts(np.ones(len(truth), dtype=bool)),
        shared=counts(np.isin(truth, shared)),
        per_class={label: counts(truth == label) for label in shared},
        added=tuple(label for label in challenger.labels if label not in champion.labels),
        removed=tuple(label for label in champion.labels if label not in challenger.labels),
        differ=int((_answers(challenger) != _answers(champion)).sum()),
        disagreements=_disagreements(challenger, champion),
    )


def assess(
    challenger: Path, champion: Path | None, frame: "pd.DataFrame", source_uri: str, *, seed: int = 0
) -> Assessment:
    """Score a challenger and, where there is one, the champion on identical images of the test split.

    Args:
        challenger: Directory of its bundle.
        champion: Directory of the live model's bundle.
        frame: The challenger's manifest.
        source_uri: What the manifest's paths are relative to.
        seed: Of the bootstrap.

    Raises:
        BundleCorrupt: A bundle's bytes are not those of its digest.
        SourceUnreadable: A test image has gone or changed since the manifest was made.
    """
    bundles = [challenger] if champion is None else [challenger, champion]
    scored = score_bundles(bundles, frame, source_uri)
    if champion is None:
        return Assessment(challenger=evaluate(scored[0], seed=seed))
    return Assessment(
        challenger=evaluate(scored[0], seed=seed),
        champion=evaluate(scored[1], seed=seed),
        comparison=compare(*scored),
    )


def _on_all_labels(predictions: Predictions) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Labels that the images have and the model doesn't know get a column of zeros, so that each image has a target."""
    unknown = tuple(sorted(set(predictions.images.labels) - set(predictions.labels)))
    if not unknown:
        return predictions.labels, predictions.probabilities, predictions.targets
    labels = (*predictions.labels, *unknown)
    padding = np.zeros((len(predictions.targets), len(unknown)))
    return labels, np.hstack([predictions.probabilities, padding]), predictions.images.targets(labels)


def _worst(predictions: Predictions, *, count: int) -> tuple[Mistake, ...]:
    confidence = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(~predictions.hits)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    images, predicted = predictions.images, predictions.predicted
    return tuple(
        Mistake(
            path=images.paths[at],
            sha256=images.sha256s[at],
            label=images.labels[at],
            predicted=predicted[at],
            confidence=float(confidence[at]),
        )
        for at in order
    )


def _answers(predictions: Predictions) -> np.ndarray:
    return np.array(predictions.predicted, dtype=object)


def _disagreements(challenger: Predictions, champion: Predictions) -> tuple[Disagreement, ...]:
    mine, theirs = challenger.hits, champion.hits
    sure = [each.probabilities.max(axis=1) for each in (challenger, champion)]
    answers = [_answers(each) for each in (challenger, champion)]
    differ = answers[0] != answers[1]
    chosen = [
        at
        for kind in (theirs & differ, mine & differ, differ & ~mine & ~theirs)
        for at in sorted(np.flatnonzero(kind), key=lambda at: -max(sure[0][at], sure[1][at]))[:DISAGREEMENTS]
    ]
    images = challenger.images
    return tuple(
        Disagreement(
            path=images.paths[at],
            label=images.labels[at],
            challenger=answers[0][at],
            challenger_confidence=float(sure[0][at]),
            champion=answers[1][at],
            champion_confidence=float(sure[1][at]),
        )
        for at in chosen
    )
