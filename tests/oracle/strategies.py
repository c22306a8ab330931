"""Small portfolios full of corners: ties, zeros, exact limits, events twice on a day, empty years and tables.

Amounts are whole numbers, shares halves and quarters, so that sums are exact in floating point and ties are ties; `odd`
amounts and shares are not, so only what changes continuously is compared there.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from oracle.reference import Facts

EVENTS = tuple(range(1, 7))
INDEX = "industry"

AMOUNTS = st.sampled_from([0.0, 1.0, 10.0, 20.0, 25.0, 50.0, 100.0]) | st.integers(0, 120).map(float)
SHARES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0])
ODD_AMOUNTS = st.sampled_from([0.1, 0.3, 1 / 3, 9.9, 33.3]) | st.floats(0, 120).map(lambda amount: round(amount, 2))
ODD_SHARES = st.sampled_from([0.0, 0.1, 0.3, 1 / 3, 0.7, 1.0])
DAYS = st.sampled_from([0, 1, 99, 100, 101, 200, 363, 364]) | st.integers(0, 364)


@dataclass(frozen=True)
class Case:
    """One deal on one YET."""

    layers: list[dict[str, Any]]
    losses: dict[int, float]
    facts: dict[int, Facts]
    #: (day, event) of each occurrence, year by year
    years: list[list[tuple[int, int]]]
    period: tuple[int, int]
    rate: float


@st.composite
def plain_terms(draw: st.DrawFn, odd: bool = False) -> dict[str, Any]:
    """Return terms that an outwards contract may have as well, and that the compiled kernel knows."""
    amounts, shares = (ODD_AMOUNTS, ODD_SHARES) if odd else (AMOUNTS, SHARES)
    limit = draw(st.none() | amounts)
    terms: dict[str, Any] = {
        "type": draw(st.sampled_from(["QS", "FAC", "CXL", "AXL", "SL"])),
        "ceded_share": draw(st.just(1.0) | shares),
        "occurrence_retention": draw(st.just(0.0) | amounts),
        "occurrence_limit": limit,
        "aggregate_deductible": draw(st.just(0.0) | amounts),
        "aggregate_limit": draw(st.none() | amounts),
        "participation": draw(shares),
        "placed_share": draw(st.just(1.0) | shares),
        "premium": draw(amounts),
    }
    if limit is not None:
        charges = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5]), max_size=3)
        terms["reinstatements"] = draw(st.none() | charges)
    return terms


@st.composite
def terms_of_a_layer(draw: st.DrawFn, odd: bool = False) -> dict[str, Any]:
    """Return terms of a layer, any of them."""
    amounts = ODD_AMOUNTS if odd else AMOUNTS
    terms = draw(plain_terms(odd))
    kind = draw(st.sampled_from(["plain", "risk", "surplus", "franchise", "index"]))
    if kind == "risk":
        terms |= {"type": "PR", "risk_retention": draw(amounts), "risk_limit": draw(st.none() | amounts)}
    elif kind == "surplus":
        terms |= {"type": "SS", "retained_line": draw(amounts), "lines": draw(st.sampled_from([0.0, 0.5, 1.0, 4.0]))}
    elif kind == "franchise":
        terms["franchise_deductible"] = draw(amounts)
    elif kind == "index":
        terms |= {"index": INDEX, "index_trigger": draw(amounts)}
    if draw(st.booleans()):
        terms["recovery_order"] = "pro_rata"
    if terms.get("reinstatements") and draw(st.booleans()):
        terms["reinstatement_basis"] = "amount_and_time"
    terms["inuring_priority"] = draw(st.sampled_from([1, 1, 2, 3]))
    return {name: value for name, value in terms.items() if value is not None}


def years_of(trials: int = 12, most: int = 6) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    """Return years of (day, event) in the order of time; several may fall on one day, of one event too."""
    occurrence = st.tuples(DAYS, st.sampled_from([*EVENTS, 9]))
    year = st.lists(occurrence, max_size=most).map(lambda each: sorted(each, key=lambda pair: pair[0]))
    return st.lists(year, min_size=1, max_size=trials)


@st.composite
def facts_of_events(draw: st.DrawFn) -> dict[int, Facts]:
    """Return what is known of each event: risks, exposure, the industry's loss (of some)."""
    found = {}
    for event in EVENTS:
        industry = draw(st.none() | AMOUNTS)
        found[event] = Facts(
            risks=draw(st.sampled_from([1, 1, 2, 4])),
            exposure=Fraction(draw(st.sampled_from([0, 50, 100, 128, 400, 800]))),
            industry={} if industry is None else {INDEX: Fraction(industry)},
        )
    return found


@st.composite
def cases(draw: st.DrawFn, odd: bool = False, plain: bool = False) -> Case:
    """Return a deal of one to four layers, some of which may share a limit, and the years that it has."""
    amounts = ODD_AMOUNTS if odd else AMOUNTS
    layers = draw(st.lists(plain_terms(odd) if plain else terms_of_a_layer(odd), min_size=1, max_size=4))
    layers = [{name: value for name, value in layer.items() if value is not None} for layer in layers]
    if not plain and len(layers) > 1 and draw(st.booleans()):
        limit = draw(amounts)
        for layer in layers[:2]:
            layer |= {
                "shared_limit": "both",
                "shared_aggregate_limit": limit,
                "inuring_priority": layers[0].get("inuring_priority", 1),
            }
    losses = draw(st.dictionaries(st.sampled_from(EVENTS), amounts, max_size=len(EVENTS)))
    whole = draw(st.booleans())
    first = 0 if whole else draw(st.sampled_from([-30, 0, 100]))
    last = 364 if whole else draw(st.sampled_from([100, 200, 400]))
    return Case(
        layers,
        losses,
        draw(facts_of_events()),
        draw(years_of()),
        (first, last),
        draw(st.sampled_from([1.0, 1.0, 0.5, 4.0])) if not odd else draw(st.sampled_from([1.0, 1.1, 0.7])),
    )
