"""The pictures of a training and an evaluation, as PNG bytes, on figures of their own: no pyplot, no global state."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from model.data.sources import read_bytes
from model.evaluation.evaluate import Assessment, Disagreement, Evaluation, Mistake
from model.evaluation.figures import BLUE, GREEN, GREY, ORANGE, RED, clean, png, readable, sheet, thumbnail
from model.evaluation.shadow_agreement import Answer, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
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
        facts = f"{evaluation.images} test images, accuracy {evaluation.accuracy.value:.1%}"
        axes.set_title(f"{name}: {facts}" if name else facts, loc="left")
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


NO_CURVES: Final = frozenset({"epoch", "epochs", "seconds"})
BARS: Final = 30
"""Above this many classes the bars show those with the lowest recall."""


def draw_evaluation(assessment: Assessment, source_uri: str) -> dict[str, bytes]:
    """All pictures of an evaluation by name; the champion's bars beside the challenger's where there is one.

    Args:
        assessment: The challenger is drawn.
        source_uri: Where the images of the worst mistakes are; one that has gone since shows a grey card.
    """
    evaluation = assessment.challenger
    return {
        "confusion-matrix": confusions({"": evaluation}),
        "recall-by-class": class_bars(evaluation, assessment.champion),
        "reliability": reliability_diagram(evaluation),
        "worst-mistakes": mistakes_sheet([(each, _read(source_uri, each.path)) for each in evaluation.worst]),
    }


def draw_comparison(assessment: Assessment, names: tuple[str, str], source_uri: str) -> dict[str, bytes]:
    """What sets two models apart, by name: their confusion matrices side by side, images that they disagree on.

    Args:
        assessment: Without a champion, the challenger is drawn alone.
        names: What challenger and champion are called.
        source_uri: Where the images are; one that has gone since shows a grey card.
    """
    challenger, champion, comparison = assessment.challenger, assessment.champion, assessment.comparison
    if champion is None or comparison is None:
        return {"confusion-matrices": confusions({names[0]: challenger})}
    shown = [(each, _read(source_uri, each.path)) for each in comparison.disagreements]
    return {
        "confusion-matrices": confusions(dict(zip(names, (challenger, champion), strict=True))),
        "disagreements": disagreements_sheet(shown, names),
    }


def training_curves(history: Sequence[Mapping[str, float | None]]) -> bytes:
    """Loss, accuracy and what else was logged, by epoch.

    Metrics named `train_x` and `val_x` (or `validation_x`) share the panel `x`; any other has its own.

    Args:
        history: One mapping of metric name -> value an epoch; `epoch` may be among them; a metric
            may be missing or None.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = [float(row.get("epoch") or number) for number, row in enumerate(history)]
    panels: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in history for name in row if name not in NO_CURVES):
        panels.setdefault(_panel_of(name), []).append(name)
    ordered = sorted(panels, key=lambda panel: (panel != "loss", panel != "accuracy", panel))[:6]
    columns = min(3, max(1, len(ordered)))
    rows = max(1, -(-len(ordered) // columns))
    figure = sheet(4.2 * columns, 3.2 * rows)
    for index, panel in enumerate(ordered):
        axes = clean(figure.add_subplot(rows, columns, index + 1))
        for name in sorted(panels[panel]):
            points = [(at, row.get(name)) for at, row in zip(epochs, history, strict=True)]
            validated = name.startswith("val")
            axes.plot(
                [at for at, value in points if value is not None],
                [value for _, value in points if value is not None],
                color=ORANGE if validated else BLUE,
                marker="o",
                markersize=3.5,
                label="validation" if validated else "training" if name.startswith("train") else name,
            )
        axes.set_title(panel.replace("_", " "), loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        if len(panels[panel]) > 1:
            axes.legend(frameon=False)
    return png(figure)


def reliability_diagram(evaluation: Evaluation) -> bytes:
    """Confidence against accuracy; on the diagonal the model is as sure as it is right."""
    figure = sheet(4.6, 5.0)
    top, bottom = figure.subplots(2, 1, height_ratios=[3.2, 1], sharex=True)
    clean(top)
    clean(bottom)
    for part in evaluation.reliability:
        width = part.high - part.low
        top.bar(part.low, part.accuracy, width, align="edge", color=BLUE, edgecolor="white", alpha=0.85)
        top.plot([part.confidence] * 2, [part.confidence, part.accuracy], color=ORANGE, linewidth=2)
        top.plot(part.confidence, part.confidence, "o", color=ORANGE, markersize=4)
        bottom.bar(part.low, part.images, width, align="edge", color=GREY, edgecolor="white")
    top.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, zorder=0)
    top.set_xlim(0, 1)
    top.set_ylim(0, 1)
    top.set_ylabel("accuracy")
    top.set_title(f"Calibration error (ECE) {evaluation.ece:.3f}", loc="left")
    top.text(0.03, 0.95, "bar: accuracy\ndot: mean confidence", va="top", fontsize=8, color="#555b63")
    bottom.set_ylabel("images")
    bottom.set_xlabel("confidence")
    bottom.yaxis.get_major_locator().set_params(integer=True)
    return png(figure)


def class_bars(challenger: Evaluation, champion: Evaluation | None = None) -> bytes:
    """Recall of each class with its 95 % interval, beside the champion's where there is one."""
    measured = [label for label in challenger.labels if challenger.per_class[label].support]
    labels = sorted(measured, key=lambda label: challenger.per_class[label].recall.value)[:BARS]
    figure = sheet(7.2, 1.4 + 0.5 * max(1, len(labels)))
    axes = clean(figure.add_subplot(), grid="x")
    models = [("challenger" if champion else "model", challenger, BLUE)]
    if champion is not None:
        models.append(("champion", champion, GREY))
    height = 0.8 / len(models)
    for place, (name, evaluation, colour) in enumerate(models):
        rows = [
            (at, evaluation.per_class[label].recall) for at, label in enumerate(labels) if label in evaluation.per_class
        ]
        axes.barh(
            [at + (len(models) - 1 - 2 * place) * height / 2 for at, _ in rows],
            [recall.value for _, recall in rows],
            height * 0.92,
            color=colour,
            label=f"{name}: accuracy {evaluation.accuracy.value:.1%}",
            xerr=[
                [recall.value - recall.low for _, recall in rows],
                [recall.high - recall.value for _, recall in rows],
            ],
            error_kw={"ecolor": "#30343a", "elinewidth": 1, "capsize": 2},
        )
    names = [f"{readable(label)} ({challenger.per_class[label].support})" for label in labels]
    axes.set_yticks(range(len(labels)), names)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.6, max(1, len(labels)) - 0.4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("recall with 95 % interval (test images in brackets)")
    left_out = len(measured) - len(labels)
    figure.suptitle(f"The {BARS} classes with the lowest recall" if left_out else "Recall by class", x=0.02, ha="left")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    return png(figure)


def mistakes_sheet(mistakes: Sequence[tuple[Mistake, bytes]]) -> bytes:
    """The worst mistakes as pictures, with the true label, the answer and its confidence.

    Args:
        mistakes: Each with the image's bytes; one that can't be decoded shows a grey card.
    """
    captions = [
        f"{readable(mistake.label)}\nanswered {readable(mistake.predicted)}\n{mistake.confidence:.0%} sure"
        for mistake, _ in mistakes
    ]
    return _captioned([data for _, data in mistakes], captions, nothing="No mistake on the test images.")


def shadow_sheet(pairs: Sequence[tuple[Pair, bytes]]) -> bytes:
    """Images that two models see differently, with both answers and how sure each is; bytes as for mistakes."""
    captions = [f"live: {_answer(pair.live)}\nnew: {_answer(pair.candidate)}" for pair, _ in pairs]
    return _captioned([data for _, data in pairs], captions, nothing="They agree on every image.")


def _answer(answer: Answer) -> str:
    return readable(answer.label) if answer.problem else f"{readable(answer.label)}, {answer.confidence:.0%}"


def _captioned(images: Sequence[bytes], captions: Sequence[str], *, nothing: str) -> bytes:
    """Images as thumbnails with a caption each; only the words `nothing` where there are none."""
    if not images:
        return _said(nothing)
    figure, panels = _panels(len(images), 2.5)
    for axes, data, caption in zip(panels, images, captions, strict=False):
        axes.imshow(thumbnail(data))
        axes.set_title(caption, fontsize=8.5, loc="left")
    return png(figure)


def disagreements_sheet(disagreements: Sequence[tuple[Disagreement, bytes]], names: tuple[str, str]) -> bytes:
    """Images with the truth and two models' answers, the wrong ones crossed.

    Args:
        disagreements: Each with the image's bytes; one that can't be decoded shows a grey card.
        names: What challenger and champion are called.
    """
    if not disagreements:
        return _said("Both answer the same on every test image.")
    figure, panels = _panels(len(disagreements), 2.7)
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axes, (each, data) in zip(panels, disagreements, strict=False):
        axes.imshow(thumbnail(data))
        answers = (
            (names[0], each.challenger, each.challenger_confidence),
            (names[1], each.champion, each.champion_confidence),
        )
        axes.text(0, 1.24, f"true: {readable(each.label)}", transform=axes.transAxes, fontsize=9, fontweight="bold")
        for line, (name, answer, confidence) in enumerate(answers):
            mark, colour = ("✓", GREEN) if answer == each.label else ("✗", RED)
            caption = f"{mark} {name}: {readable(answer)} {confidence:.0%}"
            axes.text(0, 1.13 - 0.11 * line, caption, transform=axes.transAxes, fontsize=8, color=colour)
    return png(figure)


def _said(text: str) -> bytes:
    figure = sheet(5.0, 1.2)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
    return png(figure)


def _panels(count: int, edge: float) -> "tuple[Figure, Iterator[Axes]]":
    """A figure with room for so many pictures, four in a row, each of this edge in inches."""
    columns = min(4, count)
    rows = -(-count // columns)
    figure = sheet(edge * columns, edge * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in figure.axes:
        axes.set_axis_off()
    return figure, panels


def _panel_of(name: str) -> str:
    for prefix in ("train_", "validation_", "val_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _read(source_uri: str, path: str) -> bytes:
    try:
        return read_bytes(source_uri, path)
    except OSError:
        return b""
