"""The pictures of a training and an evaluation, as PNG bytes, on figures of their own: no pyplot, no global state."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from model.agreement import Answer, Pair
from model.errors import ImageRejected
from model.evaluation import Assessment, Evaluation, Mistake
from model.images import open_image, to_rgb
from model.sources import read_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE: Final = "#2a6fbb"
ORANGE: Final = "#e07b39"
GREY: Final = "#8a8f98"
DPI: Final = 110
LONGEST_LABEL: Final = 22
NO_CURVES: Final = frozenset({"epoch", "epochs", "seconds"})
THUMBNAIL: Final = (208, 156)
CELLS_WITH_NUMBERS: Final = 20
"""Above this many classes the confusion matrix shows colours only."""
LABELS_ON_AN_AXIS: Final = 60
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
        "confusion-matrix": confusion(evaluation),
        "recall-by-class": class_bars(evaluation, assessment.champion),
        "reliability": reliability_diagram(evaluation),
        "worst-mistakes": mistakes_sheet([(each, _read(source_uri, each.path)) for each in evaluation.worst]),
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
    figure = _figure(4.2 * columns, 3.2 * rows)
    for index, panel in enumerate(ordered):
        axes = _clean(figure.add_subplot(rows, columns, index + 1))
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
    return _png(figure)


def confusion(evaluation: Evaluation) -> bytes:
    """True class against predicted class: colour and lower number are the share of the row, the upper one counts."""
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    edge = min(16.0, 2.6 + 0.72 * classes)
    figure = _figure(edge + 1.0, edge)
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_readable(label) for label in evaluation.labels]
    size = 9 if classes <= CELLS_WITH_NUMBERS else 7
    shown = range(0, classes, 1 + classes // LABELS_ON_AN_AXIS)
    texts = [names[index] for index in shown]
    axes.set_xticks(shown, texts, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(shown, texts, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{evaluation.images} test images, accuracy {evaluation.accuracy.value:.1%}", loc="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    if classes <= CELLS_WITH_NUMBERS:
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        _number_cells(axes, counts, shares)
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, format=lambda share, _: f"{share:.0%}")
    bar.outline.set_visible(False)
    bar.set_label("share of the true class")
    return _png(figure)


def reliability_diagram(evaluation: Evaluation) -> bytes:
    """Confidence against accuracy; on the diagonal the model is as sure as it is right."""
    figure = _figure(4.6, 5.0)
    top, bottom = figure.subplots(2, 1, height_ratios=[3.2, 1], sharex=True)
    _clean(top)
    _clean(bottom)
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
    return _png(figure)


def class_bars(challenger: Evaluation, champion: Evaluation | None = None) -> bytes:
    """Recall of each class with its 95 % interval, beside the champion's where there is one."""
    measured = [label for label in challenger.labels if challenger.per_class[label].support]
    labels = sorted(measured, key=lambda label: challenger.per_class[label].recall.value)[:BARS]
    figure = _figure(7.2, 1.4 + 0.5 * max(1, len(labels)))
    axes = _clean(figure.add_subplot(), grid="x")
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
    names = [f"{_readable(label)} ({challenger.per_class[label].support})" for label in labels]
    axes.set_yticks(range(len(labels)), names)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.6, max(1, len(labels)) - 0.4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("recall with 95 % interval (test images in brackets)")
    left_out = len(measured) - len(labels)
    figure.suptitle(f"The {BARS} classes with the lowest recall" if left_out else "Recall by class", x=0.02, ha="left")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    return _png(figure)


def mistakes_sheet(mistakes: Sequence[tuple[Mistake, bytes]]) -> bytes:
    """The worst mistakes as pictures, with the true label, the answer and its confidence.

    Args:
        mistakes: Each with the image's bytes; one that can't be decoded shows a grey card.
    """
    captions = [
        f"{_readable(mistake.label)}\nanswered {_readable(mistake.predicted)}\n{mistake.confidence:.0%} sure"
        for mistake, _ in mistakes
    ]
    return _sheet([data for _, data in mistakes], captions, nothing="No mistake on the test images.")


def disagreements_sheet(pairs: Sequence[tuple[Pair, bytes]]) -> bytes:
    """Images that two models see differently, with both answers and how sure each is; bytes as for mistakes."""
    captions = [f"live: {_said(pair.live)}\nnew: {_said(pair.candidate)}" for pair, _ in pairs]
    return _sheet([data for _, data in pairs], captions, nothing="They agree on every image.")


def _said(answer: Answer) -> str:
    return _readable(answer.label) if answer.problem else f"{_readable(answer.label)}, {answer.confidence:.0%}"


def _sheet(images: Sequence[bytes], captions: Sequence[str], *, nothing: str) -> bytes:
    """Images as thumbnails with a caption each; only the words `nothing` where there are none."""
    if not images:
        figure = _figure(5.0, 1.2)
        figure.text(0.5, 0.5, nothing, ha="center", va="center", fontsize=11)
        return _png(figure)
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure = _figure(2.5 * columns, 2.5 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, data, caption in zip(grid.flat, images, captions, strict=False):
        axes.imshow(_thumbnail(data))
        axes.set_title(caption, fontsize=8.5, loc="left")
    return _png(figure)


def _panel_of(name: str) -> str:
    for prefix in ("train_", "validation_", "val_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _clean(axes: "Axes", *, grid: str = "y") -> "Axes":
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e3e6ea", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    return axes


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


def _read(source_uri: str, path: str) -> bytes:
    try:
        return read_bytes(source_uri, path)
    except OSError:
        return b""


def _thumbnail(data: bytes) -> np.ndarray:
    """The whole image, centred on a white card, so that all thumbnails line up."""
    from PIL import Image, ImageOps

    try:
        rgb = to_rgb(open_image(data), at_least=max(THUMBNAIL))
    except ImageRejected:
        rgb = Image.new("RGB", THUMBNAIL, (200, 200, 200))
    return np.asarray(ImageOps.pad(rgb, THUMBNAIL, color="white"))


def _readable(label: str) -> str:
    """A label as this font can draw it: shortened, a character without a glyph as its code point."""
    known = _glyphs()
    shown = "".join(
        character if ord(character) in known else f"U+{ord(character):04X}"
        for character in label
        # Joiners and variation selectors have no shape of their own.
        if character not in "\u200d\ufe0e\ufe0f"
    )
    if len(shown) > LONGEST_LABEL:
        shown = f"{shown[: LONGEST_LABEL - 1]}…"
    # A dollar sign would start a formula.
    return shown.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    # Without the software's version in it, the same picture is the same bytes.
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()
