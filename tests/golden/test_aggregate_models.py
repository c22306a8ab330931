"""Annual terms on compound distributions: the engine against Panjer's recursion and formulae of the literature.

Two ways, both without the engine's own arithmetic. *Exact*: a binomial number of events with four equally likely
losses has so few outcomes that every sequence of events stands in the year-event table as often as it is probable, so
figures agree to rounding. *Simulated*: `simulate_years` draws Poisson, negative binomial and binomial years, and
figures agree within five standard errors.
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from riskmill.models import run_model
from riskmill.models.pricing import LAYER_STATS, PRICE_FIGURES, price_figures
from riskmill.outputs import Arrays
from riskmill.terms import Terms

# ---- Panjer (1981), Recursive evaluation of a family of compound distributions; Loss Models, theorem 9.8


def panjer(a: float, b: float, none: float, severity: Sequence[float], most: int) -> list[float]:
    """Return P(S = s), s = 0 .. most, of N losses, P(N = k) / P(N = k - 1) = a + b / k and P(N = 0) = `none`.

    `severity[x]` is the probability of a loss of x; a loss of nothing has none.
    """
    assert severity[0] == 0
    found = [none]
    for s in range(1, most + 1):
        reach = range(1, min(s, len(severity) - 1) + 1)
        found.append(sum((a + b * x / s) * severity[x] * found[s - x] for x in reach))
    return found


def expected(probability: Sequence[float], of: Any) -> float:
    """Return E[of(S)]."""
    return math.fsum(part * of(s) for s, part in enumerate(probability))


def layer(total: float, deductible: float, limit: float) -> float:
    return min(max(total - deductible, 0.0), limit)


# ---- exact: three trials with probability 1/2, losses of 1, 2, 3 or 6 alike

LOSSES = (1, 2, 3, 6)
DRAWS = 3
#: binomial, m = 3, q = 1/2: a = -q / (1 - q), b = (m + 1) q / (1 - q), P(0) = (1 - q)^m (Loss Models, appendix B)
BINOMIAL = panjer(-1.0, 4.0, 0.125, [0, 0.25, 0.25, 0.25, 0, 0, 0.25], 18)


@lru_cache(maxsize=1)
def every_year() -> tuple[Arrays, Arrays]:
    """Return the ELT and a YET in which each sequence of events stands as often as it is probable, in 512 trials."""
    years: list[tuple[int, ...]] = []
    for count in range(DRAWS + 1):
        for sequence in product(range(1, 5), repeat=count):
            years += [sequence] * (math.comb(DRAWS, count) * 4 ** (DRAWS - count))
    assert len(years) == 8 * 64
    yet = {
        "trial": np.repeat(np.arange(len(years), dtype=np.int32), [len(year) for year in years]),
        "day": np.array([day for year in years for day in range(len(year))], np.int16),
        "event": np.array([event for year in years for event in year], np.int32),
        "trials": np.array([len(years)], np.int64),
    }
    elt = {"event": np.arange(1, 5, dtype=np.int32), "mean": np.array(LOSSES, np.float64)}
    return Arrays(elt), Arrays(yet)


def priced(*layers: Terms) -> list[dict[str, float]]:
    """Return the price figures of layers on every year."""
    params = {"layers": [terms.model_dump() for terms in layers]}
    stats = run_model("price_deal", 1, params, [*every_year()])["layer_stats"]
    return [
        dict(zip(PRICE_FIGURES, price_figures(terms, row, 0.0).tolist(), strict=True))
        for terms, row in zip(layers, stats, strict=True)
    ]


def test_the_recursion_is_the_distribution_of_the_years() -> None:
    elt, yet = every_year()
    annual = np.bincount(yet["trial"], np.array(LOSSES)[yet["event"] - 1], minlength=512)
    assert np.bincount(annual.astype(int), minlength=19) / 512 == pytest.approx(BINOMIAL, abs=1e-15)
    assert elt["mean"].sum() == 12


def test_net_stop_loss_premiums_are_those_of_the_recursion() -> None:
    """Loss Models, 9.3: E[(S - d)+] falls from d to d + 1 by 1 - F(d), and begins at E[S] = 4.5."""
    found = priced(*(Terms(type="AXL", aggregate_deductible=float(d)) for d in range(18)))
    premium = 4.5
    for d, figures in enumerate(found):
        assert figures["expected_loss"] == pytest.approx(premium, rel=1e-12)
        assert figures["expected_loss"] == pytest.approx(expected(BINOMIAL, lambda s, d=d: max(s - d, 0)), rel=1e-12)
        assert figures["prob_attach"] == pytest.approx(sum(BINOMIAL[d + 1 :]), rel=1e-12)
        premium -= sum(BINOMIAL[d + 1 :])
    assert premium == pytest.approx(0, abs=1e-12)


def test_a_stop_loss_has_the_moments_and_the_exhaustion_of_the_recursion() -> None:
    terms = Terms(type="SL", aggregate_deductible=4.0, aggregate_limit=5.0)
    (figures,) = priced(terms)
    mean = expected(BINOMIAL, lambda s: layer(s, 4, 5))
    square = expected(BINOMIAL, lambda s: layer(s, 4, 5) ** 2)
    assert figures["expected_loss"] == pytest.approx(mean, rel=1e-12)
    assert figures["sd"] == pytest.approx(math.sqrt((square - mean * mean) * 512 / 511), rel=1e-12)
    # 9 is reached exactly in some years: reaching the limit is to exhaust it.
    assert BINOMIAL[9] > 0
    assert figures["prob_exhaust"] == pytest.approx(sum(BINOMIAL[9:]), rel=1e-12)


def test_an_annual_aggregate_deductible_and_a_loss_corridor_of_bear_and_nemlick() -> None:
    """Bear & Nemlick (1990), Pricing the Impact of Adjustable Features and Loss Sharing Provisions.

    Both are integrals of the aggregate distribution: the deductible saves E[S ^ d]; a corridor from c to d in which the
    cedant keeps half saves half of E[S ^ d] - E[S ^ c]. A corridor is three layers of one deal, the middle one at half.
    """

    def limited(amount: float) -> float:
        return expected(BINOMIAL, lambda s: min(s, amount))

    whole, deductible = priced(Terms(type="QS"), Terms(type="AXL", aggregate_deductible=3.0))
    assert whole["expected_loss"] - deductible["expected_loss"] == pytest.approx(limited(3), rel=1e-12)
    corridor = priced(
        Terms(type="AXL", aggregate_limit=4.0),
        Terms(type="AXL", aggregate_deductible=4.0, aggregate_limit=3.0, participation=0.5),
        Terms(type="AXL", aggregate_deductible=7.0),
    )
    kept = (limited(7) - limited(4)) / 2
    assert sum(each["expected_loss"] for each in corridor) == pytest.approx(4.5 - kept, rel=1e-12)


#: What the losses leave of the layer 3 xs 1: 0, 1, 2 and 3 alike. Counts of losses above the retention: q = 3/8.
LAYER = panjer(-0.6, 2.4, 0.625**3, [0, 1 / 3, 1 / 3, 1 / 3], 9)


@pytest.mark.parametrize("deductible", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("charges", [(), (1.0,), (0.0, 0.5), (1.0, 1.0, 1.5)])
def test_reinstatements_cost_what_sundt_mata_and_walhin_and_paris_say(
    charges: tuple[float, ...], deductible: float
) -> None:
    """Sundt (1991), Mata (2000), Walhin & Paris (2001), with an annual deductible D, limit L and K reinstatements.

    The cover pays min((S - D)+, (K + 1) L); the k-th reinstatement gives back min((S - D - (k - 1) L)+, L). So
    P = E[cover] / (1 + sum_k c_k E[given back by k] / L): capacity and premium are of what is left after D.
    """
    limit = 3.0
    terms = Terms(
        type="CXL",
        occurrence_retention=1.0,
        occurrence_limit=limit,
        aggregate_deductible=deductible,
        reinstatements=charges,
        premium=2.0,
    )
    (figures,) = priced(terms)
    cover = expected(LAYER, lambda s: layer(s, deductible, (len(charges) + 1) * limit))
    back = math.fsum(
        charge * expected(LAYER, lambda s, k=k: layer(s, deductible + k * limit, limit)) / limit
        for k, charge in enumerate(charges)
    )
    assert figures["expected_loss"] == pytest.approx(cover, rel=1e-12)
    assert figures["expected_reinstatement_premium"] == pytest.approx(2.0 * back, rel=1e-12, abs=1e-15)
    assert figures["technical_premium"] == pytest.approx(cover / (1 + back), rel=1e-12)


def test_an_aggregate_limit_that_is_tighter_than_the_reinstatements_bounds_what_they_give_back() -> None:
    """With 9 of capacity by two reinstatements and an aggregate limit of 4, the first gives 3 back and the second 1."""
    terms = Terms(
        type="CXL",
        occurrence_retention=1.0,
        occurrence_limit=3.0,
        aggregate_limit=4.0,
        reinstatements=(1.0, 0.5),
        premium=6.0,
    )
    (figures,) = priced(terms)
    back = expected(LAYER, lambda s: min(s, 3) / 3 + 0.5 * layer(s, 3, 1) / 3)
    assert figures["expected_loss"] == pytest.approx(expected(LAYER, lambda s: min(s, 4)), rel=1e-12)
    assert figures["expected_reinstatement_premium"] == pytest.approx(6 * back, rel=1e-12)
    assert figures["prob_exhaust"] == pytest.approx(sum(LAYER[4:]), rel=1e-12)


# ---- simulated

TRIALS = 100_000
#: rates of events that cost 1, 2 and 3
RATES = (0.2, 0.3, 0.3)
SEVERITY = (0.0, 0.25, 0.375, 0.375)
MEAN = 0.8


@lru_cache(maxsize=3)
def simulated(frequency: str, variance_to_mean: float) -> tuple[Arrays, Arrays]:
    """Return the ELT and simulated years of three events of one peril."""
    laws = ["poisson", "negative_binomial", "binomial"]
    catalogue = {
        "event": np.array([1, 2, 3], np.int32),
        "rate": np.array(RATES),
        "peril": np.zeros(3, np.int32),
        "frequency": np.array([laws.index(frequency)], np.int32),
        "variance_to_mean": np.array([variance_to_mean]),
        "season": np.ones((1, 12)),
        "peril_names": np.frombuffer(json.dumps(["storm"]).encode(), np.uint8),
    }
    params = {"seed": 20, "first_trial": 0, "trials": TRIALS}
    yet = Arrays(run_model("simulate_years", 1, params, [Arrays(catalogue)]))
    return Arrays({"event": catalogue["event"], "mean": np.array([1.0, 2.0, 3.0])}), yet


def law(frequency: str, variance_to_mean: float) -> list[float]:
    """Return P(S = s) by the recursion, from the parameters of Loss Models, appendix B."""
    if frequency == "poisson":
        return panjer(0.0, MEAN, math.exp(-MEAN), SEVERITY, 80)
    if frequency == "negative_binomial":
        beta = variance_to_mean - 1
        r = MEAN / beta
        a = beta / (1 + beta)
        return panjer(a, (r - 1) * a, (1 + beta) ** -r, SEVERITY, 200)
    draws = round(MEAN / (1 - variance_to_mean))
    q = MEAN / draws
    return panjer(-q / (1 - q), (draws + 1) * q / (1 - q), (1 - q) ** draws, SEVERITY, 3 * draws)


def test_the_recursion_gives_the_published_table_of_bowers() -> None:
    """Bowers et al., Actuarial Mathematics, the compound Poisson example with 0.8 losses of 1, 2 and 3 a year."""
    table = [0.449329, 0.089866, 0.143785, 0.162358, 0.049905, 0.047360, 0.030923]
    assert law("poisson", 1.0)[:7] == pytest.approx(table, abs=2e-6)


@pytest.mark.parametrize(
    ("frequency", "variance_to_mean"), [("poisson", 1.0), ("negative_binomial", 1.75), ("binomial", 0.6)]
)
def test_simulated_years_have_the_compound_distribution_of_the_recursion(
    frequency: str, variance_to_mean: float
) -> None:
    elt, yet = simulated(frequency, variance_to_mean)
    probability = law(frequency, variance_to_mean)
    assert math.fsum(probability) == pytest.approx(1, abs=1e-9)
    annual = np.bincount(yet["trial"], elt["mean"][yet["event"] - 1], minlength=TRIALS).astype(int)
    found = np.bincount(annual, minlength=len(probability)) / TRIALS
    for s in range(min(8, len(probability))):
        error = math.sqrt(probability[s] * (1 - probability[s]) / TRIALS)
        assert abs(found[s] - probability[s]) < 5 * error
    covers = [(0.0, math.inf, ()), (2.0, math.inf, ()), (3.0, 4.0, ()), (1.0, math.inf, (1.0, 0.5))]
    for deductible, limit, charges in covers:
        terms = Terms(
            type="CXL",
            occurrence_limit=3.0 if charges else None,
            aggregate_deductible=deductible,
            aggregate_limit=None if limit == math.inf else limit,
            reinstatements=charges or None,
            premium=1.0,
        )
        stats = run_model("price_deal", 1, {"layers": [terms.model_dump()]}, [elt, yet])["layer_stats"][0]
        figures = dict(zip(PRICE_FIGURES, price_figures(terms, stats, 0.0).tolist(), strict=True))
        capacity = min(limit, 9.0 if charges else math.inf)
        mean = expected(probability, lambda s, d=deductible, c=capacity: layer(s, d, c))
        square = expected(probability, lambda s, d=deductible, c=capacity: layer(s, d, c) ** 2)
        assert abs(figures["expected_loss"] - mean) < 5 * figures["expected_loss_se"]
        assert figures["sd"] == pytest.approx(math.sqrt(square - mean * mean), rel=0.03)
        back = math.fsum(
            charge * expected(probability, lambda s, d=deductible + 3.0 * k: layer(s, d, 3.0)) / 3.0
            for k, charge in enumerate(charges)
        )
        assert figures["expected_reinstatement_premium"] == pytest.approx(back, rel=0.03, abs=1e-12)
        assert stats[LAYER_STATS.index("trials")] == TRIALS
