"""The job graph of a Risk Rollup: from a portfolio to its figures.

For every block of trials: the year-event table, every deal priced on it, sums of deals bottom-up through buckets and
groups, outwards contracts on the groups that buy them; then, over all blocks, each group's measures and every deal's
share of the top group's tail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from typing import Any

from riskmill.checks import days_of
from riskmill.deal_models import PRICE_DEAL, named_model
from riskmill.graph import GraphBuilder, JobGraph, topological_order
from riskmill.memory import collector_paused
from riskmill.models.catalogue import BLOCK_TRIALS
from riskmill.models.fit_models import fit_models_work
from riskmill.models.pricing import WHOLE_YEAR, Period
from riskmill.models.tail_fit import tail_work
from riskmill.portfolio import Deal, Group, Outwards, Portfolio
from riskmill.terms import Terms

#: Children of one sum. A leaf holds about this many deals, so one changed deal reads this many outputs again.
FAN_IN = 64

#: Splits in two that one node of the tree of buckets takes at once: 2^6 = FAN_IN children at the most.
LEVEL_BITS = 6

HASH_BITS = 128

#: The tail of co-TVaR: the worst 1% of years.
TAIL = 0.99

#: The name under which the table of all deals and layers is wanted.
DEALS = "deals"


def blocks_of(trials: int) -> list[tuple[int, int]]:
    """Return (first trial, trials) of each block. Blocks are fixed, so more trials never change the earlier ones."""
    return [(first, min(BLOCK_TRIALS, trials - first)) for first in range(0, trials, BLOCK_TRIALS)]


class Bucket:
    """A node of the tree in which a group's deals are summed: a leaf of deals, or up to FAN_IN smaller buckets.

    A deal's place follows from the bits of a hash of its id, not from its position, so that an inserted deal changes
    one path. A part with more than FAN_IN deals is split by the next bit; a node takes LEVEL_BITS such splits at once.
    """

    __slots__ = ("buckets", "deals", "name")

    def __init__(
        self, name: str, deals: Sequence[str], depth: int = 0, hashes: Mapping[str, int] | None = None
    ) -> None:
        self.name = name
        self.deals: list[str] = []
        self.buckets: list[Bucket] = []
        if len(deals) <= FAN_IN:
            self.deals = sorted(deals)
        else:
            if hashes is None:
                hashes = {deal: _hash(deal) for deal in deals}
            parts = _split(name, deals, depth, depth + LEVEL_BITS, hashes)
            self.buckets = [Bucket(part, members, at, hashes) for part, members, at in parts]

    def leaves(self) -> list["Bucket"]:
        """Return the leaves below (or this one), in order."""
        return [self] if not self.buckets else [leaf for bucket in self.buckets for leaf in bucket.leaves()]


def _split(
    name: str, deals: Sequence[str], depth: int, until: int, hashes: Mapping[str, int]
) -> list[tuple[str, Sequence[str], int]]:
    """Return (name, deals, depth) of the parts of these deals after as many splits as they need, down to `until`."""
    if len(deals) <= FAN_IN or depth == until:
        return [(name, deals, depth)]
    halves: tuple[list[str], list[str]] = ([], [])
    for deal in deals:
        halves[hashes[deal] >> (HASH_BITS - 1 - depth) & 1].append(deal)
    return [
        part
        for bit, half in enumerate(halves)
        if half
        for part in _split(f"{name}{bit}", half, depth + 1, until, hashes)
    ]


def _hash(deal_id: str) -> int:
    return int.from_bytes(blake2b(deal_id.encode(), digest_size=HASH_BITS // 8).digest())


@dataclass(frozen=True, slots=True)
class _Priced:
    """What the jobs of one deal share."""

    #: by block; the same for all, unless losses are sampled
    specs: list[int]
    #: the ELT, and the industry losses that trigger layers
    elt: int
    indices: tuple[int, ...]
    subject: int
    params: dict[str, Any]
    #: of each layer, as they stand in keys
    terms: list[dict[str, object]]


class _Rollup:
    """Builds the graph; one instance a portfolio."""

    def __init__(self, portfolio: Portfolio) -> None:
        self.portfolio = portfolio
        self.graph = GraphBuilder()
        self.deals = {deal.deal_id: deal for deal in portfolio.deals}
        self.groups = {group.group_id: group for group in portfolio.groups}
        self.blocks = blocks_of(portfolio.trials)
        self.sum_spec = self.graph.spec("roll_up", 1, {"keep_members": False})
        self.leaf_spec = self.graph.spec("roll_up", 1, {"keep_members": True})
        self.priced: dict[str, _Priced] = {}
        self.industry = {losses.index: losses.losses for losses in portfolio.indices}
        self.outwards: dict[str, list[Outwards]] = {}
        for contract in portfolio.outwards:
            self.outwards.setdefault(contract.group_id, []).append(contract)
        self.affinities = 0
        self.catalogue = self.graph.external(f"i:{portfolio.catalogue}")
        #: the leaves of each group's own deals, and the jobs of its outwards contracts in their order, by block
        self.own_leaves: dict[str, list[tuple[Bucket, list[int]]]] = {}
        self.ceding: dict[str, list[list[int]]] = {}

    def build(self) -> JobGraph:
        yets = self._years()
        gross: dict[str, list[int]] = {}
        net: dict[str, list[int]] = {}
        order = topological_order({g.group_id: g.groups for g in self.portfolio.groups})
        for group_id in order:
            group = self.groups[group_id]
            own_leaves: list[tuple[Bucket, list[int]]] = []
            own = self._own_deals(group, yets, own_leaves)
            self.own_leaves[group_id] = own_leaves
            gross[group_id] = self._sum(group_id, [*own, *(gross[child] for child in group.groups)])
            net[group_id] = self._net(group, own, gross, net, yets)
        measures = {group_id: self._measure(group_id, gross, net, yets) for group_id in order}
        if self.portfolio.tail_fit_replicates:
            self._fit_tails({"gross": gross[self.portfolio.group], "net": net[self.portfolio.group]}, yets)
        self._fit_records()
        self._compare(measures)
        self._allocate(yets, measures[self.portfolio.group])
        return self.graph.build()

    def _years(self) -> list[int]:
        yets = []
        for block, (first, trials) in enumerate(self.blocks):
            spec = self.graph.spec(
                "simulate_years", 1, {"seed": self.portfolio.seed, "first_trial": first, "trials": trials}
            )
            subject = self.graph.subject("years")
            yets.append(self.graph.job(spec, [self.catalogue], subject=subject, block=block, work=trials))
        return yets

    def _priced(self, deal: Deal) -> _Priced:
        """Register what a deal's jobs share, once, also where several groups hold the deal."""
        known = self.priced.get(deal.deal_id)
        if known is None:
            terms = layer_terms(self.portfolio, deal)
            params = price_params(self.portfolio, deal, terms)
            # Sampled losses are counted from the block's first trial, so each block has its own parameters.
            sampled = self.portfolio.secondary_uncertainty
            of_block = [sampled_from(params, first) for first, _ in self.blocks] if sampled else [params]
            model = PRICE_DEAL if deal.pricing_model is None else named_model(deal.pricing_model)
            specs = [self.graph.spec(*model, each) for each in of_block]
            known = self.priced[deal.deal_id] = _Priced(
                specs=specs if sampled else specs * len(self.blocks),
                elt=self.graph.external(f"i:{deal.elt}"),
                indices=self._indices([layer.terms for layer in deal.layers]),
                subject=self.graph.subject(f"deal {deal.deal_id}"),
                params=params,
                terms=terms,
            )
        return known

    def _indices(self, layers: Sequence[Terms]) -> tuple[int, ...]:
        """Return the industry losses that trigger these layers, in the order of `index_names`."""
        return tuple(self.graph.external(f"i:{self.industry[name]}") for name in index_names(layers))

    def _own_deals(self, group: Group, yets: list[int], leaves: list[tuple[Bucket, list[int]]]) -> list[list[int]]:
        """Add a group's own deals; return the job that sums them for each block (as one list, or none)."""
        if not group.deals:
            return []
        root = Bucket(f"group {group.group_id}/", group.deals)
        for leaf in root.leaves():
            subject = self.graph.subject(f"bucket {leaf.name}")
            priced = [self._priced(self.deals[deal]) for deal in leaf.deals]
            sums = []
            for block, yet in enumerate(yets):
                affinity, self.affinities = self.affinities, self.affinities + 1
                deals = [
                    self.graph.job(
                        deal.specs[block],
                        (deal.elt, yet, *deal.indices),
                        subject=deal.subject,
                        block=block,
                        work=self.blocks[block][1] * len(deal.terms),
                        affinity=affinity,
                    )
                    for deal in priced
                ]
                sums.append(
                    self.graph.job(
                        self.leaf_spec, deals, subject=subject, block=block, work=len(deals), affinity=affinity
                    )
                )
            leaves.append((leaf, sums))
        by_leaf = {id(leaf): sums for leaf, sums in leaves}
        return [self._bucket_sum(root, by_leaf)]

    def _bucket_sum(self, bucket: Bucket, by_leaf: dict[int, list[int]]) -> list[int]:
        if not bucket.buckets:
            return by_leaf[id(bucket)]
        children = [self._bucket_sum(child, by_leaf) for child in bucket.buckets]
        return self._sum(f"bucket {bucket.name}", children, is_group=False)

    def _sum(self, name: str, children: list[list[int]], *, is_group: bool = True) -> list[int]:
        """Add the sum of children (each a job a block) in trees of bounded fan-in; one child is its own sum."""
        if len(children) == 1:
            return children[0]
        while len(children) > FAN_IN:
            children = [
                self._sum(name, children[at : at + FAN_IN], is_group=is_group) for at in range(0, len(children), FAN_IN)
            ]
        subject = self.graph.subject(f"group {name}" if is_group else name)
        return [
            self.graph.job(
                self.sum_spec, [child[block] for child in children], subject=subject, block=block, work=len(children)
            )
            for block in range(len(self.blocks))
        ]

    def _net(
        self,
        group: Group,
        own: list[list[int]],
        gross: dict[str, list[int]],
        net: dict[str, list[int]],
        yets: list[int],
    ) -> list[int]:
        """Add what is left of a group after outwards contracts below it and on it, in inuring order."""
        untouched = all(net[child] == gross[child] for child in group.groups)
        subject_jobs = (
            gross[group.group_id]
            if untouched
            else self._sum(f"{group.group_id} before its outwards", [*own, *(net[child] for child in group.groups)])
        )
        by_priority: dict[int, list[Outwards]] = {}
        for contract in self.outwards.get(group.group_id, []):
            by_priority.setdefault(contract.priority, []).append(contract)
        for priority in sorted(by_priority):
            contracts = sorted(by_priority[priority], key=lambda contract: contract.contract_id)
            terms = [contract.terms for contract in contracts]
            spec = self.graph.spec("apply_retro", 1, retro_params(self.portfolio, contracts))
            indices = self._indices(terms)
            subject = self.graph.subject("outwards " + " + ".join(c.contract_id for c in contracts))
            subject_jobs = [
                self.graph.job(
                    spec,
                    [job, yets[block], *indices],
                    subject=subject,
                    block=block,
                    work=self.blocks[block][1] * len(terms),
                )
                for block, job in enumerate(subject_jobs)
            ]
            self.ceding.setdefault(group.group_id, []).append(subject_jobs)
        return subject_jobs

    def _measure(
        self, group_id: str, gross: dict[str, list[int]], net: dict[str, list[int]], yets: list[int]
    ) -> dict[str, int]:
        """Add the measures of a group; without outwards contracts net is gross and ceded is nothing."""
        inputs = {"gross": [*yets, *gross[group_id]]}
        if net[group_id] != gross[group_id]:
            inputs["net"] = [*yets, *net[group_id]]
            inputs["ceded"] = [*yets, *gross[group_id], *net[group_id]]
        measured = {}
        for perspective, jobs in inputs.items():
            spec = self.graph.spec(
                "measure",
                3,
                {"blocks": len(self.blocks), "perspective": perspective, "tail": TAIL, "perils": True},
            )
            subject = self.graph.subject(f"group {group_id} {perspective}")
            measured[perspective] = self.graph.job(
                spec, [*jobs, self.catalogue], subject=subject, work=self.portfolio.trials
            )
        measured.setdefault("net", measured["gross"])
        for perspective, job in measured.items():
            self.graph.target(measure_name(group_id, perspective), job)
        return measured

    def _fit_tails(self, top: dict[str, list[int]], yets: list[int]) -> None:
        """Add the fitted tails of the top group: minutes each, whatever the trials."""
        replicates = self.portfolio.tail_fit_replicates
        params = {"blocks": len(self.blocks), "replicates": replicates, "seed": self.portfolio.seed}
        spec = self.graph.spec("fit_tail", 2, params)
        for perspective, jobs in top.items():
            subject = self.graph.subject(f"group {self.portfolio.group} {perspective}")
            work = tail_work(self.portfolio.trials, replicates)
            job = self.graph.job(spec, [*yets, *jobs], subject=subject, work=work)
            self.graph.target(tail_fit_name(perspective), job)

    def _fit_records(self) -> None:
        """Add the laws of frequency and severity of each peril's record of losses."""
        replicates = self.portfolio.fit_replicates
        for record in self.portfolio.records:
            params = record.model_dump(include={"threshold", "maximum", "first_year", "last_year"}, exclude_none=True)
            spec = self.graph.spec("fit_models", 1, params | {"replicates": replicates, "seed": self.portfolio.seed})
            subject = self.graph.subject(f"record of {record.peril}")
            work = fit_models_work(record.count, record.last_year - record.first_year + 1, replicates)
            job = self.graph.job(spec, [self.graph.external(f"i:{record.losses}")], subject=subject, work=work)
            self.graph.target(record_fit_name(record.peril), job)

    def _compare(self, measures: dict[str, dict[str, int]]) -> None:
        """Add what each group does to the top group's tail, as many groups at a time as a job may read."""
        top = self.portfolio.group
        spec = self.graph.spec("compare_groups", 2, {})
        for part in compared_groups(self.portfolio):
            inputs = [measures[top]["gross"], *(measures[name]["gross"] for name in part)]
            subject = self.graph.subject(f"groups {part[0]} to {part[-1]}")
            self.graph.target(groups_name(part), self.graph.job(spec, inputs, subject=subject, work=len(part)))

    def _allocate(self, yets: list[int], top: dict[str, int]) -> None:
        parts = []
        # A group's deals are below the contracts of it and of the groups above it: one path, as no deal has two.
        above: dict[str, list[list[int]]] = {}
        todo = [(self.portfolio.group, list[list[int]]())]
        while todo:
            group_id, path = todo.pop()
            above[group_id] = [*self.ceding.get(group_id, []), *path]
            todo += [(child, above[group_id]) for child in self.groups[group_id].groups]
        net = top["net"] != top["gross"]
        for group_id in sorted(above):
            left = self._retained(above[group_id], yets, top["net"]) if net else []
            parts += [
                self._allocate_leaf(leaf, sums, yets, top, left) for leaf, sums in self.own_leaves.get(group_id, [])
            ]
        spec = self.graph.spec("tabulate_deals", 3, {})
        subject = self.graph.subject("deals of the portfolio")
        while len(parts) > FAN_IN:
            parts = [
                self.graph.job(spec, parts[at : at + FAN_IN], subject=subject, work=FAN_IN)
                for at in range(0, len(parts), FAN_IN)
            ]
        self.graph.target(DEALS, self.graph.job(spec, parts, subject=subject, work=len(parts)))

    def _retained(self, contracts: list[list[int]], yets: list[int], net: int) -> list[int]:
        """Add which part of the tail's losses is left by these contracts, for each block."""
        jobs = []
        for block, (first, trials) in enumerate(self.blocks):
            spec = self.graph.spec("retained", 1, {"first_trial": first})
            inputs = [yets[block], net, *(jobs[block] for jobs in contracts)]
            subject = self.graph.subject(f"tail after {len(contracts)} sets of outwards contracts")
            jobs.append(self.graph.job(spec, inputs, subject=subject, block=block, work=trials))
        return jobs

    def _allocate_leaf(
        self, leaf: Bucket, sums: list[int], yets: list[int], top: dict[str, int], left: list[int]
    ) -> int:
        deals = [self.deals[deal] for deal in leaf.deals]
        priced = [self.priced[deal] for deal in leaf.deals]
        params = allocate_params(self.portfolio, deals, [deal.terms for deal in priced], len(self.blocks))
        inputs = [*yets, *sums, top["gross"]]
        if left:
            params["net"] = True
            inputs += [*left, top["net"]]
        subject, work = self.graph.subject(f"bucket {leaf.name}"), self.portfolio.trials
        if self.portfolio.pricing.cost_of_capital > 0:
            tail = {"blocks": len(self.blocks), "deals": [deal.params for deal in priced]}
            spec = self.graph.spec("price_tail", 2, tail)
            elts = [external for deal in priced for external in (deal.elt, *deal.indices)]
            inputs.append(self.graph.job(spec, [*yets, top["gross"], *elts], subject=subject, work=work * len(deals)))
        return self.graph.job(self.graph.spec("allocate", 3, params), inputs, subject=subject, work=work)


def groups_name(groups: Sequence[str]) -> str:
    """Return the name under which the comparison of these groups with the top group is wanted."""
    return f"groups/{groups[0]}"


def compared_groups(portfolio: Portfolio) -> list[list[str]]:
    """Return the groups of each comparison with the top group, in its order."""
    names = sorted(group.group_id for group in portfolio.groups if group.group_id != portfolio.group)
    # With the top group itself, no job reads more than FAN_IN measures.
    return [names[at : at + FAN_IN - 1] for at in range(0, len(names), FAN_IN - 1)]


def measure_name(group_id: str, perspective: str) -> str:
    """Return the name under which a group's measures are wanted."""
    return f"measure/{perspective}/{group_id}"


def tail_fit_name(perspective: str) -> str:
    """Return the name under which the top group's fitted tail is wanted."""
    return f"tail_fit/{perspective}"


def record_fit_name(peril: str) -> str:
    """Return the name under which the laws of a peril's record are wanted."""
    return f"record_fit/{peril}"


def allocate_params(
    portfolio: Portfolio, deals: Sequence[Deal], terms: Sequence[list[dict[str, object]]], blocks: int
) -> dict[str, object]:
    """Return the parameters of the allocation of one bucket: its deals, their layers and terms, in its order."""
    params: dict[str, object] = {
        "blocks": blocks,
        "deals": [deal.deal_id for deal in deals],
        "brokerage": [deal.brokerage for deal in deals],
        "layers": [[layer.layer_id for layer in deal.layers] for deal in deals],
        "terms": list(terms),
    }
    loads = portfolio.pricing.model_dump(exclude_defaults=True)
    if loads:
        params["pricing"] = loads
    return params


def index_names(layers: Sequence[Terms]) -> list[str]:
    """Return the indices that trigger any of these layers, sorted."""
    return sorted({terms.index for terms in layers if terms.index is not None})


def layer_terms(portfolio: Portfolio, deal: Deal) -> list[dict[str, object]]:
    """Return the terms of a deal's layers in the portfolio's currency, as they stand in keys."""
    rate = portfolio.rate_of(deal.currency)
    return [_terms(layer.terms.converted(rate)) for layer in deal.layers]


def price_params(portfolio: Portfolio, deal: Deal, terms: list[dict[str, object]]) -> dict[str, Any]:
    """Return the parameters of the price of a deal, sampled losses as in the first block.

    What a deal does not use is left out, so that a term added later leaves old keys alone.
    """
    rate = portfolio.rate_of(deal.currency)
    params: dict[str, Any] = {"layers": terms}
    if rate != 1.0:
        params["rate"] = rate
    period = period_of(deal.inception, deal.expiry, portfolio.trial_year)
    if period is not None:
        if all(layer.terms.reinstatement_basis == "amount" for layer in deal.layers):
            period = within_year(period)  # nothing depends on the days outside, so a renewed deal keeps its key
        if period != WHOLE_YEAR:
            params["period"] = period.model_dump()
    names = index_names([layer.terms for layer in deal.layers])
    if names:
        params["indices"] = names
    if portfolio.secondary_uncertainty:
        params["sampling"] = {"seed": portfolio.seed, "first_trial": 0, "stream": deal.elt}
    return params | deal.pricing_params


def sampled_from(params: dict[str, Any], first_trial: int) -> dict[str, Any]:
    """Return the parameters of a sampled price in the block that begins with this trial."""
    return params | {"sampling": params["sampling"] | {"first_trial": first_trial}}


def retro_params(portfolio: Portfolio, contracts: Sequence[Outwards]) -> dict[str, object]:
    """Return the parameters of outwards contracts with one subject."""
    params: dict[str, object] = {"contracts": [_terms(contract.terms) for contract in contracts]}
    found = [
        WHOLE_YEAR
        if contract.inception is None or contract.expiry is None
        else period_of(contract.inception, contract.expiry, portfolio.trial_year) or WHOLE_YEAR
        for contract in contracts
    ]
    periods = [within_year(period) for period in found]
    if any(period != WHOLE_YEAR for period in periods):
        params["periods"] = [period.model_dump() for period in periods]
    names = index_names([contract.terms for contract in contracts])
    if names:
        params["indices"] = names
    return params


def period_of(inception: date, expiry: date, trial_year: int | None) -> Period | None:
    """Return a contract's days, counted from the first of the trial year; None without a trial year."""
    days = days_of(inception, expiry, trial_year)
    return None if days is None else Period(first=days[0], last=days[1])


def within_year(period: Period) -> Period:
    """Return the part of a period that lies in the trial year."""
    return Period(first=max(period.first, WHOLE_YEAR.first), last=min(period.last, WHOLE_YEAR.last))


def _terms(terms: Terms) -> dict[str, object]:
    """Return terms as they stand in a key: without defaults, so that a term added later leaves old keys alone."""
    return terms.model_dump(mode="json", exclude_defaults=True)


def rollup_graph(portfolio: Portfolio) -> JobGraph:
    """Return the jobs of a Risk Rollup of this portfolio, whatever is cached."""
    with collector_paused():
        return _Rollup(portfolio).build()
