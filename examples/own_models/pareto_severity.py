"""A severity model: each occurrence costs a Pareto distributed multiple of its event's mean loss."""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import cache

import numpy as np

from riskmill.sdk import (
    F64,
    Array,
    Arrays,
    Field,
    PriceDealParams,
    deal_occurrences,
    deal_output,
    model,
    pay_layers,
    replace,
    uniforms,
)

#: The law is cut into so many equally likely multiples, so its largest is (2 x BUCKETS)^(1 / alpha) of the smallest.
BUCKETS = 2_000


class Params(PriceDealParams):
    """alpha: the Pareto index, above 1 so that the mean is finite; smaller is heavier."""

    alpha: float = Field(gt=1, le=100)


@model("pareto_severity", version=1)
def pareto_severity(params: Params, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Price a deal whose losses are Pareto about the means of its event loss table, by its layers' usual terms."""
    means = deal_occurrences(params, inputs, sampled=False)
    bucket = (uniforms(params, inputs, means, "pareto_severity") * BUCKETS).astype(np.int64)
    drawn = replace(means, loss=means.loss * multiples(params.alpha)[bucket])
    return deal_output(params, drawn, pay_layers(params.layers, drawn))


@cache
def multiples(alpha: float) -> F64:
    """Return the multiples, rising, with mean 1: quantiles of the Pareto law at the buckets' middles, scaled.

    Made with decimal, because the last bit of numpy's power differs between CPUs.
    """
    with localcontext(prec=28):
        power = -1 / Decimal(alpha)
        found = [((BUCKETS - k - Decimal("0.5")) / BUCKETS) ** power for k in range(BUCKETS)]
        mean = sum(found, Decimal(0)) / BUCKETS
        return np.array([float(each / mean) for each in found])
