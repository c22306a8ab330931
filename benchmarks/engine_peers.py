"""The peers' part of engine.py, in an environment of their own: layers/s on the same subject, one thread.

    python benchmarks/engine_peers.py subject.npz [--quick]

Each peer does as much of the work as it can: excess of loss with two paid reinstatements, annual recovery and
reinstatement premium by year. `same_work` says whether it does all of that on the given losses; `note` says what not.
Loading the losses into the peer's own form is not timed.
"""

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)


def timed(function: Callable[[], Any], layers: int, rounds: int) -> tuple[Any, dict[str, Any]]:
    """Return the result and layers/s by CPU seconds, of the best round."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        result = function()
        seconds.append(time.process_time() - began)
    return result, {"layers": layers, "layers_per_s": layers / min(seconds), "rounds_cpu_s": seconds}


def prospicio(data: Any, layers: int, rounds: int) -> dict[str, Any]:
    """All layers in one call, on the gross losses each; one by one it is slower."""
    from prospicio.aggregate import EventSet
    from prospicio.reinsurance import Layer, Tower

    events = EventSet.from_long(data["trial"].tolist(), data["loss"].tolist(), int(data["trials"]))
    terms = data["terms"][:layers].tolist()

    def tower(part: list[list[float]]) -> Any:
        return Tower(
            [
                Layer(f"l{number}", limit, attachment, premium=1.0, reinstatement_rates=[1.0, 1.0])
                for number, (limit, attachment) in enumerate(part)
            ]
        ).apply(events)

    result, figures = timed(lambda: tower(terms), layers, rounds)
    _, single = timed(lambda: [tower([one]) for one in terms[:10]], 10, rounds)
    figures["mean_recovery"] = [result.marginal(("ceded", f"l{number}")).mean() for number in range(layers)]
    return figures | {"same_work": True, "one_by_one_layers_per_s": single["layers_per_s"]}


def pal(data: Any, layers: int, rounds: int) -> dict[str, Any]:
    """One by one, as it has no other way; it also gives recoveries by occurrence."""
    from pal.contracts import XoL
    from pal.frequency_severity import FreqSevSims

    claims = FreqSevSims(data["trial"], data["loss"], int(data["trials"]))

    def apply() -> list[float]:
        means = []
        for limit, attachment in data["terms"][:layers].tolist():
            contract = XoL("layer", limit, attachment, 1.0, [1.0, 1.0], aggregate_limit=3 * limit)
            means.append(float(np.mean(contract.apply(claims).recoveries.aggregate().values)))
        return means

    means, figures = timed(apply, layers, rounds)
    return figures | {"same_work": True, "mean_recovery": means}


def oasis(data: Any, layers: int, rounds: int) -> dict[str, Any]:
    """The financial module's own compiled rule for deductible, attachment, limit and share, called directly."""
    from oasislmf.pytools.common.data import fm_policytc_dtype  # noqa: F401 - the installed version is what it says
    from oasislmf.pytools.fm.policy import calcrule_2

    fields = ["deductible1", "attachment1", "limit1", "share1"]
    policy = np.zeros(1, [(name, "f4") for name in fields])
    loss = data["loss"].astype(np.float32)
    out, trial, trials = np.empty_like(loss), data["trial"].astype(np.int64), int(data["trials"])

    def apply() -> None:
        for limit, attachment in data["terms"][:layers].tolist():
            policy[0] = (0.0, attachment, limit, 1.0)
            calcrule_2(policy[0], out, loss)
            np.bincount(trial, out, minlength=trials)

    apply()
    _, figures = timed(apply, layers, rounds)
    note = "no aggregate terms, no reinstatements; without fmpy's files and streams; sums by year with numpy"
    return figures | {"same_work": False, "note": note}


def gemact(data: Any, layers: int, rounds: int) -> dict[str, Any]:
    """The exact distribution by FFT of a collective model like the one that the losses were drawn from."""
    from gemact import Frequency, Layer, LossModel, PolicyStructure, Severity

    severity = Severity(dist="lognormal", par={"shape": 1.6, "scale": float(np.exp(14))})
    frequency = Frequency(dist="poisson", par={"mu": 10.0})

    def apply() -> None:
        for limit, attachment in data["terms"][:layers].tolist():
            layer = Layer(cover=limit, deductible=attachment, n_reinst=2, reinst_percentage=1.0)
            LossModel(
                severity,
                frequency,
                PolicyStructure(layers=layer),
                aggr_loss_dist_method="fft",
                sev_discr_method="massdispersal",
                n_aggr_dist_nodes=2**12,
                n_sev_discr_nodes=1000,
            ).mean(use_dist=True)

    _, figures = timed(apply, layers, rounds)
    return figures | {"same_work": False, "note": "one law for all events, on a grid: no event losses"}


def aggregate(data: Any, layers: int, rounds: int) -> dict[str, Any]:
    """The exact distribution by FFT, as with gemact."""
    from aggregate import build

    scale = float(np.exp(14))

    def apply() -> None:
        for number, (limit, attachment) in enumerate(data["terms"][:layers].tolist()):
            build(
                f"agg L{number} 10 claims sev {scale} * lognorm 1.6 occurrence ceded to {limit} xs {attachment} "
                f"poisson aggregate ceded to {3 * limit} xs 0",
                log2=14,
            )

    _, figures = timed(apply, layers, rounds)
    return figures | {"same_work": False, "note": "one law for all events, on a grid; no reinstatement premium"}


def main() -> None:
    """Measure every peer; one that fails is named with its error instead of a figure."""
    quick = "--quick" in sys.argv
    data = np.load(sys.argv[1])
    found: dict[str, Any] = {}
    for peer, layers in ((prospicio, 100), (pal, 40), (oasis, 60), (gemact, 40), (aggregate, 6)):
        try:
            found[peer.__name__] = peer(data, layers // 2 if quick else layers, 1 if quick else 3)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            found[peer.__name__] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
