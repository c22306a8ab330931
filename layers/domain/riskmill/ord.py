"""Results as Open Results Data (ORD) has them: the tables beside EPT, with exactly the standard's columns. Pure.

Names, order and types of the columns: ORD_Data_Types.csv of https://github.com/OasisLMF/ODS_OpenResultsData, the
integer codes of version 1. What a run does not know (exposures, spreads of a mean) is null. docs/standards.md says what
each column holds.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from riskmill.models.catalogue import DAYS_IN_MONTH
from riskmill.models.metrics import CEDED_ROUNDING
from riskmill.outputs import Array, Arrays
from riskmill.results import EP_TYPES, Column, Perspective, Summary, Table, ept_table, summary_ids, summary_info_table

#: ORD's SampleType: how a mean loss was found
ANALYTICAL, SAMPLED = 1, 2
#: ORD's SampleId: the mean, and the first sample. A run draws one sample of every occurrence.
MEAN_SAMPLE, FIRST_SAMPLE = -1, 1

_OCCURRENCE = (
    Column("Period", "int32"),
    Column("PeriodWeight", "float64"),
    Column("EventId", "int32"),
    Column("Year", "int32"),
    Column("Month", "int32"),
    Column("Day", "int32"),
    Column("Hour", "int32"),
    Column("Minute", "int32"),
    Column("SummaryId", "int32"),
)
MPLT = (
    *_OCCURRENCE,
    Column("SampleType", "int32"),
    Column("ChanceOfLoss", "float64"),
    Column("MeanLoss", "float64"),
    Column("SDLoss", "float64"),
    Column("MaxLoss", "float64"),
    Column("FootprintExposure", "float64"),
    Column("MeanImpactedExposure", "float64"),
    Column("MaxImpactedExposure", "float64"),
)
SPLT = (
    *_OCCURRENCE,
    Column("SampleId", "int32"),
    Column("Loss", "float64"),
    Column("ImpactedExposure", "float64"),
)

type PeriodTable = Literal["mplt", "splt"]

PERIOD_TABLES: dict[PeriodTable, tuple[Column, ...]] = {"mplt": MPLT, "splt": SPLT}


def alt_table(summary: Summary) -> Table:
    """ORD's ALT: SummaryId, SampleType, MeanLoss, SDLoss, annual. A summary without a figure has no row."""
    kind = ANALYTICAL if summary.ep_calc == 1 else SAMPLED
    rows = [
        (number, kind, group.aal, group.sd)
        for number, group in summary_ids(summary)
        if None not in (group.aal, group.sd)
    ]
    columns = (
        Column("SummaryId", "int32"),
        Column("SampleType", "int32"),
        Column("MeanLoss", "float64"),
        Column("SDLoss", "float64"),
    )
    return Table("alt", columns, tuple(rows))


def psept_table(summary: Summary) -> Table:
    """ORD's PSEPT: SummaryId, SampleId, EPType, ReturnPeriod, Loss. Empty where a run drew no samples.

    A run draws one sample of every occurrence, so there is one curve: the EPT's, of sample 1.
    """
    rows = [
        (number, FIRST_SAMPLE, ep_type, point.return_period, loss)
        for number, group in summary_ids(summary)
        if summary.ep_calc == 2
        for figure, ep_type in EP_TYPES.items()
        for point in sorted(group.ep, key=lambda point: point.return_period)
        if (loss := getattr(point, figure)) is not None
    ]
    columns = (
        Column("SummaryId", "int32"),
        Column("SampleId", "int32"),
        Column("EPType", "int32"),
        Column("ReturnPeriod", "float64"),
        Column("Loss", "float64"),
    )
    return Table("psept", columns, tuple(rows))


def ord_tables(summary: Summary) -> tuple[Table, ...]:
    """Return ORD's tables that a summary holds, and what its SummaryIds are. PSEPT only where samples were drawn."""
    samples = (psept_table(summary),) if summary.ep_calc == 2 else ()
    return (ept_table(summary), alt_table(summary), *samples, summary_info_table(summary))


def period_tables(summary: Summary) -> tuple[PeriodTable, ...]:
    """Return the period loss tables that a run can fill.

    SPLT always (the mean is sample -1, as in the standard's example). MPLT where losses are events' means: of one
    sample there is no moment. QPLT never: one loss of an occurrence has no quantiles.
    """
    return ("mplt", "splt") if summary.ep_calc == 1 else ("splt",)


def losses_of(parts: Sequence[Arrays], perspective: Perspective) -> tuple[Array, Array]:
    """Return rows of the block's YET (int32, sorted) and losses (float64, above 0) of one perspective of a group.

    `parts`: the YELT; for ceded the gross and the net one, whose difference it is.
    """
    if perspective != "ceded":
        return parts[0]["row"], parts[0]["loss"].astype(np.float64)
    gross, net = parts
    loss = gross["loss"].astype(np.float64)
    kept = np.searchsorted(gross["row"], net["row"])
    loss[kept] -= net["loss"]
    # As `measure` has it: what rounding leaves of two sums is no loss, nor is it negative.
    left = loss > gross["loss"] * CEDED_ROUNDING
    return gross["row"][left], loss[left]


def period_rows(
    table: PeriodTable,
    yet: Arrays,
    row: Array,
    loss: Array,
    *,
    first_trial: int,
    trials: int,
    summary_id: int,
    sampled: bool,
    trial_year: int | None,
) -> dict[str, Array | None]:
    """Return one block's rows of a period loss table by column, None for a column of nulls.

    `row`, `loss`: rows of the block's `yet` and their losses, in the portfolio's currency. `first_trial`: the block's
    first trial, from 0; periods count from 1. `trials`: of the whole run; each weighs 1 / trials. Without a
    `trial_year` a period is its own year.
    """
    period = yet["trial"][row].astype(np.int32) + np.int32(first_trial + 1)
    ends = np.cumsum(DAYS_IN_MONTH)
    day = yet["day"][row].astype(np.int64)
    month = np.searchsorted(ends, day, side="right")

    def all_rows(value: float, kind: type = np.int32) -> Array:
        return np.full(row.size, value, dtype=kind)

    columns: dict[str, Array | None] = {
        "Period": period,
        "PeriodWeight": all_rows(1 / trials, np.float64),
        "EventId": yet["event"][row].astype(np.int32),
        "Year": period if trial_year is None else all_rows(trial_year),
        "Month": (month + 1).astype(np.int32),
        "Day": (day - np.concatenate(([0], ends))[month] + 1).astype(np.int32),
        "Hour": all_rows(0),
        "Minute": all_rows(0),
        "SummaryId": all_rows(summary_id),
    }
    if table == "mplt":
        columns |= {"SampleType": all_rows(ANALYTICAL), "MeanLoss": loss}
    else:
        columns |= {"SampleId": all_rows(FIRST_SAMPLE if sampled else MEAN_SAMPLE), "Loss": loss}
    return {column.name: columns.get(column.name) for column in PERIOD_TABLES[table]}
