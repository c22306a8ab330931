"""Options of one run that change its figures: what they may say, and the portfolio that comes of them."""

import pytest

from riskmill.errors import PortfolioInvalid, RiskmillError
from riskmill.rollup_graph import rollup_graph
from riskmill.run_options import as_run, secondary_uncertainty_of
from tiny_portfolio import TinyPortfolio

FAULT = "elts: 'E1': exposure: event 3: is empty"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"secondary_uncertainty": None}, None),
        ({"secondary_uncertainty": "on"}, True),
        ({"secondary_uncertainty": "off"}, False),
        ({"secondary_uncertainty": True}, True),
        ({"secondary_uncertainty": False}, False),
    ],
)
def test_a_run_says_on_or_off_or_nothing(options: dict[str, object], expected: bool | None) -> None:
    assert secondary_uncertainty_of(options) is expected


@pytest.mark.parametrize("word", ["yes", "ON", "", 1, 0, ["on"]])
def test_any_other_word_is_one_clear_error(word: object) -> None:
    with pytest.raises(RiskmillError, match=r"^option secondary_uncertainty is .*: one of on, off$"):
        secondary_uncertainty_of({"secondary_uncertainty": word})


def test_a_runs_option_goes_before_its_portfolio_and_nothing_else_changes() -> None:
    means = TinyPortfolio().portfolio
    sampled = means.model_copy(update={"secondary_uncertainty": True})
    assert as_run(means, {}) is means
    assert as_run(sampled, {"secondary_uncertainty": "on"}) is sampled
    assert as_run(means, {"secondary_uncertainty": "on"}) == sampled
    assert as_run(sampled, {"secondary_uncertainty": "off"}) == means
    assert as_run(sampled, {"max_concurrency": 3}).secondary_uncertainty


def test_a_run_has_the_keys_of_a_portfolio_that_says_the_same() -> None:
    """So what either mode has made is found again, however the mode was asked for."""
    means = TinyPortfolio().portfolio
    sampled = means.model_copy(update={"secondary_uncertainty": True})
    keys = rollup_graph(as_run(means, {"secondary_uncertainty": "on"})).keys
    assert (keys == rollup_graph(sampled).keys).all()
    assert (rollup_graph(as_run(sampled, {"secondary_uncertainty": "off"})).keys == rollup_graph(means).keys).all()


def test_losses_that_cannot_be_sampled_refuse_a_run_that_wants_to_and_no_other() -> None:
    portfolio = TinyPortfolio().portfolio.model_copy(update={"sampling_faults": (FAULT, FAULT.replace("E1", "E2"))})
    with pytest.raises(PortfolioInvalid) as refused:
        as_run(portfolio, {"secondary_uncertainty": "on"})
    assert refused.value.faults == [FAULT, FAULT.replace("E1", "E2")]
    assert as_run(portfolio, {"secondary_uncertainty": "off"}) is portfolio
