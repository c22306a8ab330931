"""Contract terms of one layer, as underwriters name them. Amounts are in the contract's currency.

Terms that came after the first release are left out of documents and keys at their defaults (`exclude_if`), so a
portfolio that does not use them keeps its key, and its jobs theirs.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: QS quota share, SS surplus share, FAC facultative, PR per risk excess of loss, CXL catastrophe excess of loss,
#: AXL aggregate excess of loss, SL stop loss.
TreatyType = Literal["QS", "SS", "FAC", "PR", "CXL", "AXL", "SL"]

#: How an annual recovery falls to occurrences: to the earliest first, or to all in proportion to their losses.
RecoveryOrder = Literal["event_order", "pro_rata"]

#: What a reinstatement premium is proportional to: the amount reinstated, or that and the unexpired part of the period.
ReinstatementBasis = Literal["amount", "amount_and_time"]

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

#: Longest name of an index of industry losses, or of a limit that layers share.
MAX_NAME = 64
Label = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


def later(default: Any) -> Any:
    """Return a field that is left out of every document while it has this default."""
    return Field(default=default, exclude_if=lambda value: value == default)


class Terms(BaseModel):
    """Terms of one layer, applied in OED's order.

    Ceded share, risk, occurrence, aggregate, placed share, participation. `None` as a limit means unlimited. For SL,
    `aggregate_deductible` and `aggregate_limit` are amounts (a x GNPI and b x GNPI); the portfolio reader turns the
    ratios of a stop loss into them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: TreatyType
    #: part of the subject loss that is ceded (QS, SS); 1 for excess of loss
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
    #: surplus share (SS): the line that the cedant keeps of each risk, and how many such lines are ceded above it
    retained_line: Amount | None = later(None)
    lines: Amount | None = later(None)
    #: R and L of `min(max(loss - R, 0), L)`, per risk
    risk_retention: Amount = later(0.0)
    risk_limit: Amount | None = later(None)
    #: an occurrence below this pays nothing; from this on it is treated as if there were no franchise
    franchise_deductible: Amount = later(0.0)
    #: the layer covers an occurrence only if the industry's loss by this index reaches the trigger (ILW)
    index: Label | None = later(None)
    index_trigger: Amount | None = later(None)
    recovery_order: RecoveryOrder = later("event_order")
    reinstatement_basis: ReinstatementBasis = later("amount")
    #: layers of a deal with the same `shared_limit` recover at most `shared_aggregate_limit` a year between them
    shared_limit: Label | None = later(None)
    shared_aggregate_limit: Amount | None = later(None)
    #: inuring order within the deal: the subject is net of what layers of a lower priority recover where placed
    inuring_priority: Annotated[int, Field(ge=1, le=1_000_000)] = later(1)
    #: part of the layer that is placed with reinsurers; our part of the layer is placed_share x participation
    placed_share: Share = later(1.0)

    @property
    def share(self) -> float:
        """Our part of the whole layer: the placed share of it times our participation."""
        return self.placed_share * self.participation

    def converted(self, rate: float) -> "Terms":
        """Return the terms with every amount times `rate`, but for the trigger, which is in the index's own unit."""
        if rate == 1.0:
            return self
        amounts = {name: getattr(self, name) for name in AMOUNTS}
        return self.model_copy(update={name: value * rate for name, value in amounts.items() if value is not None})


#: Terms that are amounts of money of the contract.
AMOUNTS = (
    "occurrence_retention",
    "occurrence_limit",
    "aggregate_deductible",
    "aggregate_limit",
    "premium",
    "retained_line",
    "risk_retention",
    "risk_limit",
    "franchise_deductible",
    "shared_aggregate_limit",
)
