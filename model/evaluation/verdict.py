"""The verdict: may the challenger take the champion's place?

The rule, in the order in which it is applied:

1. **reject** where harm is shown: the challenger is worse than the champion (the upper bound of the paired difference
   in accuracy is below 0), a class lost more recall than allowed (its upper bound is below the limit, at a level
   shared out among the classes), it is too slow or too large; or, for a first model, its accuracy is shown to be below
   what is asked (upper bound below the floor).
2. **promote** where harm is ruled out: the difference is not negative and its lower bound is above minus the margin;
   for a first model, the lower bound of its accuracy is above the floor.
3. **inconclusive** else: the test split is too small, or the two are too close. The champion stays.

A challenger that answers like the champion is thus promoted (it may be smaller, or calibrated better), once the test
split is large enough to rule out the margin; the champion itself (same digest) is inconclusive, as there is nothing to
decide. Where the labels differ, the bounds are taken over images of labels that both know, and being worse there
starts at the margin instead of 0, since a new class makes the old ones harder; the difference itself counts all images.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from model.evaluation.evaluate import Assessment, Comparison, Evaluation
from model.evaluation.metrics import difference_bound, difference_interval
from model.values import Frozen


class GateConfig(Frozen):
    """What a model must show before it is released."""

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


__all__ = ["Check", "GateConfig", "Outcome", "Verdict", "judge"]

Outcome = Literal["promote", "reject", "inconclusive"]


class Check(Frozen):
    """One comparison of a number with its limit."""

    name: str
    value: float
    limit: float
    passed: bool
    detail: str


class Verdict(Frozen):
    """The decision with its evidence."""

    outcome: Outcome
    reason: str
    checks: tuple[Check, ...]


class _Weighed(Frozen):
    """A check and what it means when it fails."""

    check: Check
    failing: Literal["reject", "inconclusive"]


def judge(assessment: Assessment, config: GateConfig) -> Verdict:
    """Decide by the rule at the top of this module; the same numbers and seed give the same verdict."""
    challenger, champion, comparison = assessment.challenger, assessment.champion, assessment.comparison
    if challenger.images == 0:
        return Verdict(outcome="inconclusive", reason="There is no test image to judge by.", checks=())
    if champion is not None and challenger.digest and challenger.digest == champion.digest:
        return Verdict(
            outcome="inconclusive",
            reason=f"The challenger is the champion itself (digest {champion.digest[:12]}): nothing is to be decided.",
            checks=(),
        )
    if champion is None or comparison is None or not comparison.shared.images:
        weighed = [*_first(challenger, config), *_absolute(challenger, config)]
        about = (
            "First model" if champion is None else "The champion knows none of these labels; judged as a first model"
        )
    else:
        weighed = [
            *_against(challenger, champion, comparison, config),
            *_absolute(challenger, config),
            *_relative(challenger, champion, config),
        ]
        about = _headline(comparison)
    return _conclude(about, weighed)


def _conclude(about: str, weighed: list[_Weighed]) -> Verdict:
    checks = tuple(each.check for each in weighed)
    outcome: Outcome
    for outcome in ("reject", "inconclusive"):
        failed = [each.check for each in weighed if not each.check.passed and each.failing == outcome]
        if failed:
            return Verdict(
                outcome=outcome, reason=f"{about}. {' '.join(each.detail for each in failed)}", checks=checks
            )
    return Verdict(outcome="promote", reason=f"{about}. All {len(checks)} checks passed.", checks=checks)


def _headline(comparison: Comparison) -> str:
    counts = comparison.overall
    text = (
        f"{counts.difference:+.1%} accuracy against the champion on {counts.images} images "
        f"({counts.wins} only the challenger got right, {counts.losses} only the champion)"
    )
    changes = [
        f"{word} {', '.join(labels)}"
        for word, labels in (("new:", comparison.added), ("gone:", comparison.removed))
        if labels
    ]
    if changes:
        text += (
            f"; the labels differ ({'; '.join(changes)}), so the bounds are over the {comparison.shared.images} images "
            f"of labels that both know"
        )
    return text


def _against(
    challenger: Evaluation, champion: Evaluation, comparison: Comparison, config: GateConfig
) -> Iterator[_Weighed]:
    interval = difference_interval(comparison.shared, seed=config.seed, confidence=config.confidence)
    worse = -config.margin if comparison.added or comparison.removed else 0.0
    difference = comparison.overall.difference
    yield _weigh(
        "not shown to be worse",
        interval.high,
        worse,
        interval.high >= worse,
        f"The difference in accuracy is at most {interval.high:+.3f} (upper bound; {worse:+.3f} or more passes).",
        "reject",
    )
    yield _weigh(
        "accuracy not below the champion's",
        difference,
        0.0,
        difference >= 0,
        f"Accuracy {challenger.accuracy.value:.3f} against {champion.accuracy.value:.3f}: {difference:+.3f}.",
        "inconclusive",
    )
    yield _weigh(
        "loss beyond the margin ruled out",
        interval.low,
        -config.margin,
        interval.low > -config.margin,
        f"The difference in accuracy is at least {interval.low:+.3f} (lower bound; above {-config.margin:+.3f} passes)"
        + ("." if interval.low > -config.margin else "; more test images would tell."),
        "inconclusive",
    )
    yield _recall(comparison, config)


def _recall(comparison: Comparison, config: GateConfig) -> _Weighed:
    """Each class at its share of the error rate (Bonferroni), so that many classes don't reject by chance."""
    measured = {label: counts for label, counts in comparison.per_class.items() if counts.images}
    alpha = (1 - config.confidence) / 2 / len(measured)
    bounds = {label: difference_bound(counts, alpha=alpha, upper=True) for label, counts in measured.items()}
    limit = -config.max_recall_drop
    dropped = [label for label, bound in bounds.items() if bound < limit]
    worst = min(bounds, key=lambda label: (bounds[label], label))
    if dropped:
        shown = ", ".join(f"{label} ({measured[label].difference:+.2f})" for label in dropped)
        detail = f"Recall fell by more than {config.max_recall_drop:.2f} for {shown}."
    else:
        counts = measured[worst]
        detail = (
            f"No class is shown to have lost more than {config.max_recall_drop:.2f}; nearest to it is {worst} "
            f"({counts.difference:+.2f} on {counts.images} images)."
        )
    return _weigh("recall of each class", bounds[worst], limit, not dropped, detail, "reject")


def _first(challenger: Evaluation, config: GateConfig) -> Iterator[_Weighed]:
    accuracy = challenger.accuracy
    floor = max(challenger.majority_share + config.first_gain, config.first_accuracy)
    text = f"Accuracy {accuracy} on {challenger.images} images; {floor:.3f} is asked for"
    yield _weigh(
        "accuracy not shown to be too low",
        accuracy.high,
        floor,
        accuracy.high >= floor,
        f"{text}: its upper bound must reach that.",
        "reject",
    )
    yield _weigh(
        "accuracy above the floor",
        accuracy.low,
        floor,
        accuracy.low > floor,
        f"{text} (always answering the commonest class gives {challenger.majority_share:.3f}): its lower bound must "
        "exceed that.",
        "inconclusive",
    )
    yield _weigh(
        "mean recall of the classes",
        challenger.macro_recall,
        config.first_macro_recall,
        challenger.macro_recall >= config.first_macro_recall,
        f"Mean recall {challenger.macro_recall:.3f}; at least {config.first_macro_recall:.3f} is asked for.",
        "reject",
    )


def _absolute(challenger: Evaluation, config: GateConfig) -> Iterator[_Weighed]:
    size = challenger.size_bytes / 1e6
    yield _weigh(
        "model size",
        size,
        config.max_size_mb,
        size <= config.max_size_mb,
        f"{size:.1f} MB of at most {config.max_size_mb:g} MB.",
        "reject",
    )
    if challenger.latency is not None:
        median = challenger.latency.median
        yield _weigh(
            "latency",
            median,
            config.max_latency_ms,
            median <= config.max_latency_ms,
            f"{median:.1f} ms an image (95 % within {challenger.latency.p95:.1f} ms) of {config.max_latency_ms:g} ms.",
            "reject",
        )


def _relative(challenger: Evaluation, champion: Evaluation, config: GateConfig) -> Iterator[_Weighed]:
    size, rival = challenger.size_bytes / 1e6, champion.size_bytes / 1e6
    if rival > 0:
        yield _weigh(
            "size against the champion's",
            size / rival,
            config.max_size_ratio,
            size <= max(rival * config.max_size_ratio, config.small_mb),
            f"{size:.1f} MB against {rival:.1f} MB; {config.max_size_ratio:g} times is allowed, and "
            f"{config.small_mb:g} MB always.",
            "reject",
        )
    if challenger.latency is not None and champion.latency is not None:
        mine, theirs = challenger.latency.median, champion.latency.median
        yield _weigh(
            "latency against the champion's",
            mine / theirs,
            config.max_latency_ratio,
            mine <= max(theirs * config.max_latency_ratio, config.quick_ms),
            f"{mine:.1f} ms against {theirs:.1f} ms; {config.max_latency_ratio:g} times is allowed, and "
            f"{config.quick_ms:g} ms always.",
            "reject",
        )


def _weigh(
    name: str, value: float, limit: float, passed: bool, detail: str, failing: Literal["reject", "inconclusive"]
) -> _Weighed:
    return _Weighed(check=Check(name=name, value=value, limit=limit, passed=passed, detail=detail), failing=failing)
