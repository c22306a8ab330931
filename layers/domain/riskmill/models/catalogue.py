"""Simulate years from an event catalogue: the year-event table that every deal shares.

Random numbers are counter-based (Philox, Salmon et al. 2011), keyed by the portfolio's seed and the peril's name and
counted by fixed chunks of RNG_TRIALS trials, so a trial is the same whatever the blocks, the workers or their order.
Counts of events are drawn from tables made in decimal arithmetic, so they are the same on every host.
"""

import json
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from riskmill.errors import ModelError
from riskmill.models.occurrences import F64, I64, need
from riskmill.models.registry import model
from riskmill.outputs import Array, Arrays

#: Trials of one random number stream.
RNG_TRIALS = 10_000

#: Trials of one block: accumulators of a block stay in a core's cache. A multiple of RNG_TRIALS.
BLOCK_TRIALS = 100_000

#: Days of the months; a contract year has 365 days, and day 0 is the first of January.
DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

#: Laws of a peril's annual number of events, by their number in the catalogue.
FREQUENCIES = ("poisson", "negative_binomial", "binomial")

#: Events of one peril in a year beyond which a catalogue is taken to be wrong (100,000 trials would need 12 GB).
MAX_MEAN_COUNT = 10_000

#: Entries of a count table; only an absurd variance needs more.
_MAX_TABLE = 2_000_000

#: Digits in which counts' probabilities are worked out: far more than a double holds, whatever cancels.
_DIGITS = 50

#: A uniform number has 53 bits, so probability beyond this is never drawn.
_NEVER_DRAWN = Decimal(2) ** -54

# What a stream is for; part of its counter.
_COUNTS, _DAYS, _EVENTS = range(3)


class SimulateYearsParams(BaseModel):
    """Parameters of simulate_years: the seed of all streams, and which trials to simulate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(ge=0, lt=2**63)
    first_trial: int = Field(ge=0, multiple_of=RNG_TRIALS)
    trials: int = Field(ge=1)


@model("simulate_years", version=1, params=SimulateYearsParams)
def simulate_years(params: SimulateYearsParams, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Return the year-event table of trials first_trial .. first_trial + trials - 1.

    Inputs: [catalogue]. Output: trial int32 (from 0 within the block), day int16 (0-364), event int32 (event id), all
    [occurrences], sorted by trial and day; trials int64 [1]. Occurrences of one day stay in the order of the
    catalogue's perils. Each peril's annual count follows its law with the mean of its events' rates and the stated
    variance to mean; its events are drawn in proportion to their rates; its days by the weights of the months, evenly
    within a month. Raises ModelError for a catalogue that is not one.
    """
    if len(inputs) != 1:
        raise ModelError(f"simulate_years takes a catalogue; it was given {len(inputs)} input(s)")
    perils = list(_perils(inputs[0]))
    chunks = [
        _simulate_chunk(perils, params.seed, params.first_trial // RNG_TRIALS + number, number * RNG_TRIALS)
        for number in range(-(-params.trials // RNG_TRIALS))
    ]
    trial, day, event = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    # The last chunk is drawn in full, so a trial does not depend on how many follow it.
    kept = int(np.searchsorted(trial, params.trials))
    return {
        "trial": trial[:kept].astype(np.int32),
        "day": day[:kept].astype(np.int16),
        "event": event[:kept].astype(np.int32),
        "trials": np.array([params.trials], np.int64),
    }


class _Peril:
    """What is drawn from for one peril: tables of cumulative probability."""

    def __init__(self, name: str, frequency: str, variance_to_mean: float, event: Array, rate: F64, season: F64):
        if not (rate.min() > 0 and rate.max() < np.inf):
            raise ModelError(f"peril {name}: an event's rate is not a number above 0")
        if not (season.min() >= 0 and 0 < season.max() < np.inf):
            raise ModelError(f"peril {name}: the weights of the months are not numbers from 0, one of them above it")
        self.stream = int.from_bytes(blake2b(b"peril\0" + name.encode(), digest_size=8).digest(), "little")
        self.event = event
        self.rates: F64 = np.cumsum(rate)
        try:
            self.counts = count_table(frequency, float(self.rates[-1]), variance_to_mean)
        except ModelError as error:
            raise ModelError(f"peril {name}: {error}") from error
        days = np.array(DAYS_IN_MONTH)
        self.days: F64 = np.cumsum(np.repeat(season / days, days))


def _perils(catalogue: Arrays) -> Iterator[_Peril]:
    need(catalogue, "catalogue", "event", "rate", "peril", "frequency", "variance_to_mean", "season", "peril_names")
    names: list[str] = json.loads(catalogue["peril_names"].tobytes())
    event, rate, peril = catalogue["event"], catalogue["rate"], catalogue["peril"]
    if not event.shape == rate.shape == peril.shape:
        raise ModelError("the catalogue's event, rate and peril differ in length")
    if event.size and (event[0] < 1 or not (event[1:] > event[:-1]).all()):
        raise ModelError("the catalogue's events are not sorted, unique and from 1")
    if peril.size and not 0 <= peril.min() <= peril.max() < len(names):
        raise ModelError(f"the catalogue has an event of a peril beyond its {len(names)}")
    if len(set(names)) != len(names) or catalogue["season"].shape != (len(names), len(DAYS_IN_MONTH)):
        raise ModelError("the catalogue's perils are not unique, or lack their months")
    for number, name in enumerate(names):
        its = np.flatnonzero(peril == number)
        law = int(catalogue["frequency"][number])
        if not 0 <= law < len(FREQUENCIES):
            raise ModelError(f"peril {name}: unknown frequency {law}")
        if its.size:
            variance_to_mean = float(catalogue["variance_to_mean"][number])
            season = catalogue["season"][number]
            yield _Peril(name, FREQUENCIES[law], variance_to_mean, event[its], rate[its], season)


def _uniforms(seed: int, stream: int, chunk: int, purpose: int, count: int) -> F64:
    """Return `count` numbers in [0, 1), multiples of 2^-53, of one stream."""
    philox = np.random.Philox(
        key=np.array([seed, stream], np.uint64), counter=np.array([0, 0, chunk, purpose], np.uint64)
    )
    return (philox.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _draw(table: F64, uniform: F64) -> I64:
    """Return positions drawn in proportion to the steps of a cumulative table; never one whose step is 0."""
    drawn = np.searchsorted(table, uniform * table[-1], side="right")
    # u x total may round up to the total itself: then the last position that has a step.
    positions: I64 = np.minimum(drawn, np.searchsorted(table, table[-1]))
    return positions


def _simulate_chunk(perils: Sequence[_Peril], seed: int, chunk: int, first: int) -> tuple[I64, I64, I64]:
    """Return trial (from `first`), day and event of one chunk of RNG_TRIALS trials, sorted by trial and day."""
    trials, days, events = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for peril in perils:
        # Not _draw: a count table ends at 1 and its steps are exact.
        count = np.searchsorted(peril.counts, _uniforms(seed, peril.stream, chunk, _COUNTS, RNG_TRIALS), side="right")
        trials.append(np.repeat(np.arange(RNG_TRIALS), count))
        drawn = trials[-1].size
        days.append(_draw(peril.days, _uniforms(seed, peril.stream, chunk, _DAYS, drawn)))
        events.append(peril.event[_draw(peril.rates, _uniforms(seed, peril.stream, chunk, _EVENTS, drawn))])
    trial, day = np.concatenate(trials), np.concatenate(days)
    order = np.argsort(trial * sum(DAYS_IN_MONTH) + day, kind="stable")
    return trial[order] + first, day[order], np.concatenate(events)[order]


@lru_cache(maxsize=256)
def count_table(frequency: str, mean: float, variance_to_mean: float) -> F64:
    """Return the cumulative probabilities P(count <= k), k = 0, 1, .., of an annual number of events; the last is 1.

    Each is the double nearest to the exact value. Poisson: variance_to_mean is not used. Negative binomial: v > 1,
    r = mean / (v - 1) and P(0) = v^-r. Binomial: v < 1; the number of draws is the integer nearest to mean / (1 - v)
    that the mean fits into, and the mean is kept. (Klugman, Panjer & Willmot, Loss Models, the (a, b, 0) class.)
    Raises ModelError for a mean or variance that the law does not have.
    """
    if not 0 < mean <= MAX_MEAN_COUNT:
        raise ModelError(f"{mean:g} events a year; above 0 and at most {MAX_MEAN_COUNT} can be simulated")
    with localcontext(Context(prec=_DIGITS, Emax=999_999, Emin=-999_999)):
        table: list[float] = []
        total = Decimal(0)
        for probability in islice(_count_probabilities(frequency, Decimal(mean), variance_to_mean), _MAX_TABLE):
            total += probability
            if 1 - total < _NEVER_DRAWN:
                cumulative = np.array([*table, 1.0])
                # The table is shared by whoever asks for it again.
                cumulative.flags.writeable = False
                return cumulative
            table.append(float(total))
    raise ModelError(f"{frequency} with mean {mean:g} and variance to mean {variance_to_mean:g} has too long a tail")


def _count_probabilities(frequency: str, mean: Decimal, variance_to_mean: float) -> Iterator[Decimal]:
    """Yield P(count = k), k = 0, 1, ..: P(k) / P(k - 1) = a + b / k."""
    if frequency == "poisson":
        probability, a, b = (-mean).exp(), Decimal(0), mean
    elif frequency == "negative_binomial":
        if not 1 < variance_to_mean < np.inf:
            raise ModelError(f"a negative binomial needs a variance to mean above 1, not {variance_to_mean:g}")
        ratio = Decimal(variance_to_mean)
        size = mean / (ratio - 1)
        a = 1 - 1 / ratio
        probability, b = (-size * ratio.ln()).exp(), (size - 1) * a
    elif frequency == "binomial":
        if not 0 <= variance_to_mean < 1:
            raise ModelError(f"a binomial needs a variance to mean from 0 to below 1, not {variance_to_mean:g}")
        fits = int(mean.to_integral_value(rounding="ROUND_CEILING"))
        draws = max(int((mean / (1 - Decimal(variance_to_mean))).to_integral_value(rounding="ROUND_HALF_EVEN")), fits)
        if mean == draws:
            # Every draw is a hit.
            yield from [Decimal(0)] * draws
            yield Decimal(1)
            return
        odds = mean / (draws - mean)
        probability, a, b = (1 - mean / draws) ** draws, -odds, (draws + 1) * odds
    else:
        raise ModelError(f"unknown frequency {frequency}; known: {', '.join(FREQUENCIES)}")
    number = 0
    while True:
        yield probability
        number += 1
        probability *= a + b / number
