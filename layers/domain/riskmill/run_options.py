"""Options of one run that change its figures. Pure; where a run's batches are computed is riskmill.strategy's."""

from collections.abc import Mapping

from riskmill.errors import PortfolioInvalid, RiskmillError
from riskmill.portfolio import Portfolio

#: What the option `secondary_uncertainty` may say, and what it means; true and false as in portfolio.json do too.
SWITCH = {"on": True, "off": False}


def secondary_uncertainty_of(options: Mapping[str, object]) -> bool | None:
    """Return whether a run's options want losses sampled; None: as its portfolio says. Raises RiskmillError."""
    word = options.get("secondary_uncertainty")
    if word is None or isinstance(word, bool):
        return word
    if not isinstance(word, str) or word not in SWITCH:
        raise RiskmillError(f"option secondary_uncertainty is {word!r}: one of {', '.join(SWITCH)}")
    return SWITCH[word]


def as_run(portfolio: Portfolio, options: Mapping[str, object]) -> Portfolio:
    """Return the portfolio as a run with these options takes it.

    Raises PortfolioInvalid with every fault when it wants losses sampled that cannot be, RiskmillError for an option
    that says something else than `on` or `off`.
    """
    wanted = secondary_uncertainty_of(options)
    if wanted is None or wanted == portfolio.secondary_uncertainty:
        return portfolio
    if wanted and portfolio.sampling_faults:
        raise PortfolioInvalid([*portfolio.sampling_faults])
    return portfolio.model_copy(update={"secondary_uncertainty": wanted})
