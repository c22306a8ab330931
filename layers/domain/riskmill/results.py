"""What a rollup found: the contract of `results/summary.json`, and the tables made from it.

Pure: no files, no clock. A Lambda writes `Table.to_csv()` to S3 with nothing but the standard library; the command line
writes the same tables as Parquet too.

Units, unless a field says otherwise: amounts are in the portfolio's currency, per contract year, our share;
probabilities and shares are fractions; return periods are years. `None` stands for "undefined" (a return period that
the number of trials cannot support, a rate on line without a limit); NaN and infinity are not JSON, so they become
`None` on the way in.

EP tables are ORD's EPT of version 1 (integer codes), see
https://github.com/OasisLMF/ODS_OpenResultsData/blob/main/ORD_Definitions.md
"""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from riskmill.figure_names import PERIL_FIGURES, TAIL_FIGURES

type Perspective = Literal["gross", "ceded", "net"]

PERSPECTIVES: tuple[Perspective, ...] = ("gross", "ceded", "net")

#: ORD's EPType: what a loss in the EPT is
EP_TYPES = {"oep": 1, "oep_tvar": 2, "aep": 3, "aep_tvar": 4}

#: ORD's ResultsPerspective (Schema/ORD_Perspectives.csv): 1 gross, 2 net of all reinsurance, 10 reinsurance loss
ORD_PERSPECTIVES: dict[str, int] = {"gross": 1, "net": 2, "ceded": 10}


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: a number that may be undefined; NaN and infinity are taken as undefined
Figure = Annotated[float | None, BeforeValidator(_finite_or_none)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(_Record):
    """How the figures were made. Counts are of jobs in the plan: jobs = cached + computed + failed + not reached."""

    run_id: str
    #: as in the control table, SUCCEEDED or FAILED
    status: str
    started: AwareDatetime
    #: seconds from start to publish
    seconds: Figure
    jobs: int
    #: outputs that were there already
    cached: int
    computed: int
    failed: int
    batches: int
    #: plan-run-settle rounds
    rounds: int
    #: jobs by where they ran, such as {"lambda": 12, "fargate": 3}
    compute: dict[str, int] = Field(default_factory=dict)
    #: jobs by where they ran and why there, such as {"lambda: fits with margin": 90}
    why: dict[str, int] = Field(default_factory=dict)
    #: what the run's own option asked for; None: as the portfolio says. `Summary.ep_calc` says what was done.
    secondary_uncertainty: bool | None = None


class PortfolioFacts(_Record):
    """What was rolled up; deals, layers, cedants, groups and outwards are counts."""

    name: str
    description: str | None = None
    #: ISO 4217; every amount of a summary is in it
    currency: str
    as_at: date
    #: simulated contract years
    trials: int
    seed: int
    deals: int
    layers: int
    cedants: int
    groups: int
    outwards: int
    #: annual premium of all layers, our share
    premium: Figure
    #: content key of the canonical portfolio, 32 hex digits
    key: str


class EpPoint(_Record):
    """One return period: quantile, its 95% confidence interval (binomial order statistics), mean of the tail beyond it.

    OEP: the largest occurrence of a year. AEP: the year's sum.
    """

    return_period: float
    oep: Figure
    oep_low: Figure
    oep_high: Figure
    oep_tvar: Figure
    aep: Figure
    aep_low: Figure
    aep_high: Figure
    aep_tvar: Figure
    #: standard errors of the two TVaRs
    oep_tvar_se: Figure = None
    aep_tvar_se: Figure = None


class PerilResult(_Record):
    """One peril's figures within a group."""

    peril: str
    aal: Figure
    aal_se: Figure
    sd: Figure
    prob_loss: Figure
    #: the peril's part of the group's own TVaR at the summary's tail; perils add up to it
    co_tvar: Figure
    ep: tuple[EpPoint, ...] = ()
    #: standard error of `sd`, and 95% limits of `prob_loss`
    sd_se: Figure = None
    prob_loss_low: Figure = None
    prob_loss_high: Figure = None
    #: the peril's own TVaR at the summary's tail, and its standard error
    tvar: Figure = None
    tvar_se: Figure = None
    co_tvar_se: Figure = None
    #: the group's own TVaR less that without the peril; does not add up
    marginal_tvar: Figure = None
    marginal_tvar_se: Figure = None

    def at(self, return_period: float) -> EpPoint | None:
        """The EP point at this return period (years), None when it was not calculated."""
        return next((point for point in self.ep if math.isclose(point.return_period, return_period)), None)


class Curve(_Record):
    """Dense EP curves for charts: three sequences of one length, by rising or falling return period."""

    return_period: tuple[Figure, ...] = ()
    oep: tuple[Figure, ...] = ()
    aep: tuple[Figure, ...] = ()


class TailFit(_Record):
    """The top group's tail beyond what the trials show: a generalised Pareto law over a threshold, with 95% intervals.

    One for each threshold, which `share` of the years are above. `loss`, `low` and `high` are of the return periods, in
    the same order. `ks_p` and `ad_p` are from a parametric bootstrap.
    """

    perspective: Perspective
    kind: Literal["oep", "aep"]
    share: float
    threshold: Figure
    excesses: Figure
    shape: Figure
    shape_low: Figure
    shape_high: Figure
    scale: Figure
    scale_low: Figure
    scale_high: Figure
    ks: Figure
    ks_p: Figure
    ad: Figure
    ad_p: Figure
    #: share of resamples that have no such law, and are left out of the intervals
    failed_share: Figure
    return_period: tuple[float, ...]
    loss: tuple[Figure, ...]
    low: tuple[Figure, ...]
    high: tuple[Figure, ...]


class FittedFigure(_Record):
    """A figure of a fit, with its 95% bootstrap limits; an infinite limit is None, and `infinite` says so."""

    name: str
    value: Figure
    low: Figure = None
    high: Figure = None
    infinite: bool = False


class FittedLaw(_Record):
    """One law fitted to a record of losses. `mean` is that of a loss above the threshold (severities only)."""

    kind: Literal["severity", "frequency"]
    law: str
    #: the one that its AIC, or the dispersion of the counts, speaks for
    preferred: bool
    #: why the law or its mean is refused; empty where it is not
    refused: str
    parameters: tuple[FittedFigure, ...]
    mean: FittedFigure | None
    log_likelihood: Figure
    aic: Figure
    ks: Figure
    ks_p: Figure
    ad: Figure
    ad_p: Figure
    #: shares of the resamples: with an infinite mean, and without such a law
    infinite_share: Figure = None
    failed_share: Figure = None


class RecordFit(_Record):
    """What the recorded losses of one peril say: laws of frequency and severity, clustering, trends, season."""

    peril: str
    first_year: int
    last_year: int
    threshold: float
    maximum: Figure
    #: losses above the threshold, their sum and the largest, in the record's unit
    losses: int
    total: Figure
    largest: Figure
    rate: FittedFigure
    variance_to_mean: FittedFigure
    dispersion_p: Figure
    #: trends of the number and of the size: growth a year with its p-value
    count_growth: Figure
    count_growth_p: Figure
    dispersion_about_trend: Figure
    dispersion_about_trend_p: Figure
    size_growth: Figure
    size_growth_p: Figure
    #: share of each month, January first, and the p-value of Rayleigh's test for one season
    season: tuple[Figure, ...]
    season_p: Figure
    laws: tuple[FittedLaw, ...]
    notes: tuple[str, ...] = ()


class GroupResult(_Record):
    """A group's figures in one perspective. Gross is before outwards contracts, net after, ceded their difference."""

    group_id: str
    group_name: str
    #: the portfolio's top group
    top: bool
    parent_ids: tuple[str, ...] = ()
    perspective: Perspective
    #: average annual loss, and the standard error of that mean
    aal: Figure
    aal_se: Figure
    #: standard deviation of the annual loss
    sd: Figure
    #: probability of a year with any loss
    prob_loss: Figure
    ep: tuple[EpPoint, ...] = ()
    curve: Curve = Curve()
    #: standard error of `sd`, and 95% limits of `prob_loss`
    sd_se: Figure = None
    prob_loss_low: Figure = None
    prob_loss_high: Figure = None
    #: the group's own TVaR at the summary's tail, and its standard error
    tvar: Figure = None
    tvar_se: Figure = None
    #: E[group's annual loss | the top group's is in its tail], gross or net; groups side by side add up
    co_tvar: Figure = None
    #: the top group's gross TVaR less that without this group (gross only)
    marginal_tvar: Figure = None
    #: standard errors of the two; of a net co_tvar an upper bound, the sum of its deals'
    co_tvar_se: Figure = None
    marginal_tvar_se: Figure = None
    perils: tuple[PerilResult, ...] = ()

    def at(self, return_period: float) -> EpPoint | None:
        """The EP point at this return period (years), None when it was not calculated."""
        return next((point for point in self.ep if math.isclose(point.return_period, return_period)), None)


class DealResult(_Record):
    """A deal's standing in the portfolio, all its layers together."""

    deal_id: str
    cedant: str
    business_unit: str
    #: annual premium, our share
    premium: Figure
    #: sum of the layers' occurrence limits, our share; None when a layer is unlimited
    limit: Figure
    aal: Figure
    sd: Figure
    #: E[deal's annual loss | the top group's gross annual loss is in its tail]; adds up to `Summary.tvar`
    co_tvar: Figure
    #: co_tvar / Summary.tvar
    share_of_tvar: Figure
    #: standard errors of `aal` and of `co_tvar`
    aal_se: Figure = None
    co_tvar_se: Figure = None
    #: the top group's TVaR less that without the deal; does not add up
    marginal_tvar: Figure = None
    #: the deal's part of `Summary.net_tvar`, recoveries given back in proportion
    net_co_tvar: Figure = None
    #: standard error of `sd`
    sd_se: Figure = None
    #: probability of a year with a loss to the deal, and its 95% limits
    prob_loss: Figure = None
    prob_loss_low: Figure = None
    prob_loss_high: Figure = None
    #: the deal's own TVaR at the summary's tail, and its standard error
    tvar: Figure = None
    tvar_se: Figure = None
    #: standard errors of the figures of those names
    share_of_tvar_se: Figure = None
    marginal_tvar_se: Figure = None
    net_co_tvar_se: Figure = None
    #: the deal's own exceedance figures, at 100 and 250 years
    ep: tuple[EpPoint, ...] = ()


class LayerResult(_Record):
    """A layer's price figures, our share."""

    layer_id: str
    deal_id: str
    #: QS, SS, FAC, PR, CXL, AXL or SL
    type: str
    #: mean annual loss
    expected_loss: Figure
    #: standard deviation of the annual loss
    sd: Figure
    #: probability that a year has a loss to the layer, and that a year exhausts it
    prob_attach: Figure
    prob_exhaust: Figure
    #: mean annual reinstatement premium, pro rata as to amount
    expected_reinstatement_premium: Figure
    #: expected loss / limit, and premium / limit
    loss_on_line: Figure
    rate_on_line: Figure
    #: premium that pays for expected loss, loads, expenses and brokerage, given the reinstatement premium
    technical_premium: Figure
    #: annual premium, occurrence limit and payback in years (1 / rate on line), where the run reports them
    premium: Figure = None
    limit: Figure = None
    payback: Figure = None
    #: standard error of `expected_loss`, and 95% limits of the two probabilities
    expected_loss_se: Figure = None
    prob_attach_low: Figure = None
    prob_attach_high: Figure = None
    prob_exhaust_low: Figure = None
    prob_exhaust_high: Figure = None
    #: risk load within the technical premium
    risk_load: Figure = None
    #: standard errors of the figures of those names, or upper bounds of them (docs/models.md)
    sd_se: Figure = None
    expected_reinstatement_premium_se: Figure = None
    loss_on_line_se: Figure = None
    technical_premium_se: Figure = None
    risk_load_se: Figure = None


class Failure(_Record):
    """A job that failed for its own reason."""

    #: the job's key, 32 hex digits
    key: str
    #: model and what it was for, such as "price_deal" and "deal D-0042, block 3"
    model: str
    subject: str = ""
    message: str


class Summary(_Record):
    """All of a rollup's figures: `results/summary.json`."""

    format: Literal[1] = 1
    run: Run
    portfolio: PortfolioFacts
    #: one record per group and perspective
    groups: tuple[GroupResult, ...]
    deals: tuple[DealResult, ...] = ()
    layers: tuple[LayerResult, ...] = ()
    #: level of `tvar` and `co_tvar`: 0.99 is the mean of the worst 1% of years
    tail: float = Field(gt=0, lt=1)
    #: TVaR of the top group's gross annual loss at `tail`
    tvar: Figure
    #: the same of its net annual loss
    net_tvar: Figure = None
    #: ORD's EPCalc. 1, mean damage loss: an occurrence's loss is its event's mean. 2, full uncertainty: it is sampled,
    #: and all sampled years are ranked together.
    ep_calc: Literal[1, 2] = 1
    #: of the top group, where the portfolio asks for them
    tail_fits: tuple[TailFit, ...] = ()
    #: of the perils whose losses the portfolio records
    record_fits: tuple[RecordFit, ...] = ()
    errors: tuple[Failure, ...] = ()

    def top(self, perspective: Perspective) -> GroupResult | None:
        """The top group's figures in this perspective, None when the run did not get so far."""
        return next((group for group in self.groups if group.top and group.perspective == perspective), None)

    @property
    def sampled(self) -> bool:
        """Whether losses were drawn from their laws (secondary uncertainty), rather than each its event's mean."""
        return self.ep_calc == 2

    @property
    def tail_return_period(self) -> float:
        """The return period that `tail` stands for, in years: 0.99 is 100."""
        return round(1 / (1 - self.tail), 6)

    @property
    def gross_loss_ratio(self) -> float | None:
        """Gross AAL of the top group over the portfolio's premium, a fraction; None without either."""
        gross = self.top("gross")
        if gross is None or gross.aal is None or not self.portfolio.premium:
            return None
        return gross.aal / self.portfolio.premium

    @property
    def gross_loss_ratio_se(self) -> float | None:
        """Standard error of the gross loss ratio; None without one."""
        gross = self.top("gross")
        if gross is None or gross.aal_se is None or not self.portfolio.premium:
            return None
        return gross.aal_se / self.portfolio.premium

    def to_json(self) -> bytes:
        """The bytes of `summary.json`; `Summary.model_validate_json` reads them back."""
        return self.model_dump_json().encode()


Kind = Literal["text", "int32", "float64", "bool"]
Cell = str | int | float | bool | None


class Column(NamedTuple):
    """A column's name and type; any cell but an int32 may be None."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Table:
    """A named table with typed columns in a fixed order; rows are tuples in that order."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def to_csv(self) -> str:
        """The table as CSV (RFC 4180 quoting, LF lines, UTF-8 when encoded). Floats keep every digit; None is empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(column.name for column in self.columns)
        writer.writerows([_csv_cell(cell) for cell in row] for row in self.rows)
        return out.getvalue()


def _csv_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return repr(cell) if isinstance(cell, float) else str(cell)


def summary_ids(summary: Summary) -> Iterator[tuple[int, GroupResult]]:
    """Yield (SummaryId, group result): 1, 2, ... top group first, then by group id; gross, ceded, net within."""
    ordered = sorted(
        summary.groups, key=lambda group: (not group.top, group.group_id, PERSPECTIVES.index(group.perspective))
    )
    return enumerate(ordered, start=1)


def ept_table(summary: Summary) -> Table:
    """ORD's EPT: SummaryId, EPCalc, EPType, ReturnPeriod, Loss. A return period without a figure has no row."""
    rows = [
        (summary_id, summary.ep_calc, ep_type, point.return_period, loss)
        for summary_id, group in summary_ids(summary)
        for field, ep_type in EP_TYPES.items()
        for point in sorted(group.ep, key=lambda point: point.return_period)
        if (loss := getattr(point, field)) is not None
    ]
    columns = (
        Column("SummaryId", "int32"),
        Column("EPCalc", "int32"),
        Column("EPType", "int32"),
        Column("ReturnPeriod", "float64"),
        Column("Loss", "float64"),
    )
    return Table("ept", columns, tuple(rows))


def summary_info_table(summary: Summary) -> Table:
    """What each SummaryId of the EPT stands for."""
    rows = [
        (summary_id, group.group_id, group.group_name, group.perspective, ORD_PERSPECTIVES[group.perspective])
        for summary_id, group in summary_ids(summary)
    ]
    columns = (
        Column("SummaryId", "int32"),
        Column("GroupId", "text"),
        Column("GroupName", "text"),
        Column("Perspective", "text"),
        Column("ResultsPerspective", "int32"),
    )
    return Table("summary_info", columns, tuple(rows))


_EP_FIGURES = (
    "oep",
    "oep_low",
    "oep_high",
    "oep_tvar",
    "aep",
    "aep_low",
    "aep_high",
    "aep_tvar",
    "oep_tvar_se",
    "aep_tvar_se",
)
_GROUP_FIGURES = (
    "aal",
    "aal_se",
    "sd",
    "prob_loss",
    "sd_se",
    "prob_loss_low",
    "prob_loss_high",
    "tvar",
    "tvar_se",
    "co_tvar",
    "marginal_tvar",
    "co_tvar_se",
    "marginal_tvar_se",
)
_DEAL_FIGURES = (
    "premium",
    "limit",
    "aal",
    "sd",
    "co_tvar",
    "share_of_tvar",
    "aal_se",
    "co_tvar_se",
    "marginal_tvar",
    "net_co_tvar",
    "sd_se",
    "prob_loss",
    "prob_loss_low",
    "prob_loss_high",
    "tvar",
    "tvar_se",
    "share_of_tvar_se",
    "marginal_tvar_se",
    "net_co_tvar_se",
)
_LAYER_FIGURES = (
    "expected_loss",
    "sd",
    "prob_attach",
    "prob_exhaust",
    "expected_reinstatement_premium",
    "loss_on_line",
    "rate_on_line",
    "technical_premium",
    "premium",
    "limit",
    "payback",
    "expected_loss_se",
    "prob_attach_low",
    "prob_attach_high",
    "prob_exhaust_low",
    "prob_exhaust_high",
    "risk_load",
    "sd_se",
    "expected_reinstatement_premium_se",
    "loss_on_line_se",
    "technical_premium_se",
    "risk_load_se",
)


def _columns(texts: tuple[str, ...], figures: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(Column(name, "text") for name in texts) + tuple(Column(name, "float64") for name in figures)


def _figures(record: BaseModel, names: tuple[str, ...]) -> tuple[Cell, ...]:
    return tuple(getattr(record, name) for name in names)


def ep_table(summary: Summary) -> Table:
    """The EPT's figures one row a return period, with the confidence intervals for which ORD has no column."""
    rows = [
        (summary_id, group.group_id, group.perspective, point.return_period, *_figures(point, _EP_FIGURES))
        for summary_id, group in summary_ids(summary)
        for point in sorted(group.ep, key=lambda point: point.return_period)
    ]
    columns = (
        Column("summary_id", "int32"),
        *_columns(("group_id", "perspective"), ("return_period", *_EP_FIGURES)),
    )
    return Table("ep", columns, tuple(rows))


def groups_table(summary: Summary) -> Table:
    """AAL with its standard error, standard deviation and probability of a loss, per group and perspective."""
    rows = [
        (
            summary_id,
            group.top,
            group.group_id,
            group.group_name,
            ";".join(group.parent_ids),
            group.perspective,
            *_figures(group, _GROUP_FIGURES),
        )
        for summary_id, group in summary_ids(summary)
    ]
    columns = (
        Column("summary_id", "int32"),
        Column("top", "bool"),
        *_columns(("group_id", "group_name", "parent_ids", "perspective"), _GROUP_FIGURES),
    )
    return Table("groups", columns, tuple(rows))


def perils_table(summary: Summary) -> Table:
    """Each peril's figures within each group and perspective."""
    rows = [
        (summary_id, group.group_id, group.perspective, peril.peril, *_figures(peril, PERIL_FIGURES))
        for summary_id, group in summary_ids(summary)
        for peril in group.perils
    ]
    columns = (Column("summary_id", "int32"), *_columns(("group_id", "perspective", "peril"), PERIL_FIGURES))
    return Table("perils", columns, tuple(rows))


def peril_ep_table(summary: Summary) -> Table:
    """Each peril's exceedance figures within each group and perspective, one row a return period."""
    rows = [
        (
            summary_id,
            group.group_id,
            group.perspective,
            peril.peril,
            point.return_period,
            *_figures(point, _EP_FIGURES),
        )
        for summary_id, group in summary_ids(summary)
        for peril in group.perils
        for point in sorted(peril.ep, key=lambda point: point.return_period)
    ]
    columns = (
        Column("summary_id", "int32"),
        *_columns(("group_id", "perspective", "peril"), ("return_period", *_EP_FIGURES)),
    )
    return Table("peril_ep", columns, tuple(rows))


def deals_table(summary: Summary) -> Table:
    """Every deal, the largest co-TVaR first; ties by deal id."""
    ordered = sorted(summary.deals, key=lambda deal: (-(deal.co_tvar or 0.0), deal.deal_id))
    rows = [(deal.deal_id, deal.cedant, deal.business_unit, *_figures(deal, _DEAL_FIGURES)) for deal in ordered]
    return Table("deals", _columns(("deal_id", "cedant", "business_unit"), _DEAL_FIGURES), tuple(rows))


def deal_ep_table(summary: Summary) -> Table:
    """Each deal's own exceedance figures, one row a return period, by deal id."""
    rows = [
        (deal.deal_id, point.return_period, *_figures(point, _EP_FIGURES))
        for deal in sorted(summary.deals, key=lambda deal: deal.deal_id)
        for point in sorted(deal.ep, key=lambda point: point.return_period)
    ]
    return Table("deal_ep", _columns(("deal_id",), ("return_period", *_EP_FIGURES)), tuple(rows))


def layers_table(summary: Summary) -> Table:
    """Price figures of every layer, by deal id and layer id."""
    ordered = sorted(summary.layers, key=lambda layer: (layer.deal_id, layer.layer_id))
    rows = [(layer.layer_id, layer.deal_id, layer.type, *_figures(layer, _LAYER_FIGURES)) for layer in ordered]
    return Table("layers", _columns(("layer_id", "deal_id", "type"), _LAYER_FIGURES), tuple(rows))


def tail_fits_table(summary: Summary) -> Table:
    """The fitted tails of the top group, one row a perspective, kind of loss, threshold and return period."""
    rows = [
        (fit.perspective, fit.kind, fit.share, *_figures(fit, TAIL_FIGURES), *point)
        for fit in summary.tail_fits
        for point in zip(fit.return_period, fit.loss, fit.low, fit.high, strict=True)
    ]
    figures = ("share", *TAIL_FIGURES, "return_period", "loss", "loss_low", "loss_high")
    return Table("tail_fits", _columns(("perspective", "kind"), figures), tuple(rows))


_LAW_FIGURES = ("log_likelihood", "aic", "ks", "ks_p", "ad", "ad_p", "infinite_share", "failed_share")
_COUNT_FIGURES = (
    "losses",
    "total",
    "largest",
    "dispersion_p",
    "count_growth",
    "count_growth_p",
    "dispersion_about_trend",
    "dispersion_about_trend_p",
    "size_growth",
    "size_growth_p",
    "season_p",
)


def fits_table(summary: Summary) -> Table:
    """What was fitted to each peril's record, one row a figure; laws of `record` are what no law is needed for."""
    rows: list[tuple[Cell, ...]] = []
    for record in summary.record_fits:
        for figure in (record.rate, record.variance_to_mean):
            rows.append((record.peril, "record", "", None, *_figure_cells(figure), ""))
        for name in _COUNT_FIGURES:
            value = getattr(record, name)
            rows.append(
                (record.peril, "record", "", None, name, value if value is None else float(value), None, None, "")
            )
        for month, share in enumerate(record.season, start=1):
            rows.append((record.peril, "record", "", None, f"season_{month:02}", share, None, None, ""))
        for law in record.laws:
            head = (record.peril, law.kind, law.law, law.preferred)
            figures = (*law.parameters, *(() if law.mean is None else (law.mean,)))
            rows += [(*head, *_figure_cells(figure), law.refused) for figure in figures]
            rows += [(*head, name, getattr(law, name), None, None, law.refused) for name in _LAW_FIGURES]
    columns = (
        *_columns(("peril", "kind", "law"), ()),
        Column("preferred", "bool"),
        Column("figure", "text"),
        *_columns((), ("value", "low", "high")),
        Column("refused", "text"),
    )
    return Table("fits", columns, tuple(rows))


def _figure_cells(figure: FittedFigure) -> tuple[Cell, ...]:
    return figure.name, figure.value, figure.low, math.inf if figure.infinite else figure.high


def tables(summary: Summary) -> tuple[Table, ...]:
    """All tables of a rollup, in the order in which they are documented (docs/results.md)."""
    return (
        ept_table(summary),
        summary_info_table(summary),
        ep_table(summary),
        groups_table(summary),
        deals_table(summary),
        layers_table(summary),
        perils_table(summary),
        peril_ep_table(summary),
        deal_ep_table(summary),
        tail_fits_table(summary),
        fits_table(summary),
    )
