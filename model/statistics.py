"""How far two samples of labels are apart, and how far chance alone puts them."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def stability_terms(counts: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Each class's term of the population stability index; their sum is the index.

    PSI = sum (p - q) ln(p / q) (Siddiqi 2006, "Credit Risk Scorecards", chapter 7), with half an observation added to
    each class, so that one that a sample lacks has a share too.

    Args:
        counts: Observations by class, at least one class.
        others: The same of the other sample, in the same order.
    """
    p, q = (np.asarray(sample, dtype=float) + 0.5 for sample in (counts, others))
    p, q = p / p.sum(), q / q.sum()
    terms: NDArray[np.float64] = (p - q) * np.log(p / q)
    return terms


def chance_limit(classes: int, size: float, other_size: float, *, percentile: float) -> float:
    """What the index of two samples of one population exceeds with the probability 1 - `percentile`.

    The index is about chi-squared with classes - 1 degrees of freedom times 1/size + 1/other_size (Yurdakul 2018,
    "Statistical Properties of Population Stability Index", section 3); the percentile is Wilson and Hilferty's (1931).
    """
    freedom = classes - 1
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)
    normal = NormalDist().inv_cdf(percentile)
    chi_squared = freedom * (1 - spread + normal * spread**0.5) ** 3
    return float(chi_squared * (1 / max(size, 1) + 1 / max(other_size, 1)))
