"""Confusion matrices as a picture: one, or those of several models side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from model.drawing import png, readable, sheet
from model.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

CELLS_WITH_NUMBERS: Final = 20
"""Above this many classes the confusion matrix shows colours only."""
LABELS_ON_AN_AXIS: Final = 60


def confusions(models: Mapping[str, Evaluation]) -> bytes:
    """True class against predicted class: colour and lower number are the share of the row, the upper one counts.

    Args:
        models: By what each is called; an empty name is left out. Each has the labels that it knows.
    """
    classes = max(len(evaluation.labels) for evaluation in models.values())
    edge = min(16.0, 2.6 + 0.72 * classes)
    figure = sheet(edge * len(models) + 1.0, edge)
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, (name, evaluation) in zip(panels, models.items(), strict=True):
        picture = _draw(axes, evaluation)
        told = f"{evaluation.images} test images, accuracy {evaluation.accuracy.value:.1%}"
        axes.set_title(f"{name}: {told}" if name else told, loc="left")
    bar = figure.colorbar(
        picture, ax=list(panels), fraction=0.04 / len(models), pad=0.02, format=lambda share, _: f"{share:.0%}"
    )
    bar.outline.set_visible(False)
    bar.set_label("share of the true class")
    return png(figure)


def _draw(axes: "Axes", evaluation: Evaluation) -> "AxesImage":
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [readable(label) for label in evaluation.labels]
    size = 9 if classes <= CELLS_WITH_NUMBERS else 7
    shown = range(0, classes, 1 + classes // LABELS_ON_AN_AXIS)
    texts = [names[index] for index in shown]
    axes.set_xticks(shown, texts, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(shown, texts, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    if classes <= CELLS_WITH_NUMBERS:
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        _number_cells(axes, counts, shares)
    return picture


def _number_cells(axes: "Axes", counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{count}\n{share:.0%}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share > 0.55 else "#1d2a3a",
            )
