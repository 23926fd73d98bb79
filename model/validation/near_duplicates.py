"""Near-duplicates between splits: images whose perceptual hashes differ in few bits, among a million in seconds."""

from collections.abc import Iterator
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_AGREEING: Final = 3
"""Blocks that must agree: one 64-bit key of at least 64 * 3 / (limit + 3) bits for each choice of blocks."""
_LONGEST_RUN: Final = 512
"""Neighbours under one key that an image is compared with; only images with hardly any structure crowd so."""

Hashes = NDArray[np.uint64]


class Twins(NamedTuple):
    """For each image, its nearest in another split: bits that differ (NaN: none within the limit) and its row (-1)."""

    bits: NDArray[np.float32]
    row: NDArray[np.int64]


def nearest_twins(hashes: Hashes, splits: NDArray[np.int8], limit: int) -> Twins:
    """Find, for each image, the nearest one of another split within `limit` bits.

    The 64 bits are cut into limit + 3 blocks. Two hashes that differ in at most `limit` bits agree in at least three
    whole blocks, so sorting by each choice of three brings every such pair together (Manku, Jain and Das Sarma 2007,
    "Detecting Near-Duplicates for Web Crawling", section 3; Norouzi, Punjani and Fleet 2012 for the pigeonhole
    argument). The hash 0 means an image without structure, which is nobody's twin.

    Args:
        hashes: uint64 [n].
        splits: int8 [n], the code of each image's split; negative: not to be compared.
        limit: Largest number of differing bits, 0 to 8.
    """
    bits = np.full(len(hashes), np.nan, dtype=np.float32)
    row = np.full(len(hashes), -1, dtype=np.int64)
    compared = np.flatnonzero((hashes != 0) & (splits >= 0))
    if not len(compared):
        return Twins(bits, row)
    # Equal hashes in one split are one entry: a burst of the same photo must not multiply the pairs.
    order = compared[np.lexsort((splits[compared], hashes[compared]))]
    first = np.r_[True, (np.diff(hashes[order]) != 0) | (np.diff(splits[order]) != 0)]
    representatives = order[first]
    distance, nearest = _nearest(hashes[representatives], splits[representatives], limit)
    entry = np.cumsum(first) - 1
    found = nearest[entry] >= 0
    bits[order[found]] = distance[entry][found]
    row[order[found]] = representatives[nearest[entry][found]]
    return Twins(bits, row)


def _nearest(hashes: Hashes, splits: NDArray[np.int8], limit: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    distance = np.full(len(hashes), limit + 1, dtype=np.uint8)
    nearest = np.full(len(hashes), -1, dtype=np.int32)
    for mask in _masks(limit):
        keys = hashes & mask
        order = np.argsort(keys).astype(np.int32)
        for left, right in _neighbours(keys[order]):
            one, other = order[left], order[right]
            apart = splits[one] != splits[other]
            one, other = one[apart], other[apart]
            differing = np.bitwise_count(hashes[one] ^ hashes[other])
            # Within one step each image is at most once on either side, so plain assignment is safe.
            for image, twin in ((one, other), (other, one)):
                better = differing < distance[image]
                distance[image[better]] = differing[better]
                nearest[image[better]] = twin[better]
    return distance, nearest


def _masks(limit: int) -> Iterator[np.uint64]:
    blocks = limit + _AGREEING
    # Bits go round the blocks: neighbouring frequencies are correlated, and a block of these alone would tell little.
    masks = [sum(1 << bit for bit in range(block, 64, blocks)) for block in range(blocks)]
    for chosen in combinations(masks, _AGREEING):
        yield np.uint64(sum(chosen))


def _neighbours(keys: Hashes) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of all pairs with equal keys, by their distance in the sorted order."""
    left = np.flatnonzero(keys[1:] == keys[:-1])
    for step in range(1, _LONGEST_RUN):
        if not len(left):
            return
        yield left, left + step
        left = left[left + step + 1 < len(keys)]
        left = left[keys[left + step + 1] == keys[left]]
