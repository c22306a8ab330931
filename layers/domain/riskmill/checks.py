"""What makes a portfolio wrong: the checks that its folder and its canonical document share. Pure functions.

A fault says where (file, row, field), what is wrong and what is allowed, so that an analyst can mend it without
reading code. Nothing here stops at the first fault.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from riskmill.terms import Terms

#: Characters of an id and of a name. Ids stand in object names, file names and CSV results.
MAX_ID = 64
MAX_TEXT = 200

#: Active ISO 4217 codes (list one of the SIX maintenance agency), without funds codes, metals and test codes.
_ISO_4217 = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
    CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG
    HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL
    MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR
    RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD
    TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_ISO_4217.split())


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `row` is the line in the file as a person sees it (a CSV's header is line 1)."""

    file: str
    row: int | None
    field: str | None
    problem: str
    allowed: str | None = None

    def __str__(self) -> str:
        """Return `deals.csv:17: currency: 'EUR' is not the portfolio's currency 'USD' (allowed: USD)`."""
        where = self.file if self.row is None else f"{self.file}:{self.row}"
        field = "" if self.field is None else f"{self.field}: "
        allowed = "" if self.allowed is None else f" (allowed: {self.allowed})"
        return f"{where}: {field}{self.problem}{allowed}"


#: Rows that are listed for one problem in one column of one file. The others are counted.
MAX_LISTED = 100


class FaultList:
    """Collects faults. Of many rows with the same problem the first 100 are listed and the others counted."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._rows: Counter[tuple[str, str | None, str]] = Counter()
        self._allowed: dict[tuple[str, str | None, str], str | None] = {}

    def __bool__(self) -> bool:
        return bool(self.faults)

    def add(self, file: str, field: str | None, problem: str, allowed: str | None = None) -> None:
        """Add a fault of a whole file or of one of its columns."""
        self.faults.append(Fault(file, None, field, problem, allowed))

    def add_rows(
        self,
        file: str,
        field: str | None,
        rows: Sequence[int],
        *,
        kind: str,
        allowed: str | None,
        line: Callable[[int], int | None],
        problem: Callable[[int], str] | None = None,
    ) -> None:
        """Add one problem (`kind`, in words) of several rows; `line` and `problem` are asked for listed rows only."""
        if len(rows) == 0:
            return
        place = (file, field, kind)
        for row in rows[: max(MAX_LISTED - self._rows[place], 0)]:
            at = int(row)
            self.faults.append(Fault(file, line(at), field, kind if problem is None else problem(at), allowed))
        self._rows[place] += len(rows)
        self._allowed[place] = allowed

    def all(self) -> list[Fault]:
        """Return every fault, then one for each problem that has more rows than are listed."""
        more = [
            Fault(file, None, field, f"{count - MAX_LISTED:,} more rows: {kind}", self._allowed[file, field, kind])
            for (file, field, kind), count in self._rows.items()
            if count > MAX_LISTED
        ]
        return [*self.faults, *more]


def shown(value: object) -> str:
    """Return a value as a fault quotes it: escaped, and cut when it is long."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def text_problem(text: str, longest: int) -> str | None:
    """Return what is wrong with an id or a name, or None."""
    if not text:
        return "is empty"
    if len(text) > longest:
        return f"{shown(text)} has {len(text)} characters"
    if text != text.strip():
        return f"{shown(text)} has spaces around it"
    if not text.isprintable():
        return f"{shown(text)} has control or invisible characters"
    return None


def terms_problems(terms: Terms) -> Iterator[tuple[str, str, str]]:
    """Yield (field, problem, what is allowed) for terms that are each in range but make no contract together."""
    if terms.occurrence_limit == 0:
        yield "occurrence_limit", "is 0, so the layer never pays", "a number above 0, or none for unlimited"
    if terms.aggregate_limit == 0:
        yield "aggregate_limit", "is 0, so the layer never pays", "a number above 0, or none for unlimited"
    # A treaty that is only a type would cede everything without limit: an empty cell must not do that.
    if terms.type == "CXL" and terms.occurrence_limit is None:
        yield "occurrence_limit", "is empty, and a catastrophe excess of loss (CXL) needs it", "a number > 0"
    elif terms.reinstatements is not None and terms.occurrence_limit is None:
        yield (
            "reinstatements",
            "reinstate an occurrence limit, and this layer has none",
            "an occurrence limit, or no reinstatements",
        )
    if terms.type == "AXL" and terms.aggregate_limit is None and terms.aggregate_deductible == 0:
        problem = "is empty, and an aggregate excess of loss (AXL) needs it or an aggregate deductible"
        yield "aggregate_limit", problem, "a number > 0 in aggregate_limit or in aggregate_deductible"
    if terms.risk_limit == 0:
        yield "risk_limit", "is 0, so the layer never pays", "a number above 0, or none for unlimited"
    if (terms.retained_line is None) != (terms.lines is None):
        lacks = "lines" if terms.lines is None else "retained_line"
        yield lacks, "is empty, and a surplus share needs a retained line and a number of lines", "both, or neither"
    if terms.retained_line is not None and terms.type != "SS":
        yield "retained_line", f"is given, and {terms.type} is no surplus share (SS)", "an empty cell"
    if terms.type == "PR" and terms.risk_retention == 0 and terms.risk_limit is None:
        yield "risk_retention", "and risk_limit are empty, and a per risk treaty (PR) needs one", "an amount in one"
    if (terms.index is None) != (terms.index_trigger is None):
        lacks = "index_trigger" if terms.index_trigger is None else "index"
        yield lacks, "is empty, and an index and its trigger belong together", "both, or neither"
    if (terms.shared_limit is None) != (terms.shared_aggregate_limit is None):
        lacks = "shared_aggregate_limit" if terms.shared_aggregate_limit is None else "shared_limit"
        yield lacks, "is empty, and a shared limit has a name and an amount", "both, or neither"
    if terms.shared_aggregate_limit == 0:
        yield "shared_aggregate_limit", "is 0, so the layer never pays", "a number above 0"
    if terms.reinstatement_basis != "amount" and not terms.reinstatements:
        yield "reinstatement_basis", "is given, and nothing is reinstated for a premium", "an empty cell"


#: Terms that only a layer of a deal has: its losses are known by risk, and it inures to the benefit of other layers.
LAYER_ONLY = (
    "retained_line",
    "lines",
    "risk_retention",
    "risk_limit",
    "shared_limit",
    "shared_aggregate_limit",
    "inuring_priority",
    "placed_share",
    "reinstatement_basis",
)


def outwards_problems(terms: Terms) -> Iterator[tuple[str, str, str]]:
    """Yield (field, problem, what is allowed) for terms that an outwards contract cannot have."""
    if terms.type in ("PR", "SS"):
        problem = f"is {terms.type}, and a group's losses are not known by risk"
        yield "type", problem, "QS, FAC, CXL, AXL, SL"
    for name in LAYER_ONLY:
        if name in terms.model_fields_set and getattr(terms, name) != Terms.model_fields[name].default:
            yield name, "is given, and an outwards contract has no such term", "an empty cell"


def deal_problems(layers: Sequence[Terms]) -> Iterator[tuple[int, str, str, str]]:
    """Yield (layer, field, problem, what is allowed) for the layers of one deal that do not fit together.

    Layers that share a limit state the same one and the same inuring priority.
    """
    first: dict[str, Terms] = {}
    for number, terms in enumerate(layers):
        if terms.shared_limit is None:
            continue
        other = first.setdefault(terms.shared_limit, terms)
        name = shown(terms.shared_limit)
        if other.shared_aggregate_limit != terms.shared_aggregate_limit:
            limit = other.shared_aggregate_limit
            yield number, "shared_aggregate_limit", f"differs between layers that share the limit {name}", f"{limit}"
        if other.inuring_priority != terms.inuring_priority:
            problem = f"differs between layers that share the limit {name}"
            yield number, "inuring_priority", problem, f"{other.inuring_priority}"


#: Where a deal's days lie outside the trial year, it can lose nothing in it.
WITHIN_YEAR = "a period that reaches into the trial year"


def days_of(inception: date, expiry: date, trial_year: int | None) -> tuple[int, int] | None:
    """Return the first and last day of a contract, counted from 1 January of the trial year; None without that year.

    Years have 365 days: 29 February is the same day as 28 February.
    """
    return None if trial_year is None else (_day(inception, trial_year), _day(expiry, trial_year))


def _day(day: date, trial_year: int) -> int:
    month_day = 28 if (day.month, day.day) == (2, 29) else day.day
    return (day.year - trial_year) * 365 + date(2001, day.month, month_day).timetuple().tm_yday - 1


def outside_year(inception: date, expiry: date, trial_year: int | None) -> str | None:
    """Return what is wrong with a contract whose period does not reach into the trial year, or None."""
    days = days_of(inception, expiry, trial_year)
    if days is None or (days[0] <= 364 and days[1] >= 0):
        return None
    return f"{inception} to {expiry} has no day in the trial year {trial_year}"


def rate_problem(currency: str, wanted: str, dated: Collection[str]) -> str | None:
    """Return what is wrong with a deal's currency, or None: it is the portfolio's, or has a rate at the as-at date."""
    if currency == wanted or currency in dated:
        return None
    return (
        f"{shown(currency)} is not the portfolio's currency {shown(wanted)} and has no rate on or before its as-at date"
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the graph of groups a fault is: at the top group's name, at one membership or at one deal."""

    kind: Literal["top", "member", "deal"]
    group: str = ""
    member_type: Literal["deal", "group"] = "deal"
    member: str = ""


@dataclass(frozen=True, slots=True)
class GraphFault:
    """A fault in the graph of groups."""

    place: Place
    #: the problem without names
    kind: str
    problem: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Members:
    """Members of one group."""

    deals: Sequence[str]
    groups: Sequence[str]


def graph_faults(top: str, groups: Mapping[str, Members], deals: Collection[str]) -> Iterator[GraphFault]:
    """Yield every fault of the graph of groups.

    A member that does not exist, a member listed twice, a cycle, a deal or group that one group reaches by two paths
    (its losses would count twice), a top group that does not exist, a deal that the top group does not reach.
    Takes time in proportion to memberships, and to groups x roots where hierarchies share groups.
    """
    children: dict[str, list[str]] = {}
    holders: dict[str, list[str]] = {}
    for group, members in groups.items():
        yield from _listed_twice(group, members)
        for deal in dict.fromkeys(members.deals):
            if deal in deals:
                holders.setdefault(deal, []).append(group)
            else:
                place = Place("member", group, "deal", deal)
                problem = f"deal {shown(deal)} does not exist"
                yield GraphFault(place, "the deal does not exist", problem, "a deal_id of deals")
        children[group] = []
        for child in dict.fromkeys(members.groups):
            if child in groups:
                children[group].append(child)
            else:
                place = Place("member", group, "group", child)
                problem = f"group {shown(child)} does not exist"
                yield GraphFault(place, "the group does not exist", problem, "a group_id of groups")
    for cycle in _take_out_cycles(children):
        yield GraphFault(
            Place("member", cycle[-2], "group", cycle[-1]),
            "groups contain each other",
            "groups contain each other: " + " > ".join(cycle),
            "groups without a cycle",
        )
    yield from _reached_twice(children, holders)
    if top not in groups:
        yield GraphFault(Place("top"), "is not a group", f"{shown(top)} is not a group", "a group_id of groups")
        return
    reached = set(_paths(children, top))
    for deal in deals:
        if reached.isdisjoint(holders.get(deal, ())):
            yield GraphFault(
                Place("deal", member=deal),
                "is not reached from the top group",
                f"deal {shown(deal)} is not reached from the top group {shown(top)}",
                "a deal that is a member of the top group or of a group below it",
            )


def reached_from(top: str, groups: Mapping[str, Members]) -> set[str]:
    """Return the ids of the groups that `top` reaches, itself included; none when it does not exist."""
    if top not in groups:
        return set()
    return set(_paths({group: [g for g in members.groups if g in groups] for group, members in groups.items()}, top))


#: The groups that an outwards contract may cover.
COVERED_GROUPS = "the top group or a group below it"


def contract_group_problem(
    group: str, top: str, groups: Mapping[str, Members], below_top: Collection[str]
) -> str | None:
    """Return what is wrong with the group that an outwards contract covers, or None.

    A contract on a group outside the top group's graph would be computed and would never reduce the portfolio's net.
    """
    if group not in groups:
        return f"group {shown(group)} does not exist"
    if below_top and group not in below_top:
        return f"group {shown(group)} is not part of the top group {shown(top)}, whose net it would never reduce"
    return None


def _listed_twice(group: str, members: Members) -> Iterator[GraphFault]:
    kinds: tuple[tuple[Literal["deal", "group"], Sequence[str]], ...] = (
        ("deal", members.deals),
        ("group", members.groups),
    )
    for kind, ids in kinds:
        if len(set(ids)) == len(ids):
            continue
        for member, times in Counter(ids).items():
            if times > 1:
                problem = f"{kind} {shown(member)} is {times} times a member of group {shown(group)}"
                yield GraphFault(Place("member", group, kind, member), "is a member more than once", problem, "once")


def _take_out_cycles(children: dict[str, list[str]]) -> list[list[str]]:
    """Return every cycle that a depth-first walk closes, and take its closing edge out of `children`.

    graphlib names one cycle and stops, and a portfolio is refused with all of its faults. No recursion: chains of
    groups may be deep.
    """
    cycles: list[list[str]] = []
    done: set[str] = set()
    for start in children:
        if start in done:
            continue
        path, on_path, todo = [start], {start: 0}, [iter(list(children[start]))]
        while todo:
            child = next(todo[-1], None)
            if child is None:
                todo.pop()
                left = path.pop()
                del on_path[left]
                done.add(left)
            elif child in on_path:
                cycles.append([*path[on_path[child] :], child])
                children[path[-1]].remove(child)
            elif child not in done:
                on_path[child] = len(path)
                path.append(child)
                todo.append(iter(list(children[child])))
    return cycles


def _paths(children: Mapping[str, Sequence[str]], root: str) -> dict[str, str | None]:
    """Return every group that `root` reaches, itself included, each with the parent that the walk came from."""
    parents: dict[str, str | None] = {root: None}
    todo = [root]
    while todo:
        group = todo.pop()
        for child in children[group]:
            if child not in parents:
                parents[child] = group
                todo.append(child)
    return parents


def _reached_twice(children: Mapping[str, Sequence[str]], holders: Mapping[str, Sequence[str]]) -> Iterator[GraphFault]:
    """Yield the deals and groups that some group reaches by two paths, each once for a pair of paths.

    Only something that two groups hold can be reached twice, so only that is looked at, from each root.
    """
    parents_of: dict[str, list[str]] = {}
    for group, below in children.items():
        for child in below:
            parents_of.setdefault(child, []).append(group)
    shared: list[tuple[Literal["deal", "group"], str, Sequence[str]]] = [
        *(("group", group, above) for group, above in parents_of.items() if len(above) > 1),
        *(("deal", deal, above) for deal, above in holders.items() if len(above) > 1),
    ]
    if not shared:
        return
    seen: set[tuple[str, str]] = set()
    for root in [group for group in children if group not in parents_of]:
        reached = _paths(children, root)
        for kind, member, above in shared:
            first, *others = [group for group in above if group in reached] or [""]
            for other in others:
                one, two = _diverging(reached, first, other)
                paths = f"{' > '.join([*one, member])} and {' > '.join([*two, member])}"
                if (member, paths) not in seen:
                    seen.add((member, paths))
                    yield GraphFault(
                        Place("member", other, kind, member),
                        "is reached twice, so its losses would count twice",
                        f"{kind} {shown(member)} is reached twice from group {shown(one[0])}, "
                        f"so its losses would count twice: {paths}",
                        "one path from any group to a deal",
                    )


def _diverging(parents: Mapping[str, str | None], first: str, second: str) -> tuple[list[str], list[str]]:
    """Return the two paths to these groups, from the last group that they have in common."""
    paths: list[list[str]] = []
    for group in (first, second):
        path = [group]
        while (parent := parents[path[-1]]) is not None:
            path.append(parent)
        paths.append(path[::-1])
    common = sum(1 for a, b in zip(*paths, strict=False) if a == b)
    return paths[0][common - 1 :], paths[1][common - 1 :]
