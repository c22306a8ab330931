"""An independent reference of the contract terms and measures: slow, exact and readable.

One trial, one occurrence, one risk at a time, in fractions (`fractions.Fraction`), so nothing is rounded. It is written
from the field's definitions (domain terms, OED's order of terms, the papers that docs/models.md cites) as a story of
what happens to a cover: an occurrence eats the deductible, then the limit, and each used part is reinstated from the
next reinstatement. It shares no code with the models and does not import them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby

ZERO, ONE = Fraction(0), Fraction(1)
DAYS = 365


def exact(number: float | Fraction | None) -> Fraction | None:
    """Return the number that a float stands for, exactly; None stays None."""
    return None if number is None else Fraction(number)


# ---- what is known of losses


@dataclass(frozen=True)
class Occurrence:
    """One event in one trial: its place in the year-event table and its day."""

    row: int
    trial: int
    day: int
    event: int


@dataclass(frozen=True)
class Facts:
    """What is known of an event beside its loss to the subject."""

    risks: int = 1
    exposure: Fraction | None = None
    industry: Mapping[str, Fraction] = field(default_factory=dict)


# ---- terms


@dataclass(frozen=True)
class Treaty:
    """Terms of one layer; None as a limit is unlimited, None as reinstatements is unlimited and free."""

    ceded_share: Fraction = ONE
    retained_line: Fraction | None = None
    lines: Fraction | None = None
    risk_retention: Fraction = ZERO
    risk_limit: Fraction | None = None
    franchise_deductible: Fraction = ZERO
    occurrence_retention: Fraction = ZERO
    occurrence_limit: Fraction | None = None
    index: str | None = None
    index_trigger: Fraction | None = None
    aggregate_deductible: Fraction = ZERO
    aggregate_limit: Fraction | None = None
    reinstatements: tuple[Fraction, ...] | None = None
    premium: Fraction = ZERO
    participation: Fraction = ONE
    placed_share: Fraction = ONE
    pro_rata: bool = False
    in_time: bool = False
    shared_limit: str | None = None
    shared_aggregate_limit: Fraction | None = None
    inuring_priority: int = 1

    @property
    def capacity(self) -> Fraction | None:
        """All that the layer can pay in a year: limit and reinstatements, or the aggregate limit where tighter."""
        limits = [] if self.aggregate_limit is None else [self.aggregate_limit]
        if self.reinstatements is not None:
            assert self.occurrence_limit is not None
            limits.append(self.occurrence_limit * (1 + len(self.reinstatements)))
        return min(limits, default=None)

    @property
    def share(self) -> Fraction:
        """Our part of the whole layer."""
        return self.placed_share * self.participation


def layer(loss: Fraction, retention: Fraction, limit: Fraction | None) -> Fraction:
    """What of a loss lies above the retention and within the limit."""
    above = loss - retention if loss > retention else ZERO
    return above if limit is None or above < limit else limit


def to_layer(treaty: Treaty, loss: Fraction, facts: Facts) -> Fraction:
    """What one occurrence brings to the layer before annual terms: ceded share, each risk, occurrence, index."""
    if not loss:
        return ZERO
    each = loss / facts.risks
    ceded = ZERO
    for _ in range(facts.risks):
        part = each * treaty.ceded_share
        if treaty.lines is not None:
            assert treaty.retained_line is not None
            assert facts.exposure is not None
            insured = facts.exposure / facts.risks
            surplus = layer(insured, treaty.retained_line, treaty.retained_line * treaty.lines)
            part *= surplus / insured if insured else ZERO
        ceded += layer(part, treaty.risk_retention, treaty.risk_limit)
    if ceded < treaty.franchise_deductible:
        return ZERO
    found = layer(ceded, treaty.occurrence_retention, treaty.occurrence_limit)
    if treaty.index is not None:
        assert treaty.index_trigger is not None
        if facts.industry.get(treaty.index, ZERO) < treaty.index_trigger:
            return ZERO
    return found


@dataclass
class Year:
    """One layer's year at 100%: what occurrences bring, what is recovered for each, in the order of time."""

    brought: list[Fraction]
    paid: list[Fraction]

    @property
    def recovery(self) -> Fraction:
        return sum(self.paid, ZERO)


def recover(treaty: Treaty, brought: Sequence[Fraction]) -> Year:
    """Take a year's occurrences through the annual deductible and the annual capacity, one after the other."""
    deductible, capacity = treaty.aggregate_deductible, treaty.capacity
    paid = []
    for loss in brought:
        kept = min(loss, deductible)
        deductible -= kept
        due = loss - kept
        if capacity is not None:
            due = min(due, capacity)
            capacity -= due
        paid.append(due)
    if treaty.pro_rata:
        total, annual = sum(brought, ZERO), sum(paid, ZERO)
        paid = [annual * loss / total if total else ZERO for loss in brought]
    return Year(list(brought), paid)


def reinstatement_premium(treaty: Treaty, paid: Sequence[Fraction], unexpired: Sequence[Fraction]) -> Fraction:
    """Premium of a year's reinstatements over the annual premium.

    Every recovery uses up limit; the first reinstatement gives back the first limit used, the next one the next.
    Pro rata as to amount: its charge times the part of a limit given back; as to time: also the unexpired part.
    """
    if not treaty.reinstatements or not treaty.occurrence_limit:
        return ZERO
    left = [treaty.occurrence_limit] * len(treaty.reinstatements)
    premium = ZERO
    for amount, part in zip(paid, unexpired, strict=True):
        for number, charge in enumerate(treaty.reinstatements):
            back = min(amount, left[number])
            left[number] -= back
            amount -= back
            premium += charge * back / treaty.occurrence_limit * (part if treaty.in_time else ONE)
    return premium


# ---- a deal


@dataclass
class PricedLayer:
    """One layer over all trials: recoveries by row, and figures of each trial, all at 100%."""

    treaty: Treaty
    recovery: dict[int, Fraction]
    annual: list[Fraction]
    reinstated: list[Fraction]
    exhausted: list[bool]


def price_deal(
    treaties: Sequence[Treaty],
    losses: Mapping[int, Fraction],
    facts: Mapping[int, Facts],
    years: Sequence[Sequence[Occurrence]],
    period: tuple[int, int] = (0, DAYS - 1),
) -> list[PricedLayer]:
    """Return each layer's recoveries. `losses`: subject loss by event; `period`: the first and the last day."""
    first, last = period
    priced = [PricedLayer(treaty, {}, [], [], []) for treaty in treaties]
    for year in years:
        covered = [occurrence for occurrence in year if first <= occurrence.day <= last]
        unexpired = [Fraction(last + 1 - occurrence.day, last + 1 - first) for occurrence in covered]
        subject = [losses.get(occurrence.event, ZERO) for occurrence in covered]
        for priority in sorted({treaty.inuring_priority for treaty in treaties}):
            these = [at for at, treaty in enumerate(treaties) if treaty.inuring_priority == priority]
            found = {
                at: recover(
                    treaties[at],
                    [
                        to_layer(treaties[at], loss, facts.get(occurrence.event, Facts()))
                        for occurrence, loss in zip(covered, subject, strict=True)
                    ],
                )
                for at in these
            }
            _share_limits(treaties, found)
            for at, year_of in found.items():
                _record(priced[at], year_of, covered, unexpired)
            for number in range(len(covered)):
                inuring = sum((found[at].paid[number] * treaties[at].placed_share for at in these), ZERO)
                subject[number] = max(subject[number] - inuring, ZERO)
    return priced


def _share_limits(treaties: Sequence[Treaty], found: Mapping[int, Year]) -> None:
    """Cut what layers that share an annual limit recover: the earliest first, each occurrence in proportion."""
    names = {treaties[at].shared_limit for at in found} - {None}
    for name in names:
        members = [at for at in found if treaties[at].shared_limit == name]
        left = treaties[members[0]].shared_aggregate_limit
        assert left is not None
        for number in range(len(found[members[0]].paid)):
            wanted = sum((found[at].paid[number] for at in members), ZERO)
            given = min(wanted, left)
            left -= given
            for at in members:
                found[at].paid[number] *= given / wanted if wanted else ZERO


def _record(priced: PricedLayer, year: Year, covered: Sequence[Occurrence], unexpired: Sequence[Fraction]) -> None:
    treaty = priced.treaty
    for occurrence, paid in zip(covered, year.paid, strict=True):
        priced.recovery[occurrence.row] = paid
    priced.annual.append(year.recovery)
    priced.reinstated.append(reinstatement_premium(treaty, year.paid, unexpired))
    if treaty.capacity is not None:
        whole = year.recovery == treaty.capacity
    else:
        whole = treaty.occurrence_limit is not None and treaty.occurrence_limit in year.brought
    priced.exhausted.append(whole and year.recovery > 0)


def our_losses(priced: Sequence[PricedLayer]) -> dict[int, Fraction]:
    """Return the deal's loss by row at our share; rows that lose nothing are left out."""
    total: dict[int, Fraction] = {}
    for of_layer in priced:
        for row, paid in of_layer.recovery.items():
            total[row] = total.get(row, ZERO) + paid * of_layer.treaty.share
    return {row: loss for row, loss in total.items() if loss}


# ---- groups and outwards contracts


def add(tables: Sequence[Mapping[int, Fraction]]) -> dict[int, Fraction]:
    """Return the sum of losses by row."""
    total: dict[int, Fraction] = {}
    for table in tables:
        for row, loss in table.items():
            total[row] = total.get(row, ZERO) + loss
    return total


@dataclass(frozen=True)
class Contract:
    """An outwards contract on a group: inuring priority within the group, its terms, its days."""

    priority: int
    treaty: Treaty
    period: tuple[int, int] = (0, DAYS - 1)


@dataclass
class Ceded:
    """What contracts of one priority took: the subject before them and the net after them, by row."""

    subject: dict[int, Fraction]
    net: dict[int, Fraction]


def cede(
    contracts: Sequence[Contract],
    subject: Mapping[int, Fraction],
    years: Sequence[Sequence[Occurrence]],
    facts: Mapping[int, Facts],
) -> list[Ceded]:
    """Apply contracts in inuring order, those of one priority to one subject; participation is the share placed."""
    steps = []
    before = dict(subject)
    ordered = sorted(contracts, key=lambda contract: contract.priority)
    for _, same in groupby(ordered, key=lambda contract: contract.priority):
        net = dict(before)
        for contract in same:
            for year in years:
                covered = [
                    occurrence for occurrence in year if contract.period[0] <= occurrence.day <= contract.period[1]
                ]
                brought = [
                    to_layer(contract.treaty, before.get(each.row, ZERO), facts.get(each.event, Facts()))
                    for each in covered
                ]
                for each, paid in zip(covered, recover(contract.treaty, brought).paid, strict=True):
                    if paid:
                        net[each.row] -= paid * contract.treaty.participation
        steps.append(Ceded(before, net))
        before = net
    return steps


@dataclass
class Groups:
    """A graph of groups: members, and outwards contracts by group. Losses of deals are by row."""

    deals: Mapping[str, Sequence[str]]
    groups: Mapping[str, Sequence[str]]
    contracts: Mapping[str, Sequence[Contract]]
    losses: Mapping[str, Mapping[int, Fraction]]
    years: Sequence[Sequence[Occurrence]]
    facts: Mapping[int, Facts]

    def gross(self, group: str) -> dict[int, Fraction]:
        """Losses of a group: those of its deals and of its groups."""
        own = [self.losses[deal] for deal in self.deals[group]]
        return add([*own, *(self.gross(child) for child in self.groups[group])])

    def steps(self, group: str) -> list[Ceded]:
        """What a group's own contracts take, after all contracts below it."""
        own = [self.losses[deal] for deal in self.deals[group]]
        subject = add([*own, *(self.net(child) for child in self.groups[group])])
        return cede(self.contracts.get(group, ()), subject, self.years, self.facts) or [Ceded(subject, subject)]

    def net(self, group: str) -> dict[int, Fraction]:
        """What is left of a group's losses after every contract below it and on it."""
        return self.steps(group)[-1].net

    def kept(self, group: str, top: str) -> dict[str, dict[int, Fraction]]:
        """What deals of a group keep after the contracts up to the top: each takes its part of a recovery."""
        left = {deal: dict(self.losses[deal]) for deal in self.deals[group]}
        for child in self.groups[group]:
            left |= self.kept(child, top)
        for step in self.steps(group):
            for table in left.values():
                for row in table:
                    if step.subject[row]:
                        table[row] = table[row] * step.net[row] / step.subject[row]
        return left


# ---- measures


def by_trial(
    losses: Mapping[int, Fraction], years: Sequence[Sequence[Occurrence]], of: Callable[[list[Fraction]], Fraction]
) -> list[Fraction]:
    """Return one number a trial: its sum, or its largest occurrence."""
    return [of([losses.get(occurrence.row, ZERO) for occurrence in year]) for year in years]


def total(losses: list[Fraction]) -> Fraction:
    return sum(losses, ZERO)


def largest(losses: list[Fraction]) -> Fraction:
    return max(losses, default=ZERO)


def mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, ZERO) / len(values)


def variance(values: Sequence[Fraction]) -> Fraction:
    """The sample variance, with n - 1."""
    middle = mean(values)
    return sum(((value - middle) ** 2 for value in values), ZERO) / (len(values) - 1)


def exceedance(values: Sequence[Fraction], amount: Fraction) -> Fraction:
    """P(X > amount)."""
    return Fraction(sum(value > amount for value in values), len(values))


def value_at_return_period(values: Sequence[Fraction], period: int) -> Fraction | None:
    """The least loss that is reached or passed no more often than once in the period; None where none is.

    Rank k of N has the return period N / k; ties count by their ranks.
    """
    falling = sorted(values, reverse=True)
    found = None
    for rank, loss in enumerate(falling, 1):
        if Fraction(len(values), rank) >= period:
            found = loss
    return found


def tail_value(values: Sequence[Fraction], part: Fraction) -> Fraction:
    """TVaR: the mean of the worst part of all trials, the last of them counted by the fraction that is needed.

    Less than one trial is that trial.
    """
    wanted = max(part * len(values), ONE)
    need, found = wanted, ZERO
    for value in sorted(values, reverse=True):
        if need <= 0:
            break
        found += value * min(need, ONE)
        need -= min(need, ONE)
    return found / wanted


def weighted_tail(pairs: Sequence[tuple[Fraction, Fraction]], part: Fraction) -> Fraction:
    """The mean of the second numbers over the worst part of trials by the first numbers.

    Equal first numbers could stand in any order; over all orders every one of them has every place as often, so what
    the tail still needs of them is their mean.
    """
    wanted = max(part * len(pairs), ONE)
    falling = sorted(pairs, key=lambda pair: pair[0], reverse=True)
    found, need = ZERO, wanted
    for _, run in groupby(falling, key=lambda pair: pair[0]):
        equals = [value for _, value in run]
        found += mean(equals) * min(need, Fraction(len(equals)))
        need -= len(equals)
        if need <= 0:
            break
    return found / wanted


# ---- price figures


def price_figures(
    priced: PricedLayer, *, brokerage: Fraction, fixed: Fraction, variable: Fraction, load: Callable[[float], float]
) -> dict[str, float]:
    """Return a layer's figures from its trials; `load` makes the risk load of the standard deviation at our share."""
    treaty, share = priced.treaty, priced.treaty.share
    expected = mean(priced.annual)
    reinstated = mean(priced.reinstated)
    deviation = float(variance(priced.annual)) ** 0.5 * float(share) if len(priced.annual) > 1 else float("nan")
    limits = [limit for limit in (treaty.occurrence_limit, treaty.capacity) if limit is not None]
    line = float(min(limits, default=ZERO)) or float("nan")
    risk = load(deviation)
    return {
        "expected_loss": float(share * expected),
        "sd": deviation,
        "prob_attach": sum(loss > 0 for loss in priced.annual) / len(priced.annual),
        "prob_exhaust": sum(priced.exhausted) / len(priced.annual) if limits else float("nan"),
        "expected_reinstatement_premium": float(share * treaty.premium * reinstated),
        "loss_on_line": float(expected) / line,
        "rate_on_line": float(treaty.premium) / line,
        "risk_load": risk,
        "technical_premium": technical_premium(
            float(share * expected) + risk + float(fixed), float(reinstated), float(brokerage), float(variable)
        ),
    }


def technical_premium(needed: float, reinstated: float, brokerage: float, variable: float) -> float:
    """The premium of which, with its reinstatement premiums, so much is left after expense, and brokerage on itself."""
    left = (1 + reinstated) * (1 - variable) - brokerage
    return needed / left if left > 0 else float("nan")
