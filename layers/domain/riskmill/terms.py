"""Contract terms of one layer, as underwriters name them. Amounts are in the portfolio's currency."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

#: QS quota share, CXL catastrophe excess of loss, AXL aggregate excess of loss, SL stop loss.
TreatyType = Literal["QS", "CXL", "AXL", "SL"]

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Terms(BaseModel):
    """Terms of one layer, applied in OED's order: ceded share, occurrence, aggregate, participation.

    `None` as a limit means unlimited. For SL, `aggregate_deductible` and `aggregate_limit` are amounts
    (a x GNPI and b x GNPI); the portfolio reader turns the ratios of a stop loss into them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: TreatyType
    #: part of the subject loss that is ceded (QS); 1 for excess of loss
    ceded_share: Share = 1.0
    #: R and L of `min(max(loss - R, 0), L)`, per occurrence
    occurrence_retention: Amount = 0.0
    occurrence_limit: Amount | None = None
    #: D and G of `min(max(sum - D, 0), G)`, per contract year, on the sum of occurrence losses
    aggregate_deductible: Amount = 0.0
    aggregate_limit: Amount | None = None
    #: charge of each reinstatement as a fraction of the premium, pro rata as to amount; () = none, None = unlimited and
    #: free. N reinstatements bound the aggregate at (N + 1) x L unless `aggregate_limit` is tighter.
    reinstatements: tuple[Amount, ...] | None = None
    #: annual premium of the layer at 100%, in currency units
    premium: Amount = 0.0
    #: our signed share of the layer (for outwards contracts: the share placed)
    participation: Share = 1.0
