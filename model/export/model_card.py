"""The model card (Mitchell et al. 2019): what a model is, what it was measured to do, and what it isn't for."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.bundle.read import Lineage
from model.data.manifest import DataVersion
from model.evaluation.evaluate import Evaluation
from model.evaluation.metrics import IMAGES_PER_BIN

FEW_IMAGES = 10
"""Below this many test images, a class's numbers say little."""


def render_card(
    name: str,
    evaluation: Evaluation,
    data: DataVersion,
    lineage: Lineage,
    *,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    served: str,
    curves: bool,
) -> str:
    """Markdown with the bundle's plots by relative path.

    Args:
        name: Of the model.
        evaluation: On the test split, of the served file.
        data: What it was trained on.
        lineage: What it was made from.
        config: The training configuration as JSON values.
        metrics: `calibration`, `parity` and `int8` as in `metrics.json`.
        served: The ONNX file.
        curves: Whether there is a plot of the training.
    """
    sections = [
        f"# {_text(name)}",
        _summary(evaluation, served),
        "## Data",
        _data(data),
        "## Training",
        _table(("setting", "value"), [(key, _value(value)) for key, value in sorted(_flat(config))]),
        *(["![Training curves](plots/training.png)"] if curves else []),
        "## Results on the test split",
        _results(evaluation),
        "![Confusion matrix](plots/confusion-matrix.png)",
        "### By class",
        _classes(evaluation),
        "![Recall by class](plots/recall-by-class.png)",
        "### Worst mistakes",
        "![The most confident mistakes](plots/worst-mistakes.png)",
        "## Calibration",
        _calibration(evaluation, metrics["calibration"]),
        "![Reliability diagram](plots/reliability.png)",
        "## Export",
        _export(metrics, served),
        "## Intended use and limits",
        _limits(evaluation),
        "## Lineage",
        _lineage(lineage),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(evaluation: Evaluation, served: str) -> str:
    return (
        f"An image classifier for {len(evaluation.labels)} classes: {', '.join(_text(x) for x in evaluation.labels)}. "
        f"Accuracy **{evaluation.accuracy.value:.1%}** (95 % interval {evaluation.accuracy.low:.1%} to "
        f"{evaluation.accuracy.high:.1%}) on {evaluation.images} test images; always answering the commonest class "
        f"gives {evaluation.majority_share:.1%}. The served file is `{served}`, {evaluation.size_bytes / 1e6:.1f} MB."
    )


def _data(data: DataVersion) -> str:
    splits = ("train", "validation", "test")
    rows = [(label, *(str(data.counts[label].get(part, 0)) for part in splits)) for label in data.labels]
    totals = [str(sum(data.counts[label].get(part, 0) for label in data.labels)) for part in splits]
    return (
        f"`{_text(data.name)}@{data.version}`: {data.images} images that can be decoded. An image keeps its split for "
        "good; the test split is never trained on.\n\n" + _table(("class", *splits), [*rows, ("**all**", *totals)])
    )


def _results(evaluation: Evaluation) -> str:
    rows = [
        ("accuracy", str(evaluation.accuracy)),
        ("mean recall (balanced accuracy)", f"{evaluation.macro_recall:.3f}"),
        ("macro F1", f"{evaluation.macro_f1:.3f}"),
        ("log loss", f"{evaluation.log_loss:.3f} nats"),
        ("Brier score", f"{evaluation.brier:.3f} (0 to 2)"),
        ("calibration error (ECE)", f"{evaluation.ece:.3f}"),
    ]
    return _table(("metric", "value (95 % bootstrap interval)"), rows)


def _classes(evaluation: Evaluation) -> str:
    rows = [
        (label, f"{each.precision:.3f}", str(each.recall), f"{each.f1:.3f}", str(each.support))
        for label, each in evaluation.per_class.items()
    ]
    return _table(("class", "precision", "recall (95 % score interval)", "F1", "test images"), rows)


def _calibration(evaluation: Evaluation, calibration: Mapping[str, float]) -> str:
    return (
        f"Logits are divided by the temperature {calibration['temperature']:.3f}, fitted on "
        f"{calibration['validation_images']:.0f} validation images (Guo et al. 2017); there it took the expected "
        f"calibration error (ECE) from {calibration['ece_before']:.3f} to {calibration['ece_after']:.3f}. On the test "
        f"images it is {evaluation.ece:.3f}, in bins of {IMAGES_PER_BIN} or more images on average."
    )


def _export(metrics: Mapping[str, Any], served: str) -> str:
    parity = metrics["parity"]
    return (
        f"ONNX Runtime and torch give the same class for each of {parity['images']} test images; their probabilities "
        f"differ by {parity['largest_difference']:.0e} at most. Served: `{served}`. {metrics['int8']['reason']}"
    )


def _limits(evaluation: Evaluation) -> str:
    lines = [
        "- Meant for photos like those of the data set; a photo of anything else gets one of its classes, too.",
        "- The figures hold for images drawn like the test split; a new camera, season or supplier can change them.",
        "- Not meant for decisions about people or their safety.",
    ]
    few = [label for label, each in evaluation.per_class.items() if each.support < FEW_IMAGES]
    if few:
        lines.append(f"- Fewer than {FEW_IMAGES} test images, so hardly known: {', '.join(_text(x) for x in few)}.")
    weak = min(evaluation.per_class.items(), key=lambda item: item[1].recall.value)
    lines.append(f"- Weakest class: {_text(weak[0])}, recall {weak[1].recall}.")
    confused = _most_confused(evaluation)
    if confused:
        lines.append(f"- Most often confused: {confused}.")
    return "\n".join(lines)


def _most_confused(evaluation: Evaluation) -> str:
    pairs = [
        (count, evaluation.labels[true], evaluation.labels[answered])
        for true, row in enumerate(evaluation.confusion)
        for answered, count in enumerate(row)
        if true != answered and count
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return ", ".join(f"{_text(true)} taken for {_text(answered)} ({count})" for count, true, answered in pairs[:3])


def _lineage(lineage: Lineage) -> str:
    rows = [
        ("data version", lineage.data_version),
        ("manifest", lineage.data_uri),
        ("code", lineage.code),
        ("configuration", lineage.config_hash),
        ("seed", str(lineage.seed)),
        *sorted(lineage.environment.items()),
    ]
    return _table(("what", "value"), rows)


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    entries: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            entries += _flat(value, f"{prefix}{key}.")
        else:
            entries.append((f"{prefix}{key}", value))
    return entries


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(_text(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str) -> str:
    """A label can hold anything; here it must not end a cell or start a tag."""
    return value.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("`", "'")
