"""A portfolio of four deals that a rollup computes in a moment, and what stands in the bucket for it."""

import json
from datetime import date
from typing import Any

import numpy as np

from riskmill.jobs import content_key, object_name
from riskmill.outputs import encode
from riskmill.portfolio import Deal, Group, Layer, Outwards, Portfolio
from riskmill.run_files import portfolio_file
from riskmill.terms import Terms

TRIALS = 2_000


def catalogue() -> bytes:
    """Return two perils with three events each, an event about every second year."""
    return encode(
        {
            "event": np.arange(1, 7, dtype=np.int32),
            "rate": np.array([0.5, 0.25, 0.125, 0.5, 0.25, 0.0625]),
            "peril": np.array([0, 0, 0, 1, 1, 1], dtype=np.int32),
            "frequency": np.array([0, 1], dtype=np.int32),
            "variance_to_mean": np.array([1.0, 1.5]),
            "season": np.full((2, 12), 1 / 12),
            "peril_names": np.frombuffer(json.dumps(["hurricane", "winter"]).encode(), dtype=np.uint8),
        }
    )


def elt(scale: float) -> bytes:
    """Return an event loss table over all six events."""
    return encode(
        {
            "event": np.arange(1, 7, dtype=np.int32),
            "mean": np.array([1e6, 4e6, 9e6, 0.5e6, 2e6, 6e6]) * scale,
        }
    )


def bad_elt() -> bytes:
    """Return an event loss table whose events are not sorted: its deal cannot be priced."""
    return encode({"event": np.array([5, 2], dtype=np.int32), "mean": np.array([1e6, 2e6])})


def deal(name: str, elt_data: bytes, **terms: Any) -> Deal:
    """Return a deal of one layer."""
    whole: dict[str, Any] = {
        "type": "CXL",
        "occurrence_retention": 1e6,
        "occurrence_limit": 5e6,
        "premium": 2e5,
    } | terms
    return Deal(
        deal_id=name,
        cedant=f"Cedant of {name}",
        business_unit="US",
        inception=date(2026, 1, 1),
        expiry=date(2026, 12, 31),
        currency="USD",
        elt=content_key(elt_data),
        layers=(Layer(layer_id=f"{name}-1", terms=Terms(**whole)),),
    )


class TinyPortfolio:
    """The portfolio and its objects by name; deals may be given other tables or terms."""

    def __init__(self, *, tables: dict[str, bytes] | None = None, **terms: dict[str, Any]) -> None:
        scales = {"D1": 1.0, "D2": 0.5, "D3": 0.25, "D4": 2.0}
        data = {name: (tables or {}).get(name, elt(scale)) for name, scale in scales.items()}
        self.portfolio = Portfolio(
            name="Tiny Re",
            currency="USD",
            as_at=date(2026, 1, 1),
            trials=TRIALS,
            seed=11,
            group="all",
            catalogue=content_key(catalogue()),
            deals=tuple(deal(name, data[name], **terms.get(name, {})) for name in scales),
            groups=(
                Group(group_id="all", name="All business", groups=("US", "EU")),
                Group(group_id="US", name="United States", deals=("D1", "D2")),
                Group(group_id="EU", name="Europe", deals=("D3", "D4")),
            ),
            outwards=(
                Outwards(
                    contract_id="R1",
                    name="US retro",
                    group_id="US",
                    priority=1,
                    terms=Terms(type="CXL", occurrence_retention=2e6, occurrence_limit=3e6, participation=0.5),
                ),
            ),
        )
        self.key = self.portfolio.key
        inputs = [catalogue(), *data.values()]
        self.objects = {object_name(f"i:{content_key(content)}"): content for content in inputs}
        self.objects[portfolio_file(self.key)] = self.portfolio.to_json()
