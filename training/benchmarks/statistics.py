"""How sure a score is, and whether two models differ: questions about one image are not independent."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from cooper_sim.scoring import Rate

NORMAL = 1.959963984540054  # two-sided 95 %
RESAMPLES = 10_000
BLOCK = 2**20  # numbers drawn at once


@dataclass(frozen=True)
class Difference:
    """What the second of two models scores above the first, over the same questions.

    :param low, high: 95 % interval of ``mean``: percentiles of a bootstrap over clusters
    :param better, worse: questions that only the second, or only the first, has right
    :param p: of McNemar's exact test; None where scores are not 0 or 1
    """

    mean: float
    low: float
    high: float
    better: int
    worse: int
    p: float | None
    n: int


def interval(scores: Sequence[float], clusters: Sequence[Hashable]) -> Rate | None:
    """Return the mean of scores in 0..1 with its 95 % interval; None without scores.

    Wilson's interval (1927) for the effective number of independent answers (Korn and Graubard 1998): the number whose
    binomial variance equals the one found between clusters. For 0/1 scores in clusters of one it is Wilson's
    own; where all scores are alike, the number of clusters stands in.
    """
    values = np.asarray(scores, np.float64)
    if values.size == 0:
        return None
    owner = _numbered(clusters)
    mean = float(values.mean())
    sums = np.bincount(owner, values - mean)
    variance = float((sums**2).sum()) / len(values) ** 2
    effective = mean * (1 - mean) / variance if variance > 1e-12 else float(len(sums))
    return Rate(mean, *_wilson(mean, effective))


def _wilson(mean: float, count: float) -> tuple[float, float]:
    square = NORMAL**2 / count
    centre = (mean + square / 2) / (1 + square)
    half = NORMAL * math.sqrt(max(mean * (1 - mean), 0.0) / count + square / (4 * count)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable], seed: int = 0
) -> Difference:
    """Compare two models on the same questions.

    :param first, second: their scores, question by question
    :param clusters: what a question shares with others, such as its image; whole clusters are resampled
    :raises ValueError: there is nothing to compare, or the lengths differ
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not len(one) == len(two) == len(clusters) > 0:
        raise ValueError(f'{len(one)} and {len(two)} scores of {len(clusters)} questions cannot be compared')
    gain = two - one
    owner = _numbered(clusters)
    sums, sizes = np.bincount(owner, gain), np.bincount(owner).astype(np.float64)
    low, high = np.percentile(_resampled(sums, sizes, np.random.default_rng(seed)), (2.5, 97.5))
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    binary = bool(np.isin(np.concatenate([one, two]), (0.0, 1.0)).all())
    p = mcnemar(better, worse) if binary else None
    return Difference(float(gain.mean()), float(low), float(high), better, worse, p, len(gain))


def _resampled(sums: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the mean of each resample, drawn in blocks that fit into memory."""
    count = len(sums)
    block = max(1, BLOCK // count)
    means = []
    for start in range(0, RESAMPLES, block):
        drawn = rng.integers(0, count, (min(block, RESAMPLES - start), count))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided p value of McNemar's exact test: as many gains as losses were expected by chance."""
    count, rarer = better + worse, min(better, worse)
    whole = math.lgamma(count + 1) - count * math.log(2)
    tail = sum(math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1)) for k in range(rarer + 1))
    return min(1.0, 2 * tail)


def _numbered(clusters: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
