"""Standard errors of the figures: against the spread of many runs, and bounds against what they bound."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.models import run_model
from riskmill.models.allocation import DEAL_FIGURES, DEAL_PERIODS, DEAL_TABLES, read_ids
from riskmill.models.contracts import annual_limit, reinstatement_fraction
from riskmill.models.metrics import BOUNDARY, RETURN_PERIODS, Tail, boundary_weights, largest_of, ranks_needed
from riskmill.models.pricing import PRICE_FIGURES, PriceErrors, Pricing, price_figures
from riskmill.outputs import Arrays
from riskmill.rollup_graph import DEALS
from riskmill.terms import Terms
from unit.test_models_tails import DEAL_COUNT, TRIALS, made, summary

LEVEL = 0.95


def measured(total: Any, tail: float = LEVEL) -> Arrays:
    """Return the measure of these annual losses, one occurrence a year."""
    years = np.arange(total.size, dtype=np.int32)
    yet = {"trial": years, "day": np.zeros(total.size, np.int16), "event": np.ones(total.size, np.int32)}
    some = np.flatnonzero(total)
    inputs = [
        Arrays({**yet, "trials": np.array([total.size], np.int64)}),
        Arrays({"row": some.astype(np.int32), "loss": total[some]}),
    ]
    return Arrays(run_model("measure", 3, {"blocks": 1, "tail": tail}, inputs))


def members(random: np.random.Generator, trials: int, loss_years: float) -> list[Any]:
    """Return annual losses of three members: two that lose together, one by itself; some years have no loss."""
    together = random.exponential(1.0, trials) * (random.random(trials) < loss_years)
    return [
        together * random.uniform(0.5, 1.5, trials),
        np.minimum(together, 1.0) * 2,
        random.exponential(2.0, trials) * (random.random(trials) < loss_years / 2),
    ]


@pytest.mark.parametrize("loss_years", [0.9, 0.06, 0.02], ids=["most years", "hardly the tail", "less than the tail"])
def test_errors_of_a_members_tail_are_those_of_many_runs(loss_years: float) -> None:
    """co-TVaR, marginal TVaR and share of TVaR over 400 independent runs: their spread, and the mean stated error."""
    random, trials = np.random.default_rng(8), 4_000
    found: list[list[tuple[float, ...]]] = [[], [], []]
    for _ in range(400):
        parts = members(random, trials, loss_years)
        tail = Tail(measured(parts[0] + parts[1] + parts[2]))
        for number, part in enumerate(parts):
            trial = np.flatnonzero(part)
            figures = tail.of_member(trial, part[trial])
            found[number].append((*figures, figures[0] / tail.tvar, tail.share_error(trial, part[trial])))
    for runs in found:
        table = np.array(runs)
        for estimate, error in ((0, 1), (2, 3), (4, 5)):
            assert table[:, error].mean() == pytest.approx(table[:, estimate].std(), rel=0.13)


def test_the_whole_of_a_group_has_the_error_of_its_tvar() -> None:
    """Manistre & Hancock's formula takes the boundary itself, and this the worst tenth's mean: a little less."""
    total = np.random.default_rng(2).pareto(3.0, 20_000)
    whole = measured(total)
    tail = Tail(whole)
    some = np.flatnonzero(total)
    co_tvar, error, marginal, marginal_error = tail.of_member(some, total[some])
    assert co_tvar == pytest.approx(whole["tvar"][0], rel=1e-12)
    assert marginal == pytest.approx(whole["tvar"][0], rel=1e-12)
    assert error == pytest.approx(whole["tvar_se"][0], rel=0.02)
    assert marginal_error == pytest.approx(whole["tvar_se"][0], rel=0.02)


def test_the_boundary_is_a_tenth_of_the_tail_and_years_that_tie_belong_together() -> None:
    total = np.concatenate([np.arange(1.0, 101.0), np.zeros(900)])
    weights = boundary_weights(measured(total, 0.9))
    assert np.flatnonzero(weights).tolist() == list(range(10))
    assert weights.sum() == pytest.approx(1)
    tied = boundary_weights(measured(np.minimum(total, 40.0), 0.9))
    assert np.flatnonzero(tied).tolist() == list(range(10))
    level = boundary_weights(measured(np.minimum(total, 5.0), 0.95))
    assert np.flatnonzero(level).tolist() == list(range(4, 100)), "all of the tail is one loss"
    assert BOUNDARY == 0.1


def test_a_tail_of_one_year_has_no_errors() -> None:
    tail = Tail(measured(np.arange(10.0), 0.9))
    co_tvar, error, marginal, marginal_error = tail.of_member(np.array([9]), np.array([4.0]))
    assert (co_tvar, marginal) == (4.0, 1.0)
    assert math.isnan(error)
    assert math.isnan(marginal_error)
    assert math.isnan(tail.share_error(np.array([9]), np.array([4.0])))


@pytest.mark.parametrize("sampled", [False, True])
def test_a_deals_own_figures_are_those_that_a_measure_of_it_alone_has(sampled: bool) -> None:
    """AAL, sd, probability of a loss, tail and exceedance figures, with their errors and limits."""
    outputs = made(sampled)
    yet, table = outputs["simulate_years years block 0"], outputs[DEALS]
    names = read_ids(table["deal_ids"])
    assert len(names) == DEAL_COUNT
    for number, deal in enumerate(names):
        alone = run_model("measure", 3, {"blocks": 1}, [yet, outputs[f"price_deal deal {deal} block 0"]])
        for name in {"aal", "sd", "sd_se", "prob_loss", "prob_loss_low", "prob_loss_high", "tvar", "tvar_se"}:
            assert name in DEAL_FIGURES
            assert table[name][number] == pytest.approx(alone[name][0], rel=1e-9), name
        for name in DEAL_TABLES:
            wanted = [alone[name][RETURN_PERIODS.index(period)] for period in DEAL_PERIODS]
            assert table[name][number].tolist() == pytest.approx(wanted, rel=1e-9, nan_ok=True), name


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=60),
    st.integers(1, 80),
)
def test_the_largest_losses_are_found_without_sorting_all(losses: list[float], count: int) -> None:
    expected = sorted([*losses, *([0.0] * count)], reverse=True)[:count]
    assert largest_of(np.array(losses), count).tolist() == expected


def test_an_exceedance_table_reads_no_more_ranks_than_it_says() -> None:
    """All trials, or just as many of the worst: the same figures."""
    for trials in (1, 99, 100, 250, 1_000, 20_000):
        needed = ranks_needed(trials, DEAL_PERIODS)
        assert needed <= trials
        if trials == 20_000:
            assert needed < 400


def test_the_net_tails_errors_are_those_of_the_deals_losses_in_it() -> None:
    """By brute force from what outwards contracts leave of each occurrence; a group's is bounded by the sum of its
    deals', and by the whole's with that of all other deals."""
    outputs = made()
    yet, top = outputs["simulate_years years block 0"], outputs["measure/net/all"]
    tail, result = Tail(top), summary(False)
    above = outputs["retained tail after 3 sets of outwards contracts block 0"]
    part = np.ones(yet["trial"].size)
    part[above["row"]] = above["part"]
    deals = {each.deal_id: each for each in result.deals}
    for name in ("D0", "D1", "D2", "D3"):
        priced = outputs[f"price_deal deal {name} block 0"]
        losses = np.bincount(yet["trial"][priced["row"]], priced["loss"] * part[priced["row"]], minlength=TRIALS)
        some = np.flatnonzero(losses * tail.weight)
        co_tvar, error, *_ = tail.of_member(some, losses[some])
        assert deals[name].net_co_tvar == pytest.approx(co_tvar, rel=1e-9)
        assert deals[name].net_co_tvar_se == pytest.approx(error, rel=1e-9)
    groups = {group.group_id: group for group in result.groups if group.perspective == "net"}
    east = sum(deals[name].net_co_tvar_se or 0 for name in ("D0", "D1", "D2", "D3"))
    others = sum(deal.net_co_tvar_se or 0 for name, deal in deals.items() if name not in ("D0", "D1", "D2", "D3"))
    whole = groups["all"].tvar_se
    assert whole is not None
    assert groups["east"].co_tvar_se == pytest.approx(min(east, whole + others))
    assert groups["all"].co_tvar_se == groups["all"].tvar_se


def test_every_estimate_of_a_summary_has_an_error_or_limits() -> None:
    """Of groups, perils, deals and layers: nothing that is estimated stands alone, in any perspective."""
    result = summary(False)
    for group in result.groups:
        for name in ("aal", "sd", "tvar", *(("co_tvar",) if group.perspective != "ceded" else ())):
            assert getattr(group, f"{name}_se") is not None, (group.group_id, group.perspective, name)
        assert group.prob_loss_low is not None
        for peril in group.perils:
            for name in ("aal", "sd", "tvar", "co_tvar", "marginal_tvar"):
                assert getattr(peril, f"{name}_se") >= 0, (group.group_id, peril.peril, name)
            assert (peril.prob_loss_low or 0) <= (peril.prob_loss or 0) <= (peril.prob_loss_high or 0)
            assert peril.ep[0].aep_tvar_se is not None
        if group.perspective == "gross":
            assert group.marginal_tvar_se is not None
    for deal in result.deals:
        for name in ("aal", "sd", "tvar", "co_tvar", "share_of_tvar", "marginal_tvar", "net_co_tvar"):
            assert getattr(deal, f"{name}_se") >= 0, (deal.deal_id, name)
        assert (deal.prob_loss_low or 0) < (deal.prob_loss or 0) < (deal.prob_loss_high or 0)
        assert [point.return_period for point in deal.ep] == [*DEAL_PERIODS]
    for layer in result.layers:
        for name in ("expected_loss", "sd", "expected_reinstatement_premium", "technical_premium", "risk_load"):
            assert getattr(layer, f"{name}_se") >= 0, (layer.layer_id, name)


# ---- layers: bounds from their sums


LAYERS = {
    "one reinstatement": {"occurrence_limit": 10.0, "reinstatements": (1.0,), "premium": 3.0},
    "two, falling": {"occurrence_limit": 10.0, "reinstatements": (1.0, 0.5), "premium": 3.0, "participation": 0.3},
    "unlimited": {"occurrence_limit": 10.0, "premium": 3.0},
    "aggregate": {"occurrence_limit": 10.0, "aggregate_limit": 15.0, "reinstatements": (0.25, 0.75)},
}


def annual_losses(terms: Terms, random: np.random.Generator, trials: int) -> Any:
    year = np.repeat(np.arange(trials), random.poisson(0.4, trials))
    losses = np.minimum(random.exponential(8.0, year.size), terms.occurrence_limit or math.inf)
    return np.minimum(np.bincount(year, losses, minlength=trials), annual_limit(terms))


@pytest.mark.parametrize("pricing", [Pricing(), Pricing(sd_load=0.3), Pricing(sd_load=0.1, fixed_expense=1.0)])
@pytest.mark.parametrize("name", LAYERS)
def test_errors_of_a_layer_are_at_least_the_spread_of_many_runs_and_not_far_from_it(
    name: str, pricing: Pricing
) -> None:
    """300 runs of 2,000 years: every stated error covers the spread, at the most 2.5 times (the sd's 4.5)."""
    random = np.random.default_rng(5)
    terms = Terms(type="CXL", **LAYERS[name])
    runs = []
    for _ in range(300):
        annual = annual_losses(terms, random, 2_000)
        used = reinstatement_fraction(terms, annual) if terms.reinstatements else np.zeros(1)
        ours = terms.share * annual
        stats = np.array([annual.size, annual.sum(), (annual**2).sum(), np.count_nonzero(annual), 0, used.sum()])
        # what allocate knows of a deal of this layer and another one, that at times loses as much again
        other = ours * (random.random(annual.size) < 0.5)
        known = PriceErrors(fourth_power=float(((ours + other) ** 4).mean()))
        found = price_figures(terms, stats, 0.1, pricing, 0.0, known)
        runs.append(dict(zip(PRICE_FIGURES, found.tolist(), strict=True)))
    for figure in ("expected_loss", "sd", "expected_reinstatement_premium", "loss_on_line", "technical_premium"):
        spread = float(np.std([run[figure] for run in runs]))
        stated = float(np.mean([run[f"{figure}_se"] for run in runs]))
        factor = 4.5 if figure == "sd" else 2.5
        assert spread * 0.92 <= stated <= max(factor * spread, 1e-12), (figure, spread, stated)


@given(st.integers(0, 2**32), st.sampled_from(sorted(LAYERS)), st.integers(2, 200))
def test_the_bound_of_a_layers_sd_is_above_the_formulas_error(seed: int, name: str, trials: int) -> None:
    terms = Terms(type="CXL", **LAYERS[name])
    annual = annual_losses(terms, np.random.default_rng(seed), trials)
    stats = np.array([trials, annual.sum(), (annual**2).sum(), np.count_nonzero(annual), 0, 0.0])
    ours = terms.share * annual
    known = PriceErrors(fourth_power=float((ours**4).mean()))
    figures = price_figures(terms, stats, 0.0, Pricing(), 0.0, known)
    found = dict(zip(PRICE_FIGURES, figures.tolist(), strict=True))
    fourth, sd = float(((ours - ours.mean()) ** 4).mean()), float(ours.std(ddof=1))
    exact = math.sqrt(max(fourth - sd**4, 0) / trials) / (2 * sd) if sd > 0 else 0.0
    assert found["sd_se"] >= exact * (1 - 1e-9) - 1e-9


def test_a_layer_that_is_all_of_its_deal_has_the_deals_error_of_the_sd() -> None:
    """D2 has one layer: no bound is needed. D0 has two: theirs are bounds."""
    result = summary(False)
    deals = {each.deal_id: each for each in result.deals}
    layers = {each.layer_id: each for each in result.layers}
    assert layers["D2-0"].sd == pytest.approx(deals["D2"].sd, rel=1e-6)
    assert layers["D2-0"].sd_se == deals["D2"].sd_se
    assert (layers["D0-0"].sd_se or 0) > 0
    assert layers["D0-0"].sd_se != deals["D0"].sd_se


def test_an_error_of_nothing_known_is_undefined_where_there_is_no_limit() -> None:
    found = price_figures(Terms(type="QS"), np.array([4.0, 6.0, 20.0, 2, 0, 0]), 0.0)
    assert math.isnan(dict(zip(PRICE_FIGURES, found.tolist(), strict=True))["sd_se"])
