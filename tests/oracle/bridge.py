"""From the models' inputs to the reference's: the same contract in both, and nothing calculated."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np

from oracle.reference import Facts, Occurrence, Treaty, exact
from riskmill.models import kernel
from riskmill.outputs import Arrays

KERNELS = ("compiled", "numpy") if kernel.compiled() else ("numpy",)

_SAME = (
    "ceded_share",
    "retained_line",
    "lines",
    "risk_retention",
    "risk_limit",
    "franchise_deductible",
    "occurrence_retention",
    "occurrence_limit",
    "index_trigger",
    "aggregate_deductible",
    "aggregate_limit",
    "premium",
    "participation",
    "placed_share",
    "shared_aggregate_limit",
)


@contextmanager
def computed_with(name: str) -> Iterator[None]:
    """Compute with the compiled kernel, or with numpy alone."""
    module = kernel._module
    if name == "numpy":
        kernel._module = None
    try:
        yield
    finally:
        kernel._module = module


def treaty(terms: Mapping[str, Any]) -> Treaty:
    """Return the reference's treaty of a layer's terms (as JSON has them; what is missing is the default)."""
    found: dict[str, Any] = {name: exact(terms[name]) for name in _SAME if terms.get(name) is not None}
    charges = terms.get("reinstatements")
    if charges is not None:
        found["reinstatements"] = tuple(Fraction(charge) for charge in charges)
    return Treaty(
        **found,
        index=terms.get("index"),
        shared_limit=terms.get("shared_limit"),
        inuring_priority=terms.get("inuring_priority", 1),
        pro_rata=terms.get("recovery_order") == "pro_rata",
        in_time=terms.get("reinstatement_basis") == "amount_and_time",
    )


def year_event_table(years: Sequence[Sequence[tuple[int, int]]]) -> Arrays:
    """Return the YET of years of (day, event), each in the order of time."""
    return Arrays(
        {
            "trial": np.repeat(np.arange(len(years), dtype=np.int32), [len(year) for year in years]),
            "day": np.array([day for year in years for day, _ in year], np.int16),
            "event": np.array([event for year in years for _, event in year], np.int32),
            "trials": np.array([len(years)], np.int64),
        }
    )


def occurrences(yet: Arrays, first_row: int = 0) -> list[list[Occurrence]]:
    """Return the occurrences of a YET, trial by trial."""
    years: list[list[Occurrence]] = [[] for _ in range(int(yet["trials"][0]))]
    for row, (trial, day, event) in enumerate(zip(yet["trial"], yet["day"], yet["event"], strict=True)):
        years[trial].append(Occurrence(first_row + row, int(trial), int(day), int(event)))
    return years


def event_loss_table(losses: Mapping[int, float], facts: Mapping[int, Facts]) -> Arrays:
    """Return the ELT of mean losses by event, with what is known of the events."""
    events = sorted(losses)
    arrays = {
        "event": np.array(events, np.int32),
        "mean": np.array([losses[event] for event in events], np.float64),
        "risks": np.array([facts[event].risks for event in events], np.float64),
    }
    if all(facts[event].exposure is not None for event in events):
        arrays["exposure"] = np.array([float(facts[event].exposure or 0) for event in events], np.float64)
    return Arrays(arrays)


def industry_losses(facts: Mapping[int, Facts], index: str) -> Arrays:
    """Return an index's losses by event."""
    events = sorted(event for event in facts if index in facts[event].industry)
    losses = [float(facts[event].industry[index]) for event in events]
    return Arrays({"event": np.array(events, np.int32), "mean": np.array(losses, np.float64)})


def by_row(yelt: Mapping[str, Any], name: str = "loss", first_row: int = 0) -> dict[int, float]:
    """Return a YELT's losses by row; a row of nothing is left out."""
    found = zip(yelt["row"].tolist(), yelt[name].tolist(), strict=True)
    return {first_row + row: loss for row, loss in found if loss}
