"""Deals drawn at random from a seed: every term is as likely as not, so a few hundred use all terms together."""

import random
from fractions import Fraction
from typing import Any

from oracle.reference import Facts
from oracle.strategies import EVENTS, INDEX, Case

_ROUND = (0.0, 1.0, 10.0, 20.0, 25.0, 50.0, 100.0)


def _amount(draw: random.Random) -> float:
    return draw.choice([*_ROUND, float(draw.randint(0, 120))])


def _share(draw: random.Random) -> float:
    return draw.choice([0.0, 0.25, 0.5, 1.0, 1.0])


def _layer(draw: random.Random) -> dict[str, Any]:
    limit = draw.choice([None, _amount(draw), _amount(draw)])
    layer: dict[str, Any] = {
        "type": "CXL",
        "ceded_share": draw.choice([1.0, _share(draw)]),
        "occurrence_retention": draw.choice([0.0, _amount(draw)]),
        "occurrence_limit": limit,
        "aggregate_deductible": draw.choice([0.0, _amount(draw)]),
        "aggregate_limit": draw.choice([None, _amount(draw)]),
        "participation": _share(draw),
        "placed_share": draw.choice([1.0, _share(draw)]),
        "inuring_priority": draw.choice([1, 1, 2, 3]),
        "recovery_order": draw.choice(["event_order", "pro_rata"]),
    }
    if limit is not None and draw.random() < 0.6:
        layer["reinstatements"] = [draw.choice([0.0, 0.5, 1.0, 1.5]) for _ in range(draw.randint(1, 4))]
        layer["reinstatement_basis"] = draw.choice(["amount", "amount_and_time"])
    more: list[dict[str, Any]] = [
        {},
        {"type": "PR", "risk_retention": _amount(draw), "risk_limit": draw.choice([None, _amount(draw)])},
        {"type": "SS", "retained_line": _amount(draw), "lines": draw.choice([0.0, 0.5, 1.0, 4.0])},
        {"franchise_deductible": _amount(draw)},
        {"index": INDEX, "index_trigger": _amount(draw)},
    ]
    layer |= draw.choice(more)
    return {name: value for name, value in layer.items() if value is not None}


def random_case(seed: int) -> Case:
    """Return the deal of a seed, always the same."""
    draw = random.Random(seed)
    layers = [_layer(draw) for _ in range(draw.randint(1, 4))]
    if len(layers) > 1 and draw.random() < 0.5:
        limit, priority = _amount(draw), layers[0]["inuring_priority"]
        for layer in layers[:2]:
            layer |= {"shared_limit": "both", "shared_aggregate_limit": limit, "inuring_priority": priority}
    facts = {
        event: Facts(
            draw.choice([1, 1, 2, 4]),
            Fraction(draw.choice([0, 50, 100, 128, 400, 800])),
            {} if draw.random() < 0.3 else {INDEX: Fraction(draw.choice([0, 10, 25, 50, 100]))},
        )
        for event in EVENTS
    }
    years = []
    for _ in range(draw.randint(1, 8)):
        days = sorted(
            draw.choice([0, 99, 100, 101, 364, draw.randint(0, 364)]) for _ in range(draw.choice([0, 1, 3, 6]))
        )
        years.append([(day, draw.choice([*EVENTS, 9])) for day in days])
    period = (0, 364) if draw.random() < 0.5 else (draw.choice([-30, 0, 100]), draw.choice([100, 200, 400]))
    losses = {event: _amount(draw) for event in EVENTS if draw.random() < 0.8}
    return Case(layers, losses, facts, years, period, draw.choice([1.0, 1.0, 0.5, 4.0]))
