"""Contract terms: one small function each, named as underwriters name it.

Losses are float64 arrays in the portfolio's currency; a limit of infinity means unlimited. Terms apply in OED's order:
ceded share, risk terms, occurrence terms, aggregate terms, placed share, participation. Formulae: docs/models.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.occurrences import F64, I64, sum_by_trial
from riskmill.terms import Terms


def ceded_loss(loss: F64, ceded_share: float) -> F64:
    """Ceded share (quota share): the part of each loss that goes to the contract."""
    return loss if ceded_share == 1.0 else loss * ceded_share


#: A loss or a year's sum that is this close to an edge of a cover (a retention, the end of a limit, a franchise) is at
#: it: six losses of a converted limit do not add up to six times it, and 0.3 - 0.1 is less than 0.2. What a layer pays
#: hardly changes there, but whether it attaches or is exhausted is a jump.
AT_THE_EDGE = 2.0**-40


def excess_of_loss(loss: F64, retention: float, limit: float) -> F64:
    """Excess of loss: `min(max(loss - retention, 0), limit)`.

    A loss within a relative AT_THE_EDGE of the retention pays nothing, one within that of both together the limit.
    """
    end = (retention + limit) * (1 - AT_THE_EDGE)
    if retention > 0:
        paid = np.where(loss > retention * (1 + AT_THE_EDGE), loss - retention, 0.0)
        return np.where(loss >= end, limit, paid) if limit < math.inf else paid
    return np.where(loss >= end, limit, loss) if limit < math.inf else loss


def surplus_share(sum_insured: F64, retained_line: float, lines: float) -> F64:
    """Surplus share: the part of each risk above the retained line, up to so many lines, of its sum insured.

    `min(max(S - line, 0), lines x line) / S`; 0 where nothing is insured.
    """
    above = np.minimum(np.maximum(sum_insured - retained_line, 0.0), lines * retained_line)
    return np.divide(above, sum_insured, out=np.zeros(above.size), where=sum_insured > 0)


def per_risk_excess(loss: F64, risks: F64 | float, retention: float, limit: float) -> F64:
    """Per risk excess of loss: `n min(max(loss / n - retention, 0), limit)` for a loss that n risks share alike."""
    return risks * excess_of_loss(loss / risks, retention, limit)


def franchise(loss: F64, deductible: float) -> F64:
    """Franchise deductible: nothing below it, the loss in full once it is reached."""
    return np.where(loss >= deductible * (1 - AT_THE_EDGE), loss, 0.0) if deductible > 0 else loss


def index_triggered(loss: F64, industry_loss: F64, trigger: float) -> F64:
    """Industry loss warranty: the loss where the industry's loss reaches the trigger, else nothing."""
    return np.where(industry_loss >= trigger, loss, 0.0)


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What is known of the subject beside its losses, for each event (or occurrence); None where it is not known."""

    #: number of risks that an event's loss is shared by; 1 where nothing is said
    risks: F64 | None = None
    #: largest possible loss
    exposure: F64 | None = None
    #: industry losses by the index's name
    industry: Mapping[str, F64] = field(default_factory=dict)

    def at(self, position: Any) -> "EventFacts":
        """Return the facts of these positions, in their order."""
        return EventFacts(
            None if self.risks is None else self.risks[position],
            None if self.exposure is None else self.exposure[position],
            {name: losses[position] for name, losses in self.industry.items()},
        )


#: Nothing is known but the losses.
NO_FACTS = EventFacts()


def ceded_part(terms: Terms, facts: EventFacts) -> F64 | float:
    """The ceded share: as stated, and for a surplus share by lines from the sum insured of each event's risks.

    Raises ModelError for a surplus share by lines of losses without exposures.
    """
    if terms.retained_line is None or terms.lines is None:
        return terms.ceded_share
    if facts.exposure is None:
        raise ModelError("a surplus share by lines needs the exposures of its event loss table")
    sum_insured = facts.exposure if facts.risks is None else facts.exposure / facts.risks
    return terms.ceded_share * surplus_share(sum_insured, terms.retained_line, terms.lines)


def occurrence_loss(terms: Terms, loss: F64, facts: EventFacts = NO_FACTS) -> F64:
    """Ceded share, risk and occurrence terms: what one occurrence brings to the layer, at 100% of it.

    Raises ModelError when the terms need facts that are not known.
    """
    share = ceded_part(terms, facts)
    loss = ceded_loss(loss, share) if isinstance(share, float) else loss * share
    if terms.risk_retention > 0 or terms.risk_limit is not None:
        limit = math.inf if terms.risk_limit is None else terms.risk_limit
        loss = per_risk_excess(loss, 1.0 if facts.risks is None else facts.risks, terms.risk_retention, limit)
    loss = franchise(loss, terms.franchise_deductible)
    loss = excess_of_loss(loss, terms.occurrence_retention, occurrence_limit(terms))
    if terms.index is None:
        return loss
    if terms.index_trigger is None or terms.index not in facts.industry:
        raise ModelError(f"the layer's trigger and the industry losses by index {terms.index!r} are needed")
    return index_triggered(loss, facts.industry[terms.index], terms.index_trigger)


def occurrence_limit(terms: Terms) -> float:
    """Occurrence limit L of the layer; infinity for none."""
    return math.inf if terms.occurrence_limit is None else terms.occurrence_limit


def annual_limit(terms: Terms) -> float:
    """Aggregate limit: the tighter of the stated one and `(N + 1) L` for N reinstatements; infinity for none."""
    stated = math.inf if terms.aggregate_limit is None else terms.aggregate_limit
    if terms.reinstatements is None:
        return stated
    return min(stated, (len(terms.reinstatements) + 1) * reinstated_limit(terms))


def reinstated_limit(terms: Terms) -> float:
    """The occurrence limit that a reinstatement restores. Raises ModelError when the layer has none."""
    if terms.occurrence_limit is None:
        raise ModelError("a layer with reinstatements needs an occurrence limit")
    return terms.occurrence_limit


def layer_limit(terms: Terms) -> float:
    """The limit of rates on line: the smaller of the occurrence and the aggregate limit; infinity for none."""
    return min(occurrence_limit(terms), annual_limit(terms))


def annual_recovery(terms: Terms, total: F64) -> F64:
    """Aggregate terms on the sum of a year's occurrence losses: `min(max(sum - D, 0), G)`."""
    return excess_of_loss(total, terms.aggregate_deductible, annual_limit(terms))


def event_order_recovery(terms: Terms, loss: F64, starts: I64) -> tuple[F64, F64]:
    """Return the recovery of each occurrence in the order of events, and of each year.

    `loss` holds occurrence losses in the order of time, a year beginning at each of `starts`. The k-th occurrence of
    a year recovers `f(x1 + .. + xk) - f(x1 + .. + xk-1)`, f being the aggregate terms; years in which these do not
    bind recover their occurrence losses as they stand.
    """
    deductible, limit = terms.aggregate_deductible, annual_limit(terms)
    done = kernel.event_order_recovery(loss, starts, deductible, limit)
    if done is not None:
        return done
    total = sum_by_trial(loss, starts)
    annual = annual_recovery(terms, total)
    if deductible > 0:
        recovery = np.zeros(loss.size)
        years = np.flatnonzero(total > deductible)
    elif limit < math.inf:
        years = np.flatnonzero(total > limit)
        if not years.size:
            return loss, annual
        recovery = loss.copy()
    else:
        return loss, annual
    # The k-th occurrences of all binding years at once, then the next: sums run in the order of events.
    at = starts[years]
    last = np.append(starts[1:], loss.size)[years]
    running, before = np.zeros(years.size), np.zeros(years.size)
    while at.size:
        occurrence = loss[at]
        running = running + occurrence
        after = annual_recovery(terms, running)
        # Rounding could give an ulp more than the occurrence lost.
        recovery[at] = np.minimum(after - before, occurrence)
        at = at + 1
        more = at < last
        if more.all():
            before = after
        else:
            at, last, running, before = at[more], last[more], running[more], after[more]
    return recovery, annual


def pro_rata_recovery(terms: Terms, loss: F64, starts: I64) -> tuple[F64, F64]:
    """Return the recovery of each occurrence in proportion to its loss within the year, and of each year."""
    total = sum_by_trial(loss, starts)
    annual = annual_recovery(terms, total)
    part = np.divide(annual, total, out=np.zeros(total.size), where=total > 0)
    years = np.repeat(np.arange(starts.size), np.diff(np.append(starts, loss.size)))
    return loss * part[years], annual


def recoveries(terms: Terms, loss: F64, starts: I64) -> tuple[F64, F64]:
    """Return the recovery of each occurrence, in the contract's own order, and of each year (at 100% of the layer)."""
    if terms.recovery_order == "pro_rata":
        return pro_rata_recovery(terms, loss, starts)
    return event_order_recovery(terms, loss, starts)


def shared_limit_recoveries(recovered: Sequence[F64], limit: float, starts: I64) -> list[F64]:
    """Shared aggregate limit, top and drop: layers recover at most `limit` a year between them, in event order.

    `recovered` holds what each layer would recover by itself; an occurrence that the limit cuts is shared in that
    proportion. A top-and-drop cover is two such layers, one on top and one that drops below it.
    """
    total = np.zeros(recovered[0].size)
    for recovery in recovered:
        total = total + recovery
    allowed, _ = event_order_recovery(Terms(type="AXL", aggregate_limit=limit), total, starts)
    part = np.divide(allowed, total, out=np.zeros(total.size), where=total > 0)
    return [recovery * part for recovery in recovered]


def _occurrences_in_order(starts: I64, size: int) -> Iterator[tuple[I64, I64]]:
    """Yield (positions, years): the first occurrences of all years, then the second, and so on."""
    years, last = np.arange(starts.size), np.append(starts[1:], size)
    at = starts
    while at.size:
        yield at, years
        at = at + 1
        more = at < last[years]
        at, years = at[more], years[more]


def reinstatement_fraction_in_time(terms: Terms, recovery: F64, starts: I64, unexpired: F64) -> F64:
    """Reinstatement premium of each year over the annual premium, pro rata as to amount and as to time.

    Each occurrence pays for the part of the limits that it uses, times the part of the period that is unexpired on its
    day (Mata 2000; Clark 1996). `recovery` and `unexpired` (0 to 1) are per occurrence, in the order of events.
    """
    fraction = np.zeros(starts.size)
    running, before = np.zeros(starts.size), np.zeros(starts.size)
    for at, years in _occurrences_in_order(starts, recovery.size):
        running[years] += recovery[at]
        after = reinstatement_fraction(terms, running[years])
        fraction[years] += (after - before[years]) * unexpired[at]
        before[years] = after
    return fraction


def unexpired_part(day: Any, first_day: int, last_day: int) -> F64:
    """Part of the period first_day .. last_day that is unexpired on each day, that day included: 1 on the first day."""
    part: F64 = (last_day + 1 - day.astype(np.float64)) / (last_day + 1 - first_day)
    return part


def reinstatement_fraction(terms: Terms, annual: F64) -> F64:
    """Reinstatement premium of each year as a fraction of the annual premium, pro rata as to amount.

    `sum_j c_j min(max(A - (j-1) L, 0), L) / L`: the j-th reinstatement restores the j-th L, at charge c_j.
    """
    fraction = np.zeros(annual.size)
    if not terms.reinstatements:
        return fraction
    limit = reinstated_limit(terms)
    if limit == 0.0:
        return fraction
    for j, charge in enumerate(terms.reinstatements):
        if charge > 0 and j == 0:
            fraction = charge * np.minimum(annual, limit) / limit
        elif charge > 0:
            # Few years use up more than the first reinstatement.
            years = np.flatnonzero(annual > j * limit)
            fraction[years] += charge * np.minimum(annual[years] - j * limit, limit) / limit
    return fraction
