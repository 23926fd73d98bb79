"""Temperature scaling: one number that makes a network's confidence honest."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

LOWEST: Final = 0.05
HIGHEST: Final = 20.0


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities [n, classes] of logits [n, classes] divided by `temperature`."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.int64]) -> float:
    """The temperature with the smallest log loss on validation images (Guo et al. 2017, section 4.2).

    A weak prior that it is about 1 (log-normal, width 1) is added: a network without a mistake on a few dozen
    validation images would otherwise become infinitely sure of itself. Its weight is that of a single image.

    Args:
        logits: Float [n, classes].
        targets: True classes [n]; with n = 0 the answer is 1.
    """
    if not len(targets):
        return 1.0
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(targets)), targets]

    def loss(log_temperature: float) -> float:
        beta = float(np.exp(-log_temperature))
        likelihood = np.log(np.exp(shifted * beta).sum(axis=1)) - chosen * beta
        return float(likelihood.sum() + log_temperature**2 / 2)

    return float(np.exp(_golden_section(loss, float(np.log(LOWEST)), float(np.log(HIGHEST)))))


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-6:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2
