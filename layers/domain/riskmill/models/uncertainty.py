"""Secondary uncertainty: the loss that an event causes is drawn from a beta law on 0 to the exposure.

Mean and standard deviation are the event loss table's; the total standard deviation is the independent part plus the
correlated part. A loss is drawn with the uniform number of its occurrence, shared by all deals, with the probability
sd_correlated / sd, and otherwise with one of its own. So every loss has exactly its own law; two deals' losses from
one occurrence move together with probability w1 w2 (w = sd_correlated / sd) and are independent otherwise, and the
covariance of two losses of one shape is sd_correlated1 x sd_correlated2.

Numbers are Philox words, counted by chunks of RNG_TRIALS trials: an ELT's n-th occurrence within a chunk has the n-th
word of the stream of (seed, ELT), whatever the blocks. One word is 32 bits for the loss and 32 to choose.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.errors import ModelError
from riskmill.models.beta_table import (
    BINS,
    MEANS,
    SDS,
    SMALLEST_BIN_BITS,
    UNIFORM_BITS,
    grid_means,
    grid_sds,
    lines,
    neighbour_correlations,
)
from riskmill.models.catalogue import RNG_TRIALS
from riskmill.models.occurrences import F64, I32, I64, check_elt, check_yet, index_yet, trials_of
from riskmill.outputs import Array, Arrays

#: What a stream is for, part of its counter; the catalogue's streams have 0 to 2.
_LOSSES = 3

#: Samples that are drawn at once, so that what is in between stays in a core's cache.
_AT_ONCE = 16_384

_FLOAT_EXPONENT_BIAS = 1023
#: A number at or above the smallest bin's edge, its bits shifted down to exponent and first digit, is above this.
_FIRST_BIN = (_FLOAT_EXPONENT_BIAS + SMALLEST_BIN_BITS) * 2 - 1
_DIGITS_BELOW = np.int64(51)

type Words = np.ndarray[Any, np.dtype[np.uint64]]


class Sampling(BaseModel):
    """How losses are sampled: the portfolio's seed, the block's first trial, the name of the ELT's own stream."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(ge=0, lt=2**63)
    first_trial: int = Field(ge=0, multiple_of=RNG_TRIALS)
    stream: str


@dataclass(frozen=True, slots=True)
class Laws:
    """The beta laws of events: each a mixture of four neighbours of the table that rise together."""

    mean: F64
    exposure: F64
    #: events whose loss is not certain; the others' laws are never drawn from
    uncertain: np.ndarray[Any, np.dtype[np.bool_]]
    #: probability that the number shared by all deals decides, in units of 2^-32
    shared: F64
    #: place of the first neighbour's bins on side 0 in the table, and 1 where the sides are exchanged (mean above 1/2)
    place: I64
    mirrored: I64
    #: what each of the four contributes, times its standardised loss [4, events]
    weights: F64


#: How far the four neighbours' bins are apart in the table: the next sd, the next mean, both.
_NEIGHBOURS = (0, 2 * BINS, SDS * 2 * BINS, (SDS + 1) * 2 * BINS)


def largest_losses(elt: Arrays) -> F64:
    """Return the largest loss that a sample of each event can be: the exposure, or the mean where that is certain."""
    laws = laws_of(elt)
    return np.where(laws.uncertain, laws.exposure, elt["mean"])


def standard_deviations(elt: Arrays) -> tuple[F64, F64]:
    """Return the independent and the correlated part of each event's standard deviation."""
    none = np.zeros(elt["mean"].size)
    return elt.get("sd_independent", none), elt.get("sd_correlated", none)


def laws_of(elt: Arrays) -> Laws:
    """Return the laws of an ELT's losses. Raises ModelError for an ELT whose losses cannot be sampled."""
    return elt.derive("uncertainty.laws", _laws)


def _laws(elt: Arrays) -> Laws:
    check_elt(elt)
    mean = elt["mean"]
    independent, correlated = standard_deviations(elt)
    sd = independent + correlated
    if sd.size and not (min(independent.min(), correlated.min()) >= 0 and sd.max() < np.inf):
        raise ModelError("the event loss table has a standard deviation that is negative or not a number")
    uncertain = (sd > 0) & (mean > 0)
    if uncertain.any() and "exposure" not in elt:
        raise ModelError("secondary uncertainty needs the exposures of an event loss table with standard deviations")
    exposure = elt.get("exposure", mean)
    if not (exposure[uncertain] > mean[uncertain]).all():
        raise ModelError("the event loss table has a mean loss that is not below its exposure")
    ratio = np.where(uncertain, mean, 1.0) / np.where(uncertain, exposure, 2.0)
    spread = np.where(uncertain, sd, 0.0) / np.where(uncertain, exposure, 1.0)
    if not (spread * spread < ratio * (1 - ratio)).all():
        raise ModelError("the event loss table has a standard deviation that no beta law on 0 to the exposure has")
    shared = np.divide(correlated, sd, out=np.zeros(sd.size), where=sd > 0) * 2.0**UNIFORM_BITS
    return beta_laws(mean, ratio, spread, exposure, shared, uncertain)


def beta_laws(mean: F64, ratio: F64, spread: F64, exposure: F64, shared: F64, uncertain: Array) -> Laws:
    """Return the laws with these means and deviations; `ratio` and `spread` are the two in parts of the exposure."""
    mirrored = ratio > 0.5
    part_lost = np.where(mirrored, 1 - ratio, ratio)
    means, sds = grid_means(), grid_sds()
    # Below the table's smallest mean the law of that mean is scaled down.
    scale = np.minimum(part_lost / means[-1], 1.0)
    part_lost, spread = part_lost / scale, spread / scale
    above = np.clip(np.searchsorted(-means, -part_lost, side="right") - 1, 0, MEANS - 2)
    high, low = means[above], means[above + 1]
    part = np.clip((high - part_lost) / (high - low), 0.0, 1.0)
    deviation_high, deviation_low = np.sqrt(high * (1 - high)), np.sqrt(low * (1 - low))
    by_mean, by_sd = neighbour_correlations()
    # The deviation of a mixture follows from that of the two laws and their correlation. Above s = 1 there is no law.
    first, second = (1 - part) * deviation_high, part * deviation_low
    wanted = spread / np.maximum(first + second, 1e-300)
    near = np.clip(np.searchsorted(-sds, -wanted, side="right") - 1, 0, SDS - 1)
    wanted = spread / np.sqrt(first * first + second * second + 2 * first * second * by_mean[above, near])
    wanted = np.minimum(wanted, 1.0)
    # Below the table's smallest s its law is drawn together about its mean.
    narrow = np.minimum(wanted / sds[-1], 1.0)
    wanted = np.divide(wanted, narrow, out=np.ones(wanted.size), where=narrow > 0)
    wide = np.clip(np.searchsorted(-sds, -wanted, side="right") - 1, 0, SDS - 2)
    step = _step(sds[wide], sds[wide + 1], by_sd[above, wide], wanted)
    size = np.where(mirrored, -1.0, 1.0) * narrow * scale * exposure
    weights = np.array(
        [
            size * first * (1 - step) * sds[wide],
            size * first * step * sds[wide + 1],
            size * second * (1 - step) * sds[wide],
            size * second * step * sds[wide + 1],
        ]
    )
    place = (above * SDS + wide) * (2 * BINS)
    return Laws(mean, exposure, uncertain, shared, place, mirrored.astype(np.int64), weights)


def _step(wide: F64, tight: F64, correlation: F64, wanted: F64) -> F64:
    """Return the part of the tighter law in the mixture of two that has the wanted deviation.

    The smaller root of (1 - x)^2 wide^2 + x^2 tight^2 + 2 x (1 - x) correlation wide tight = wanted^2.
    """
    shared = correlation * wide * tight
    square = wide * wide + tight * tight - 2 * shared
    half = wide * wide - shared
    root = np.sqrt(np.maximum(half * half - square * (wide * wide - wanted * wanted), 0.0))
    return np.clip((half - root) / square, 0.0, 1.0)


def draw(laws: Laws, event: I64, number: I64) -> F64:
    """Return losses of events (positions in `laws`) for 32-bit uniform numbers.

    A number's first bit is its side, the others its distance from the side's end. Losses rise (on the second side fall)
    with the number within each bin, and from bin to bin in the mean; ends of neighbouring bins may overlap.
    """
    t = (number & ((1 << (UNIFORM_BITS - 1)) - 1)).astype(np.float64)
    t += 0.5
    # Exponent and first digit of the distance name its bin.
    at = t.view(np.int64) >> _DIGITS_BELOW
    at -= _FIRST_BIN
    np.maximum(at, 0, out=at)
    side = number >> (UNIFORM_BITS - 1)
    side ^= laws.mirrored.take(event)
    side *= BINS
    at += side
    at += laws.place.take(event)
    loss = laws.mean.take(event)
    table = lines()
    for distance, weight in zip(_NEIGHBOURS, laws.weights, strict=True):
        line = table.take(at + distance)
        part = line.imag * t
        part += line.real
        part *= weight.take(event)
        loss += part
    # The four neighbours stay within 0 and the exposure but for rounding.
    np.maximum(loss, 0.0, out=loss)
    np.minimum(loss, laws.exposure.take(event), out=loss)
    return loss


def sample_losses(sampling: Sampling, elt: Arrays, yet: Arrays, row: I32, event: I64) -> F64:
    """Return the losses of the ELT's events (positions in it) that occur on sorted rows of the YET.

    A loss depends on the seed, the ELT's stream, its place among the ELT's occurrences of its chunk and nothing else:
    not on the block, nor on which rows are asked for. Raises ModelError for an ELT whose losses cannot be sampled.
    """
    laws = laws_of(elt)
    loss = elt["mean"][event]
    if not laws.uncertain.any():
        return loss
    check_yet(yet)
    words = _own_words(sampling, elt, yet, row)
    chosen = np.arange(row.size)
    if not laws.uncertain.all():
        chosen = np.flatnonzero(laws.uncertain[event])
        words = words[chosen]
    shared = yet.derive(
        f"uncertainty.shared.{sampling.seed}.{sampling.first_trial}", lambda arrays: _shared_words(sampling, arrays)
    )
    for begin in range(0, chosen.size, _AT_ONCE):
        part = chosen[begin : begin + _AT_ONCE]
        word, its = words[begin : begin + _AT_ONCE], event[part]
        number = (word & np.uint64(0xFFFFFFFF)).view(np.int64)
        choice = (word >> np.uint64(32)).view(np.int64)
        number = np.where(choice < laws.shared.take(its), shared.take(row[part]), number)
        loss[part] = draw(laws, its, number)
    return loss


def uniform_numbers(sampling: Sampling, elt: Arrays, yet: Arrays, row: I32) -> F64:
    """Return a uniform number in [0, 1), of 53 bits, for each of these sorted rows, all of them events of the ELT.

    A number depends on what a sampled loss depends on, and on nothing else (`sample_losses`).
    """
    check_elt(elt)
    check_yet(yet)
    numbers: F64 = (_own_words(sampling, elt, yet, row) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def _chunk_starts(yet: Arrays) -> I32:
    """Return where each chunk of trials begins in the YET, and its end."""
    return yet.derive("uncertainty.chunks", _find_chunks)


def _find_chunks(yet: Arrays) -> I32:
    chunks = -(-trials_of(yet) // RNG_TRIALS)
    starts: I32 = np.searchsorted(yet["trial"], (np.arange(chunks + 1) * RNG_TRIALS).astype(np.int32)).astype(np.int32)
    return starts


def _words(sampling: Sampling, stream: str, sizes: Array) -> Words:
    """Return the words of a stream, so many for each chunk of the block."""
    key = np.array([sampling.seed, _stream(stream)], np.uint64)
    first = sampling.first_trial // RNG_TRIALS
    return np.concatenate(
        [
            np.random.Philox(key=key, counter=np.array([0, 0, first + chunk, _LOSSES], np.uint64)).random_raw(int(size))
            for chunk, size in enumerate(sizes)
        ]
    )


def _stream(name: str) -> int:
    return int.from_bytes(blake2b(b"losses\0" + name.encode(), digest_size=8).digest(), "little")


def _shared_words(sampling: Sampling, yet: Arrays) -> I64:
    """Return the 32-bit number of every occurrence, which all deals share."""
    words = _words(sampling, "", np.diff(_chunk_starts(yet)))
    numbers: I64 = (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return numbers


def _own_words(sampling: Sampling, elt: Arrays, yet: Arrays, row: I32) -> Words:
    """Return the word of each of these rows: those of all the ELT's occurrences, in the order of time, then chosen."""
    index = index_yet(yet)
    every = np.sort(index.occurrences(index.slots(elt["event"])))
    words = _words(sampling, sampling.stream, np.diff(np.searchsorted(every, _chunk_starts(yet))))
    if every.size == row.size:
        return words
    wanted = np.zeros(yet["trial"].size, np.bool_)
    wanted[row] = True
    return words[wanted[every]]
