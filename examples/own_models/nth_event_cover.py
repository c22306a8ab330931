"""A contract type: a second (third, ...) event cover, whose layers pay from the nth qualifying event of a year on."""

from collections.abc import Sequence

import numpy as np

from riskmill.sdk import (
    Amount,
    Array,
    Arrays,
    Field,
    PriceDealParams,
    deal_occurrences,
    deal_output,
    model,
    pay_layers,
    replace,
)


class Params(PriceDealParams):
    """event_number: the first event that is covered. qualifying_loss: what an event must cost (deal's currency)."""

    event_number: int = Field(ge=1, le=100)
    qualifying_loss: Amount = 0.0


@model("nth_event_cover", version=1)
def nth_event_cover(params: Params, inputs: Sequence[Arrays]) -> dict[str, Array]:
    """Price a deal whose layers cover the nth and later qualifying events of each year, by their usual terms."""
    subject = deal_occurrences(params, inputs)
    qualifies = subject.loss >= params.qualifying_loss * params.rate
    covered = qualifies & (subject.count_in_year(qualifies) >= params.event_number)
    subject = replace(subject, loss=np.where(covered, subject.loss, 0.0))
    return deal_output(params, subject, pay_layers(params.layers, subject))
