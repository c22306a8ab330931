"""Answers that others published, and closed forms, each with its source.

A continuous law stands as equally likely years, each with the law's mean within its slice of probability, so that the
mean is exact and a kink is off by less than one slice.
"""

import math
from typing import Any

import numpy as np
import pytest

from riskmill.models import run_model
from riskmill.models.metrics import RETURN_PERIODS
from riskmill.models.pricing import LAYER_STATS, PRICE_FIGURES, price_figures
from riskmill.outputs import Arrays
from riskmill.terms import Terms

SLICES = 50_000


def pareto(alpha: float, theta: float) -> Any:
    """Return the mean of a Pareto law (two parameters) in each slice, from E[X; X > x] = S(x) (a x + t) / (a - 1)."""
    survival = 1 - np.arange(SLICES) / SLICES
    loss = theta * (survival ** (-1 / alpha) - 1)
    beyond = np.append(survival * (alpha * loss + theta) / (alpha - 1), 0.0)
    return -np.diff(beyond) * SLICES


def one_loss_a_year(losses: Any) -> tuple[Arrays, Arrays]:
    """Return an ELT and a YET: every loss in a year of its own."""
    event = np.arange(1, losses.size + 1, dtype=np.int32)
    elt = Arrays({"event": event, "mean": losses})
    trial = np.arange(losses.size, dtype=np.int32)
    yet = {"trial": trial, "day": np.zeros(losses.size, np.int16), "event": event}
    return elt, Arrays({**yet, "trials": np.array([losses.size], np.int64)})


def price(losses: Any, **terms: Any) -> dict[str, float]:
    """Return the price figures of one layer."""
    layer = Terms(type="CXL", **terms)
    priced = run_model("price_deal", 1, {"layers": [layer.model_dump()]}, [*one_loss_a_year(losses)])
    assert priced["layer_stats"][0, LAYER_STATS.index("trials")] == losses.size
    return dict(zip(PRICE_FIGURES, price_figures(layer, priced["layer_stats"][0], 0.0).tolist(), strict=True))


def test_ordinary_and_franchise_deductibles_of_loss_models() -> None:
    """Klugman, Panjer & Willmot, Loss Models, examples 8.1-8.4: Pareto, alpha 3, theta 2,000, a deductible of 500.

    Mean 1,000, E[X ^ 500] = 360, P(X > 500) = 0.512. Ordinary: 640 a loss, 1,250 a payment; franchise: 896 and 1,750;
    the loss elimination ratio is 0.36.
    """
    losses = pareto(3, 2000)
    assert losses.mean() == pytest.approx(1000, rel=1e-9)
    ordinary = price(losses, occurrence_retention=500)
    assert ordinary["prob_attach"] == pytest.approx(0.512, abs=2 / SLICES)
    assert ordinary["expected_loss"] == pytest.approx(640, rel=1e-6)
    assert ordinary["expected_loss"] / ordinary["prob_attach"] == pytest.approx(1250, rel=1e-4)
    franchise = price(losses, franchise_deductible=500)
    assert franchise["expected_loss"] == pytest.approx(896, rel=1e-4)
    assert franchise["expected_loss"] / franchise["prob_attach"] == pytest.approx(1750, rel=1e-4)
    assert 1 - ordinary["expected_loss"] / losses.mean() == pytest.approx(0.36, rel=1e-5)


def test_a_policy_limit_and_inflation_of_loss_models() -> None:
    """Loss Models, examples 8.5 and 8.6: the same law; a limit of 3,000; 10% of inflation multiplies theta.

    E[X ^ 3000] = 840, after inflation 903.11, and the deductible of 500 leaves 1,100 (2,200 / 2,700)^2 = 730.32.
    """
    assert price(pareto(3, 2000), occurrence_limit=3000)["expected_loss"] == pytest.approx(840, rel=1e-6)
    inflated = pareto(3, 2200)
    assert price(inflated, occurrence_limit=3000)["expected_loss"] == pytest.approx(903.11, abs=0.006)
    assert price(inflated, occurrence_retention=500)["expected_loss"] == pytest.approx(730.32, abs=0.006)


def test_an_excess_layer_of_a_pareto_law() -> None:
    """Clark, Basics of Reinsurance Pricing (1996): a layer costs the difference of limited expected values.

    E[X ^ x] = theta / (alpha - 1) (1 - (theta / (x + theta))^(alpha - 1)).
    """
    alpha, theta, retention, limit = 2.5, 1_000.0, 4_000.0, 6_000.0

    def limited(amount: float) -> float:
        return theta / (alpha - 1) * (1 - (theta / (amount + theta)) ** (alpha - 1))

    found = price(pareto(alpha, theta), occurrence_retention=retention, occurrence_limit=limit)
    assert found["expected_loss"] == pytest.approx(limited(retention + limit) - limited(retention), rel=5e-6)
    assert found["prob_attach"] == pytest.approx((theta / (theta + retention)) ** alpha, abs=2 / SLICES)
    assert found["prob_exhaust"] == pytest.approx((theta / (theta + retention + limit)) ** alpha, abs=2 / SLICES)


@pytest.mark.parametrize("charges", [(), (1.0,), (1.0, 1.0), (0.0, 0.5, 1.0)])
def test_total_losses_that_are_poisson_cost_what_sundt_says(charges: tuple[float, ...]) -> None:
    """Sundt (1991), Walhin & Paris (2001): P (1 + sum_j c_j E[used_j] / L) = E[A], here in closed form.

    If every event takes the whole limit L and their number N is Poisson, the year recovers L min(N, K + 1) with K
    reinstatements, and the j-th is used with probability P(N >= j).
    """
    rate, trials, limit = 0.7, 200_000, 10.0
    probability = [math.exp(-rate) * rate**k / math.factorial(k) for k in range(9)]
    counts = [round(part * trials) for part in probability]
    counts[0] += trials - sum(counts)
    number = np.repeat(np.arange(9), counts)
    trial = np.repeat(np.arange(trials, dtype=np.int32), number)
    yet = Arrays(
        {
            "trial": trial,
            "day": np.zeros(trial.size, np.int16),
            "event": np.ones(trial.size, np.int32),
            "trials": np.array([trials], np.int64),
        }
    )
    elt = Arrays({"event": np.array([1], np.int32), "mean": np.array([50.0])})
    layer = Terms(type="CXL", occurrence_retention=20, occurrence_limit=limit, reinstatements=charges)
    stats = run_model("price_deal", 1, {"layers": [layer.model_dump()]}, [elt, yet])["layer_stats"][0]
    found = dict(zip(PRICE_FIGURES, price_figures(layer, stats, 0.0).tolist(), strict=True))

    def at_least(events: int) -> float:
        return 1 - sum(probability[:events])

    limits = len(charges) + 1
    expected = limit * sum(at_least(j) for j in range(1, limits + 1))
    reinstated = sum(charge * at_least(j) for j, charge in enumerate(charges, 1))
    assert found["expected_loss"] == pytest.approx(expected, rel=5e-5)
    assert found["technical_premium"] == pytest.approx(expected / (1 + reinstated), rel=5e-5)
    assert found["prob_attach"] == pytest.approx(at_least(1), rel=2e-5)
    assert found["prob_exhaust"] == pytest.approx(at_least(limits), rel=1e-3)


@pytest.mark.parametrize("law", ["exponential", "pareto"])
def test_tail_value_at_risk_of_the_exponential_and_the_pareto_law(law: str) -> None:
    """Loss Models, 3.5, in closed form.

    Exponential: VaR = -theta ln(1 - p), TVaR = VaR + theta. Pareto: VaR = theta ((1 - p)^(-1/a) - 1),
    TVaR = VaR + (VaR + theta) / (a - 1).
    """
    theta, alpha = 500.0, 3.0
    if law == "pareto":
        losses = pareto(alpha, theta)
    else:
        survival = 1 - np.arange(SLICES) / SLICES
        beyond = np.append(survival * (theta - theta * np.log(survival)), 0.0)
        losses = -np.diff(beyond) * SLICES
    _, yet = one_loss_a_year(losses)
    yelt = Arrays({"row": np.arange(losses.size, dtype=np.int32), "loss": losses})
    measured = run_model("measure", 3, {"blocks": 1}, [yet, yelt])
    for period in (10, 100, 250):
        at = RETURN_PERIODS.index(period)
        var = theta * (period ** (1 / alpha) - 1) if law == "pareto" else theta * math.log(period)
        tvar = var + ((var + theta) / (alpha - 1) if law == "pareto" else theta)
        for name in ("oep", "aep"):
            assert measured[name][at] == pytest.approx(var, rel=4e-3)
            assert measured[f"{name}_tvar"][at] == pytest.approx(tvar, rel=1e-6)


def test_a_reinstatement_premium_as_to_amount_and_time_of_a_loss_late_in_the_year() -> None:
    """The textbook's form: premium x loss / limit x unexpired / year.

    A premium of 200,000 for 1,000,000 xs 500,000, one reinstatement at 100%; a loss of 750,000 to the layer on 20
    October (day 292, 73 days left with the day of the loss): 200,000 x 0.75 = 150,000 as to amount, x 73 / 365 =
    30,000 as to time as well.
    """
    elt = Arrays({"event": np.array([1], np.int32), "mean": np.array([1_250_000.0])})
    days = {"trial": np.zeros(1, np.int32), "day": np.array([292], np.int16), "event": np.ones(1, np.int32)}
    yet = Arrays({**days, "trials": np.ones(1, np.int64)})
    terms = {
        "type": "CXL",
        "occurrence_retention": 500_000.0,
        "occurrence_limit": 1_000_000.0,
        "reinstatements": [1.0],
        "premium": 200_000.0,
    }
    for basis, premium in (("amount", 150_000), ("amount_and_time", 30_000)):
        layer = Terms.model_validate({**terms, "reinstatement_basis": basis})
        stats = run_model("price_deal", 1, {"layers": [layer.model_dump()]}, [elt, yet])["layer_stats"][0]
        found = dict(zip(PRICE_FIGURES, price_figures(layer, stats, 0.0).tolist(), strict=True))
        assert found["expected_reinstatement_premium"] == pytest.approx(premium)
