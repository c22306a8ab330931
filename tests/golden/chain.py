"""A small chain of all models, from a catalogue to the table of deals, and the digests of everything that it makes.

Its inputs are whole numbers and halves, so that they are the same on every host. Run as a script, it writes the digests
as JSON: the test runs it once more with numpy's SIMD dispatch switched off.
"""

import json
import sys
from datetime import date
from hashlib import sha256
from typing import Any

import numpy as np

from riskmill.models import run_model
from riskmill.outputs import Arrays, encode

EVENTS, DEALS, BLOCK, BLOCKS = 600, 12, 10_000, 2


#: Versions of the models that are not at their first.
VERSIONS = {"measure": 3, "allocate": 3, "tabulate_deals": 3, "compare_groups": 2, "fit_tail": 2}


def catalogue() -> Arrays:
    """Return three perils, one of each law of frequency, with seasons."""
    number = np.arange(EVENTS)
    season = np.ones((3, 12)) / 12
    season[1] = np.array([0, 0, 0, 0, 0, 8, 8, 16, 16, 8, 8, 0]) / 64
    return Arrays(
        {
            "event": (number * 3 + 1).astype(np.int32),
            "rate": (1 + number * 7919 % 64) / 8192,
            "peril": (number % 3).astype(np.int32),
            "frequency": np.array([0, 1, 2], np.int32),
            "variance_to_mean": np.array([1.0, 1.75, 0.5]),
            "season": season,
            "peril_names": np.frombuffer(json.dumps(["quake", "storm", "frost"]).encode(), np.uint8),
        }
    )


def elt(deal: int) -> Arrays:
    """Return the ELT of a deal: a third of the events, and one that never occurs."""
    event = np.append(np.arange(deal % 3, EVENTS, 3) * 3 + 1, EVENTS * 3 + 5)
    mean = (1 + event * (1_000_003 + 2 * deal) % 4096) * 1_500.5
    return Arrays({"event": event.astype(np.int32), "mean": mean})


def uncertain_elt(deal: int) -> Arrays:
    """Return the ELT of a deal with standard deviations, exposures and numbers of risks."""
    arrays = elt(deal)
    mean = arrays["mean"]
    part = (1 + arrays["event"] % 7) / 8
    return Arrays(
        {
            **arrays,
            "sd_independent": mean * part,
            "sd_correlated": mean * (1 - part) * 0.5,
            "exposure": mean * (2 + arrays["event"] % 50),
            "risks": 1.0 + arrays["event"] % 4,
        }
    )


def industry() -> Arrays:
    """Return what half of the events cost the industry."""
    event = np.arange(0, EVENTS, 2) * 3 + 1
    return Arrays({"event": event.astype(np.int32), "mean": (event % 512) * 1e6})


def loss_record() -> Arrays:
    """Return a record of 80 losses over 40 years, clustered and heavy."""
    number = np.arange(80)
    years = 1990 + number * number * 7 % 41 % 40
    day = np.array([date(year, 1, 1).toordinal() for year in years.tolist()]) + number * 37 % 360
    return Arrays({"day": day.astype(np.int32), "loss": 50 + np.floor(60_000 / (1 + number * 29 % 80))})


def program() -> list[dict[str, Any]]:
    """Return a programme with every later term: a surplus and a per risk cover that inure to top and drop, an ILW."""
    top = {"inuring_priority": 2, "shared_limit": "top", "shared_aggregate_limit": 7e6, "type": "CXL"}
    timed = {"reinstatements": [1.0, 0.5], "reinstatement_basis": "amount_and_time", "premium": 2e5}
    return [
        {"type": "SS", "retained_line": 1e6, "lines": 9.0, "placed_share": 0.75, "participation": 0.0},
        {"type": "PR", "risk_retention": 4e5, "risk_limit": 1.5e6, "participation": 0.5},
        {**top, **timed, "occurrence_retention": 4e6, "occurrence_limit": 3e6},
        {**top, "occurrence_retention": 2e6, "occurrence_limit": 3e6, "aggregate_deductible": 2e6},
        {
            "type": "CXL",
            "occurrence_limit": 2e6,
            "franchise_deductible": 1e6,
            "index": "PCS",
            "index_trigger": 2.56e8,
            "recovery_order": "pro_rata",
            "aggregate_limit": 3e6,
        },
    ]


def layers(deal: int) -> list[dict[str, Any]]:
    """Return the layers of a deal; the kinds of treaty take turns."""
    kinds: list[list[dict[str, Any]]] = [
        [
            {
                "type": "CXL",
                "occurrence_retention": 3e6,
                "occurrence_limit": 1.1e6,
                "reinstatements": [1.0, 0.35],
                "premium": 3e5,
                "participation": 0.3,
            },
            {"type": "CXL", "occurrence_retention": 4.1e6, "occurrence_limit": 2e6, "reinstatements": []},
        ],
        [{"type": "QS", "ceded_share": 0.17, "participation": 0.9}],
        [{"type": "SL", "aggregate_deductible": 9e6, "aggregate_limit": 5e6, "participation": 0.1}],
        [
            {
                "type": "AXL",
                "occurrence_retention": 1e6,
                "occurrence_limit": 3e6,
                "aggregate_deductible": 2e6,
                "aggregate_limit": 4.2e6,
            },
            {"type": "CXL", "occurrence_retention": 5e6, "occurrence_limit": 1e6},
        ],
    ]
    return kinds[deal % len(kinds)]


def outputs() -> dict[str, dict[str, Any]]:
    """Return every output of the chain, by a name for it."""
    made: dict[str, dict[str, Any]] = {}
    kept: dict[str, Arrays] = {}

    def run(name: str, label: str, params: dict[str, Any], inputs: list[Arrays]) -> Arrays:
        made[label] = run_model(name, VERSIONS.get(name, 1), params, inputs)
        kept[label] = Arrays(made[label])
        return kept[label]

    blocks = range(BLOCKS)
    yets = [
        run("simulate_years", f"years {b}", {"seed": 2024, "first_trial": b * BLOCK, "trials": BLOCK}, [catalogue()])
        for b in blocks
    ]
    leaves: list[list[Arrays]] = []
    for b in blocks:
        priced = [run("price_deal", f"deal {d} {b}", {"layers": layers(d)}, [elt(d), yets[b]]) for d in range(DEALS)]
        leaves.append(
            [
                run("roll_up", f"leaf {half} {b}", {"keep_members": True}, priced[half * 6 : half * 6 + 6])
                for half in range(2)
            ]
        )
    gross = [run("roll_up", f"gross {b}", {"keep_members": False}, leaves[b]) for b in blocks]
    cover = {"type": "CXL", "occurrence_retention": 1e6, "occurrence_limit": 5e5, "reinstatements": [1.0]}
    stop = {"type": "SL", "aggregate_deductible": 3e6, "aggregate_limit": 2e6, "participation": 0.75}
    net = [run("apply_retro", f"cover {b}", {"contracts": [cover]}, [gross[b], yets[b]]) for b in blocks]
    net = [run("apply_retro", f"stop {b}", {"contracts": [stop]}, [net[b], yets[b]]) for b in blocks]
    top = run("measure", "measure gross", {"blocks": BLOCKS}, [*yets, *gross])
    run("measure", "measure net", {"blocks": BLOCKS, "perspective": "net"}, [*yets, *net])
    run("measure", "measure ceded", {"blocks": BLOCKS, "perspective": "ceded"}, [*yets, *gross, *net])
    run("measure", "perils", {"blocks": BLOCKS, "perils": True}, [*yets, *gross, catalogue()])
    for b in blocks:
        sampling = {"seed": 7, "first_trial": b * BLOCK, "stream": "one"}
        extra = {"rate": 1.1, "period": {"first": 90, "last": 454}, "indices": ["PCS"]}
        priced = [uncertain_elt(1), yets[b], industry()]
        run("price_deal", f"terms {b}", {"layers": program(), **extra}, priced)
        run("price_deal", f"sampled {b}", {"layers": program(), "sampling": sampling, **extra}, priced)
    left = [run("retained", f"retained {b}", {"first_trial": b * BLOCK}, [yets[b], top, net[b]]) for b in blocks]
    parts = []
    for half in range(2):
        deals = range(half * 6, half * 6 + 6)
        params = {
            "blocks": BLOCKS,
            "deals": [f"deal {d}" for d in deals],
            "brokerage": [0.1] * 6,
            "layers": [[f"layer {d}.{n}" for n in range(len(layers(d)))] for d in deals],
            "terms": [layers(d) for d in deals],
        }
        parts.append(run("allocate", f"allocate {half}", params, [*yets, *(leaves[b][half] for b in blocks), top]))
        net_params = {**params, "net": True, "pricing": {"sd_load": 0.3}}
        inputs = [*yets, *(leaves[b][half] for b in blocks), top, *left, top]
        run("allocate", f"loaded {half}", net_params, inputs)
    run("tabulate_deals", "deals", {}, parts)
    run("fit_tail", "tail", {"blocks": BLOCKS, "replicates": 5, "seed": 11, "shares": [0.1, 0.02]}, [*yets, *gross])
    span = {"first_year": 1990, "last_year": 2029, "threshold": 40.0, "replicates": 20, "seed": 11}
    run("fit_models", "record", span, [loss_record()])
    run("fit_models", "record stated", span | {"maximum": 1e6}, [loss_record()])
    run("compare_groups", "compared", {}, [top, kept["measure net"], kept["measure ceded"]])
    return made


def digests() -> dict[str, str]:
    """Return one sha256 per model, over all that it made."""
    hashes: dict[str, Any] = {}
    for label, arrays in outputs().items():
        hashes.setdefault(label.split()[0], sha256()).update(encode(arrays))
    return {name: digest.hexdigest() for name, digest in hashes.items()}


if __name__ == "__main__":
    from numpy._core._multiarray_umath import __cpu_features__

    json.dump({"digests": digests(), "features": [name for name, on in __cpu_features__.items() if on]}, sys.stdout)
