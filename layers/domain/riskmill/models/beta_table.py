"""The table of beta quantiles that secondary uncertainty is drawn from, and what made it.

beta_table.npy is what `make_table` gives, by scipy, saved with numpy.save. The file is part of the package: scipy's
functions may differ in a last bit from host to host, a file does not. Jobs read the file and never scipy.

The uniform number u that a loss is drawn with is folded at one half: `t` is the distance from the nearer end (0 to
1/2). t has BINS bins, two an octave: fine at the ends, where the tails are. Within a bin the loss is linear in t, about
the beta's exact mean within the bin and with its exact variance within the bin as far as 0 and 1 allow, so the mean of
what is drawn is the beta's mean, whatever the number of bins.

Shapes: means 2^(-i/2 - 1), i = 0 .. MEANS - 1 (a mean above one half is the mirror image of one below) and normalised
standard deviations s = sd / sqrt(mean (1 - mean)) = 2^(-j/2), j = 0 .. SDS - 1; at s = 1 the law is two points.
"""

import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from riskmill.models.occurrences import F64

#: Bits of a uniform number, and of the smallest bin's edge: a uniform number's own resolution is 2^-32.
UNIFORM_BITS = 32
SMALLEST_BIN_BITS = 14

#: Bins on each side of one half: one of [0, 2^-18), then two an octave up to 1/2.
BINS = 1 + 2 * (UNIFORM_BITS - 1 - SMALLEST_BIN_BITS)

MEANS = 39
SDS = 27

FILE = "beta_table.npy"


def bin_edges() -> F64:
    """Return the edges of the bins [BINS + 1], t in units of 2^-32."""
    octaves = 2.0 ** np.arange(SMALLEST_BIN_BITS, UNIFORM_BITS - 1)
    return np.concatenate(([0.0], np.column_stack((octaves, octaves * 1.5)).ravel(), [2.0 ** (UNIFORM_BITS - 1)]))


def grid_means() -> F64:
    """Return the means of the table, falling from 1/2 [MEANS]."""
    return np.array([math.sqrt(0.5**i) / 2 for i in range(MEANS)])


def grid_sds() -> F64:
    """Return the normalised standard deviations of the table, falling from 1 [SDS]."""
    return np.array([math.sqrt(0.5**j) for j in range(SDS)])


@lru_cache(maxsize=1)
def beta_table() -> F64:
    """Return the table [MEANS, SDS, 2 sides, BINS, 2]: the mean within each bin, and how much the loss changes across.

    Losses are standardised: less their mean, over their standard deviation. Side 0 holds u < 1/2, where losses rise
    with t; on side 1 they fall with it. The mean of every shape is 0 to a double's rounding.
    """
    with files("riskmill.models").joinpath(FILE).open("rb") as file:
        table: F64 = np.load(file, allow_pickle=False).astype(np.float64)
    width = np.diff(bin_edges()) / 2.0**UNIFORM_BITS
    mean = np.add.reduce(np.add.reduce(table[..., 0] * width, axis=-1), axis=-1)
    table[..., 0] -= mean[:, :, None, None]
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def lines() -> np.ndarray[Any, np.dtype[np.complex128]]:
    """Return the table as lines in t (units of 2^-32), value at t = 0 and slope as one complex number, flat.

    Their order is [MEANS, SDS, 2, BINS], so the bins of a law's neighbours are at fixed distances.
    """
    table, edges = beta_table(), bin_edges()
    slope = table[..., 1] / np.diff(edges)
    found = np.empty(slope.shape, np.complex128)
    found.real, found.imag = table[..., 0] - slope * ((edges[:-1] + edges[1:]) / 2), slope
    return found.reshape(-1)


@lru_cache(maxsize=1)
def neighbour_correlations() -> tuple[F64, F64]:
    """Return the correlations of each law of the table with the next, for equal u: along the means, and the sds.

    Shapes [MEANS - 1, SDS] and [MEANS, SDS - 1].
    """
    table, width = beta_table(), np.diff(bin_edges()) / 2.0**UNIFORM_BITS

    def product(one: F64, other: F64) -> F64:
        within = one[..., 0] * other[..., 0] + one[..., 1] * other[..., 1] / 12
        total: F64 = np.add.reduce(np.add.reduce(within * width, axis=-1), axis=-1)
        return total

    return product(table[:-1], table[1:]), product(table[:, :-1], table[:, 1:])


def make_table() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Work the table out with scipy (not part of any job)."""
    from scipy.special import betainc, betaincinv

    t = bin_edges() / 2.0**UNIFORM_BITS
    width = np.diff(t)
    table = np.empty((MEANS, SDS, 2, BINS, 2))
    for i, mean in enumerate(grid_means()):
        for j, sd in enumerate(grid_sds()):
            size = 1 / sd**2 - 1
            a, b = mean * size, (1 - mean) * size
            second = mean * (a + 1) / (size + 1)
            if size == 0:
                # Two points: 1 with probability `mean`, else 0.
                up = np.minimum(t, mean)
                first_moments = np.array([np.zeros(t.size), up])
                second_moments = first_moments
            else:
                low, high = betaincinv(a, b, t), betaincinv(b, a, t)
                first_moments = mean * np.array([betainc(a + 1, b, low), betainc(b, a + 1, high)])
                second_moments = second * np.array([betainc(a + 2, b, low), betainc(b, a + 2, high)])
                # A quantile beyond what a double holds is 1 (or 0, whose moments are right as they are).
                whole = (high < 1e-290) & (t > 0)
                first_moments[1][whole] = second_moments[1][whole] = t[whole]
            within = np.diff(first_moments, axis=1) / width
            variance = np.diff(second_moments, axis=1) / width - within**2
            change = np.sqrt(12 * np.maximum(variance, 0.0))
            if size > 0:
                # Of two nearly equal numbers the difference says nothing; there the law is nearly even in the bin.
                ends = np.array([low, 1 - high])
                across = np.abs(np.diff(ends, axis=1))
                across[:, 0] = 2 * np.abs(within[:, 0] - ends[:, 1])
                change = np.where(variance > 1e-7 * within**2, change, across)
            change = np.minimum(change, 2 * np.minimum(within, 1 - within))
            deviation = sd * math.sqrt(mean * (1 - mean))
            table[i, j, :, :, 0] = (within - mean) / deviation
            table[i, j, :, :, 1] = np.maximum(change, 0.0) * np.array([[1.0], [-1.0]]) / deviation
    return table.astype(np.float32)
