"""A whole rollup in one process: tails of deals, groups, layers and perils, gross and net, against brute force."""

import json
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.graph import JobGraph
from riskmill.models import run_model
from riskmill.models.allocation import read_ids
from riskmill.models.catalogue import RNG_TRIALS
from riskmill.models.metrics import Tail, proportion_interval, tail_mean, tvar_error, worst
from riskmill.models.pricing import Pricing
from riskmill.outputs import Arrays, encode
from riskmill.portfolio import Deal, Group, Layer, Outwards, Portfolio
from riskmill.publish import summarise
from riskmill.results import Run, Summary
from riskmill.rollup_graph import DEALS, groups_name, measure_name, rollup_graph
from riskmill.terms import Terms

EVENTS, DEAL_COUNT, TRIALS = 300, 9, 2_000
NUMBER = np.arange(EVENTS)
CATALOGUE = Arrays(
    {
        "event": (NUMBER + 1).astype(np.int32),
        "rate": np.full(EVENTS, 0.02),
        "peril": (NUMBER % 3).astype(np.int32),
        "frequency": np.array([0, 1, 0], np.int32),
        "variance_to_mean": np.array([1.0, 1.5, 1.0]),
        "season": np.ones((3, 12)) / 12,
        "peril_names": np.frombuffer(json.dumps(["quake", "storm", "frost"]).encode(), np.uint8),
    }
)


def elt(number: int) -> Arrays:
    event = np.arange(number % 4, EVENTS, 2 + number % 3)
    mean = 1.0 + (event * (131 + 17 * number) % 997)
    return Arrays(
        {
            "event": (event + 1).astype(np.int32),
            "mean": mean,
            "sd_independent": mean * 0.3,
            "sd_correlated": mean * 0.2,
            "exposure": mean * 4,
        }
    )


def deal(number: int) -> Deal:
    layers = [Terms(type="CXL", occurrence_retention=200, occurrence_limit=500, reinstatements=(1.0,), premium=50)]
    if number % 3 == 0:
        layers.append(Terms(type="AXL", aggregate_deductible=800, aggregate_limit=2_000, participation=0.4))
    if number % 3 == 1:
        layers = [Terms(type="QS", ceded_share=0.2)]
    return Deal(
        deal_id=f"D{number}",
        cedant="Gulf Mutual",
        business_unit="US",
        inception=date(2025, 1, 1),
        expiry=date(2025, 12, 31),
        currency="EUR" if number == 4 else "USD",
        elt=f"{number:032x}",
        layers=tuple(Layer(layer_id=f"D{number}-{at}", terms=terms) for at, terms in enumerate(layers)),
    )


def book(**changed: Any) -> Portfolio:
    retro = Terms(type="CXL", occurrence_retention=600, occurrence_limit=900, participation=0.8)
    stop = Terms(type="SL", aggregate_deductible=2_500, aggregate_limit=4_000, participation=0.9)
    fields: dict[str, Any] = {
        "name": "Tails",
        "currency": "USD",
        "as_at": date(2025, 1, 1),
        "trials": TRIALS,
        "seed": 11,
        "group": "all",
        "catalogue": "c" * 32,
        "deals": tuple(deal(number) for number in range(DEAL_COUNT)),
        "groups": (
            Group(group_id="all", name="all", deals=("D8",), groups=("east", "west")),
            Group(group_id="east", name="east", deals=("D0", "D1", "D2", "D3")),
            Group(group_id="west", name="west", deals=("D4", "D5", "D6", "D7")),
            Group(group_id="view", name="view", deals=("D0", "D8")),
        ),
        "outwards": (
            Outwards(contract_id="R1", name="R1", group_id="east", priority=1, terms=retro),
            Outwards(contract_id="R2", name="R2", group_id="all", priority=1, terms=retro),
            Outwards(contract_id="R3", name="R3", group_id="all", priority=2, terms=stop),
        ),
        "rates": ({"currency": "EUR", "date": date(2024, 12, 31), "rate": 1.1},),
    }
    return Portfolio.model_validate(fields | changed)


def run_graph(graph: JobGraph) -> dict[str, Arrays]:
    """Run every job of a graph; return outputs by label, and targets by name."""
    outputs: list[Arrays] = []
    found: dict[str, Arrays] = {}
    objects = {"c" * 32: CATALOGUE} | {f"{number:032x}": elt(number) for number in range(DEAL_COUNT)}
    for number in range(len(graph)):
        job = graph.job(number)
        inputs = [
            outputs[at] if at >= 0 else objects[graph.externals[~at][2:]] for at in graph.inputs_of(number).tolist()
        ]
        outputs.append(Arrays(run_model(job.model, job.version, job.params, inputs)))
        found[graph.label(number)] = outputs[-1]
    names = zip(graph.target_names, graph.targets.tolist(), strict=True)
    return found | {name: outputs[job] for name, job in names}


@lru_cache(maxsize=4)
def made(sampled: bool = False, cost_of_capital: float = 0.0) -> dict[str, Arrays]:
    return run_graph(rollup_graph(portfolio_of(sampled, cost_of_capital)))


def portfolio_of(sampled: bool = False, cost_of_capital: float = 0.0) -> Portfolio:
    return book(secondary_uncertainty=sampled, pricing=Pricing(cost_of_capital=cost_of_capital))


@lru_cache(maxsize=2)
def summary(sampled: bool) -> Summary:
    run: dict[str, Any] = {"run_id": "r", "status": "SUCCEEDED", "started": "2025-01-01T00:00:00Z", "seconds": 1.0}
    run |= dict.fromkeys(("jobs", "cached", "computed", "failed", "batches", "rounds"), 0)
    return summarise(portfolio_of(sampled), "k", made(sampled), Run.model_validate(run))


def annual(name: str, sampled: bool) -> Any:
    """Return the annual losses of one job's YELT."""
    yelt, yet = made(sampled)[name], made(sampled)["simulate_years years block 0"]
    return np.bincount(yet["trial"][yelt["row"]], yelt["loss"].astype(float), minlength=TRIALS)


def tvar(losses: Any) -> float:
    return tail_mean(np.sort(losses)[::-1], *worst(TRIALS, Fraction(1, 100)))


@pytest.mark.parametrize("sampled", [False, True])
def test_tails_add_up_gross_and_net(sampled: bool) -> None:
    """Deals to the portfolio, groups that share nothing to the portfolio, perils to each group: to 1e-9."""
    result = summary(sampled)
    assert result.tvar is not None
    assert result.net_tvar is not None
    assert 0 < result.net_tvar < result.tvar
    assert sum(each.co_tvar or 0 for each in result.deals) == pytest.approx(result.tvar, rel=1e-9)
    assert sum(each.net_co_tvar or 0 for each in result.deals) == pytest.approx(result.net_tvar, rel=1e-9)
    deals = {each.deal_id: each for each in result.deals}
    for group in result.groups:
        assert sum(peril.co_tvar or 0 for peril in group.perils) == pytest.approx(group.tvar, rel=1e-9)
        assert sum(peril.aal or 0 for peril in group.perils) == pytest.approx(group.aal, rel=1e-9)
        if group.top and group.perspective != "ceded":
            assert group.co_tvar == pytest.approx(group.tvar, rel=1e-9)
    view = next(group for group in result.groups if group.group_id == "view" and group.perspective == "gross")
    assert view.co_tvar == pytest.approx((deals["D0"].co_tvar or 0) + (deals["D8"].co_tvar or 0))
    assert result.ep_calc == (2 if sampled else 1)


@pytest.mark.parametrize("sampled", [False, True])
def test_marginal_tails_are_those_without_the_member(sampled: bool) -> None:
    result, total = summary(sampled), annual("roll_up group all block 0", sampled)
    for each in result.deals:
        without = tvar(total - annual(f"price_deal deal {each.deal_id} block 0", sampled))
        assert each.marginal_tvar == pytest.approx(tvar(total) - without, rel=1e-9, abs=1e-6)
    east = next(group for group in result.groups if group.group_id == "east" and group.perspective == "gross")
    without = tvar(total - annual("roll_up bucket group east/ block 0", sampled))
    assert east.marginal_tvar == pytest.approx(tvar(total) - without, rel=1e-9)
    compared = made(sampled)[groups_name(["east", "view", "west"])]
    assert compared["co_tvar"][0] == pytest.approx(east.co_tvar, rel=1e-9)


def test_a_recovery_goes_back_to_deals_in_proportion_to_their_share_of_its_occurrence() -> None:
    """By brute force: every deal's loss of every occurrence, times net over subject of each set of contracts above."""
    outputs = made()
    yet = outputs["simulate_years years block 0"]
    top = outputs[measure_name("all", "net")]
    weight = np.zeros(TRIALS)
    weight[top["tail_trial"]] = top["tail_weight"]

    def kept(label: str) -> Any:
        part = np.ones(yet["trial"].size)
        net = outputs[label]
        part[net["row"]] = net["loss"] / (net["loss"] + net["ceded"])
        return part

    above = {"all": kept("apply_retro outwards R2 block 0") * kept("apply_retro outwards R3 block 0")}
    above |= {"west": above["all"], "east": above["all"] * kept("apply_retro outwards R1 block 0")}
    group_of = {"D8": "all"} | {f"D{n}": "east" if n < 4 else "west" for n in range(8)}
    for each in summary(False).deals:
        priced = outputs[f"price_deal deal {each.deal_id} block 0"]
        row = priced["row"]
        part = float((priced["loss"] * above[group_of[each.deal_id]][row] * weight[yet["trial"][row]]).sum())
        assert each.net_co_tvar == pytest.approx(part, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("sampled", [False, True])
def test_layers_share_their_deals_tail(sampled: bool) -> None:
    """With a cost of capital, layers of a deal are priced again in the tail and add up to the deal (float32 apart)."""
    outputs = made(sampled, 0.08)
    table = outputs[DEALS]
    parts = np.concatenate(
        [
            outputs[name.replace("allocate", "price_tail")]["layer_co_tvar"]
            for name in sorted(outputs)
            if name.startswith("allocate bucket")
        ]
    )
    ids = [
        name
        for key in sorted(outputs)
        if key.startswith("allocate bucket")
        for name in read_ids(outputs[key]["layer_ids"])
    ]
    by_deal: dict[str, float] = {}
    for name, part in zip(ids, parts.tolist(), strict=True):
        by_deal[name.split("-")[0]] = by_deal.get(name.split("-")[0], 0.0) + part
    for name, part in zip(read_ids(table["deal_ids"]), table["co_tvar"].tolist(), strict=True):
        assert by_deal[name] == pytest.approx(part, rel=1e-6)
    plain, loaded = made(sampled)[DEALS]["price_figures"], table["price_figures"]
    assert (loaded[:, 7] > plain[:, 7]).all()


def test_another_currency_is_in_every_figure() -> None:
    """D4 is a quota share in EUR: all of it times 1.1, as its ELT in USD would be."""
    euro = made()["price_deal deal D4 block 0"]
    dollars = run_graph(
        rollup_graph(book(deals=tuple(deal(n).model_copy(update={"currency": "USD"}) for n in range(9))))
    )
    same = dollars["price_deal deal D4 block 0"]
    assert euro["row"].tolist() == same["row"].tolist()
    assert euro["loss"].tolist() == pytest.approx((same["loss"] * 1.1).tolist(), rel=1e-6)


def test_figures_do_not_depend_on_the_blocks() -> None:
    """The same portfolio's sampled prices in one block of 20,000 trials and in two of 10,000."""
    yet = [
        Arrays(run_model("simulate_years", 1, {"seed": 3, "first_trial": first, "trials": trials}, [CATALOGUE]))
        for first, trials in ((0, 2 * RNG_TRIALS), (0, RNG_TRIALS), (RNG_TRIALS, RNG_TRIALS))
    ]
    layers = [{"type": "CXL", "occurrence_retention": 300.0, "occurrence_limit": 800.0, "reinstatements": [1.0]}]

    def priced(block: Arrays, first: int) -> dict[str, Any]:
        sampling = {"seed": 3, "first_trial": first, "stream": "s"}
        return run_model("price_deal", 1, {"layers": layers, "sampling": sampling}, [elt(0), block])

    whole, first, second = priced(yet[0], 0), priced(yet[1], 0), priced(yet[2], RNG_TRIALS)
    joined = np.concatenate([first["row"], second["row"] + yet[1]["trial"].size])
    assert joined.tolist() == whole["row"].tolist()
    assert np.concatenate([first["loss"], second["loss"]]).tobytes() == whole["loss"].tobytes()
    assert encode({"yet": np.concatenate([yet[1]["event"], yet[2]["event"]])}) == encode({"yet": yet[0]["event"]})


@given(st.integers(50, 500), st.integers(0, 2**32), st.sampled_from([0.9, 0.96, 0.99]), st.sampled_from([0.02, 1.0]))
def test_a_tail_without_a_member_is_exact_however_large_the_member(
    trials: int, seed: int, level: float, heavy: float
) -> None:
    """With losses at few values too, so that there are ties, and with members that lose in nearly every bad year."""
    random = np.random.default_rng(seed)
    total = np.floor(random.exponential(1 / heavy, trials))
    parts = random.random(trials) ** random.choice([0.01, 1.0, 20.0])
    some = np.flatnonzero(total)
    yet = {"trial": np.arange(total.size, dtype=np.int32), "day": np.zeros(total.size, np.int16)}
    measured = run_model(
        "measure",
        3,
        {"blocks": 1, "tail": level},
        [
            Arrays({**yet, "event": np.ones(total.size, np.int32), "trials": np.array([total.size], np.int64)}),
            Arrays({"row": some.astype(np.int32), "loss": total[some]}),
        ],
    )
    its = total * parts
    trial = np.flatnonzero(its)
    size = worst(total.size, 1 - Fraction(str(level)))
    brute = tail_mean(np.sort(total)[::-1], *size) - tail_mean(np.sort(total - its)[::-1], *size)
    assert Tail(Arrays(measured)).marginal(trial, its[trial])[0] == pytest.approx(brute, rel=1e-9, abs=1e-6)


def test_the_error_of_a_tail_is_that_of_many_runs() -> None:
    """Manistre & Hancock's formula against the spread of TVaR over 400 independent runs of 2,000 years."""
    random = np.random.default_rng(4)
    runs = [np.sort(random.exponential(1.0, 2_000))[::-1] for _ in range(400)]
    spread = np.std([tail_mean(falling, 100, 0.0) for falling in runs])
    assert np.mean([tvar_error(falling, Fraction(1, 20)) for falling in runs]) == pytest.approx(spread, rel=0.12)
    assert np.isnan(tvar_error(np.array([3.0, 2.0]), Fraction(1, 2)))


def test_limits_of_a_probability_are_wilsons() -> None:
    """Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611."""
    assert proportion_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert proportion_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert proportion_interval(20, 20)[1] == 1


def test_a_catalogue_without_the_years_events_is_refused() -> None:
    yet = made()["simulate_years years block 0"]
    small = Arrays({**CATALOGUE, "event": CATALOGUE["event"][:5], "peril": CATALOGUE["peril"][:5]})
    params = {"blocks": 1, "perils": True}
    with pytest.raises(ModelError, match="does not have"):
        run_model("measure", 3, params, [yet, made()["roll_up group all block 0"], small])
