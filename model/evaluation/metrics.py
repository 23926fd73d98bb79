"""The numbers behind an evaluation: plain functions on arrays.

Shapes: `probabilities` float [n, classes], rows sum to 1; `targets` int [n], 0..classes-1.
"""

from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model.values import Frozen

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RESAMPLES: Final = 4000
MAX_BINS: Final = 15
IMAGES_PER_BIN: Final = 10


class Interval(Frozen):
    """A value with its confidence interval (two-sided, 95 % unless said otherwise)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class ClassMetrics(Frozen):
    """One class on the test split. A ratio without any image under it is 0."""

    precision: float
    recall: Interval
    f1: float
    support: int = Field(description="Images that truly are of this class.")


class ReliabilityBin(Frozen):
    """Images whose confidence lies in (low, high]."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


class PairedCounts(Frozen):
    """How two models did on the same images."""

    images: int
    wins: int = Field(description="Only the challenger was right.")
    losses: int = Field(description="Only the champion was right.")

    @property
    def difference(self) -> float:
        """Challenger's accuracy minus the champion's; 0 without images."""
        return (self.wins - self.losses) / self.images if self.images else 0.0


def accuracy_interval(hits: int, images: int, *, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Accuracy with its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Resampling n images with replacement makes their number of hits binomial, so it is drawn as that. The drawn rate
    is smoothed by half a hit and half a miss: without it a model with no mistake on 40 images would be certain to
    make none (the plain bootstrap's interval is empty there).
    """
    if images == 0:
        return Interval(value=0.0, low=0.0, high=1.0)
    rate = (hits + 0.5) / (images + 1)
    draws = np.random.default_rng(seed).binomial(images, rate, RESAMPLES) / images
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    value = hits / images
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def difference_interval(counts: PairedCounts, *, seed: int = 0, confidence: float = 0.90) -> Interval:
    """Difference in accuracy with its paired bootstrap interval.

    An image is a win, a loss or a tie, so resampling images is drawing from the multinomial of these. Its rates are
    smoothed by half a win, half a loss and one tie (Agresti & Min 2005, Statist. Med. 24, who add 1/2 to each cell of
    the table), so that few images never look like certainty. `confidence` 0.90 leaves 5 % at either end.
    """
    if counts.images == 0:
        return Interval(value=0.0, low=-1.0, high=1.0)
    ties = counts.images - counts.wins - counts.losses
    rates = np.array([counts.wins + 0.5, counts.losses + 0.5, ties + 1.0]) / (counts.images + 2)
    draws = np.random.default_rng(seed).multinomial(counts.images, rates, RESAMPLES)
    tail = (1 - confidence) / 2
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / counts.images, [tail, 1 - tail])
    value = counts.difference
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def difference_bound(counts: PairedCounts, *, alpha: float, upper: bool) -> float:
    """One-sided bound of the difference in accuracy, adjusted Wald (Agresti & Min 2005, section 2.3).

    Closed form, hence usable at the small `alpha` that many classes at once need.
    """
    total = counts.images + 2
    centre = (counts.wins - counts.losses) / total
    spread = (counts.wins + counts.losses + 1) / total - centre**2
    reach = NormalDist().inv_cdf(1 - alpha) * float(np.sqrt(max(spread, 0.0) / total))
    return min(1.0, centre + reach) if upper else max(-1.0, centre - reach)


def wilson_interval(hits: int, images: int, *, confidence: float = 0.95) -> Interval:
    """A rate with its score interval (Wilson 1927); (0, 1) where there are no images."""
    if images == 0:
        return Interval(value=0.0, low=0.0, high=1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, shrink = hits / images, 1 + z * z / images
    centre = (rate + z * z / (2 * images)) / shrink
    reach = z * float(np.sqrt(rate * (1 - rate) / images + z * z / (4 * images * images))) / shrink
    return Interval(value=rate, low=min(max(0.0, centre - reach), rate), high=max(min(1.0, centre + reach), rate))


def confusion_matrix(targets: Integers, predicted: Integers, classes: int) -> Integers:
    """Counts [true class, predicted class]."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_metrics(confusion: Integers) -> list[ClassMetrics]:
    """Precision, recall and F1 of each class from the confusion matrix."""
    found = []
    for index in range(len(confusion)):
        hits, support, claimed = (
            int(x) for x in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
        )
        found.append(
            ClassMetrics(
                precision=hits / claimed if claimed else 0.0,
                recall=wilson_interval(hits, support),
                f1=2 * hits / (support + claimed) if support + claimed else 0.0,
                support=support,
            )
        )
    return found


def reliability(probabilities: Floats, targets: Integers) -> list[ReliabilityBin]:
    """Confidence against accuracy in bins of equal width, empty ones left out.

    At most 15 bins, and so few that each has 10 images on average: with one image a bin, ECE measures noise.
    """
    images = len(targets)
    count = min(MAX_BINS, max(1, images // IMAGES_PER_BIN))
    confidence = probabilities.max(axis=1) if images else np.zeros(0)
    hits = probabilities.argmax(axis=1) == targets if images else np.zeros(0, dtype=bool)
    place = np.clip(np.ceil(confidence * count).astype(int) - 1, 0, count - 1)
    return [
        ReliabilityBin(
            low=index / count,
            high=(index + 1) / count,
            images=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(hits[inside].mean()),
        )
        for index in range(count)
        if (inside := place == index).any()
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Mean distance between confidence and accuracy, weighted by images (Guo et al. 2017, eq. 3)."""
    images = sum(each.images for each in bins)
    return sum(each.images * abs(each.confidence - each.accuracy) for each in bins) / images if images else 0.0


def brier_score(probabilities: Floats, targets: Integers) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2 (Brier 1950)."""
    if not len(targets):
        return 0.0
    truth = np.eye(probabilities.shape[1])[targets]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def log_loss(probabilities: Floats, targets: Integers) -> float:
    """Mean negative log likelihood in nats."""
    if not len(targets):
        return 0.0
    chosen = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())
