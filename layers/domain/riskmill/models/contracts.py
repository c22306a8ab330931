"""Contract terms: one small function each, named as underwriters name it.

Losses are float64 arrays in the portfolio's currency; a limit of infinity means unlimited. Terms apply in OED's order:
ceded share, occurrence terms, aggregate terms, participation. Formulae: docs/models.md.
"""

import math

import numpy as np

from riskmill.errors import ModelError
from riskmill.models import kernel
from riskmill.models.occurrences import F64, I64, sum_by_trial
from riskmill.terms import Terms


def ceded_loss(loss: F64, ceded_share: float) -> F64:
    """Ceded share (quota share): the part of each loss that goes to the contract."""
    return loss if ceded_share == 1.0 else loss * ceded_share


def excess_of_loss(loss: F64, retention: float, limit: float) -> F64:
    """Excess of loss: `min(max(loss - retention, 0), limit)`."""
    if retention > 0:
        loss = np.maximum(loss - retention, 0.0)
    return np.minimum(loss, limit) if limit < math.inf else loss


def occurrence_loss(terms: Terms, loss: F64) -> F64:
    """Ceded share and occurrence terms: what one occurrence brings to the layer, at 100% of it."""
    return excess_of_loss(ceded_loss(loss, terms.ceded_share), terms.occurrence_retention, occurrence_limit(terms))


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
            fraction = charge * excess_of_loss(annual, 0.0, limit) / limit
        elif charge > 0:
            # Few years use up more than the first reinstatement.
            years = np.flatnonzero(annual > j * limit)
            fraction[years] += charge * excess_of_loss(annual[years], j * limit, limit) / limit
    return fraction
