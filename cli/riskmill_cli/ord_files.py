"""Writes a run's results as ORD files: tables of the summary, and period loss tables from the run's outputs.

Period loss tables are written block by block, so that memory holds one block of one group. Their losses are outputs of
the run's jobs, which S3 keeps for the retention time only.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from riskmill.aws.deployment import Deployment
from riskmill.aws.objects import Bucket
from riskmill.errors import RiskmillError
from riskmill.graph import JobGraph
from riskmill.jobs import object_name
from riskmill.ord import PERIOD_TABLES, PeriodTable, losses_of, ord_tables, period_rows, period_tables
from riskmill.outputs import Array, Arrays, decode
from riskmill.portfolio import Portfolio
from riskmill.results import GroupResult, Summary, summary_ids
from riskmill.rollup_graph import blocks_of, measure_name
from riskmill.run_files import graph_file, portfolio_file
from riskmill_cli.results_files import ARROW, FORMATS, Format, write_table


def write_ord(
    deployment: Deployment,
    run_id: str,
    folder: Path,
    groups: Collection[str] | None,
    formats: Iterable[Format] = FORMATS,
) -> list[Path]:
    """Write a run's ORD tables into `folder`; return the paths.

    `groups`: ids of the groups whose period loss tables are written, none of them for an empty collection, the top
    group for None. Raises RiskmillError when a group is not one of the run, and when the run's outputs have expired.
    """
    summary = deployment.summary(run_id)
    formats = tuple(formats)
    wanted = [
        (number, group)
        for number, group in summary_ids(summary)
        if (group.top if groups is None else group.group_id in groups)
    ]
    unknown = set(groups or ()) - {group.group_id for _, group in wanted}
    if unknown:
        raise RiskmillError(f"run {run_id} has no group {', '.join(sorted(unknown))}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [path for table in ord_tables(summary) for path in write_table(table, folder, formats)]
        if wanted:
            paths += _write_periods(deployment.bucket, run_id, summary, wanted, folder, formats)
    except OSError as error:
        raise RiskmillError(f"{error.filename or folder}: {error.strerror}") from error
    except KeyError as error:
        raise RiskmillError(
            f"an output of run {run_id} is gone ({error.args[0]}): run the rollup again, or leave period loss tables "
            "out (--no-periods)"
        ) from error
    return paths


def _write_periods(
    bucket: Bucket,
    run_id: str,
    summary: Summary,
    wanted: list[tuple[int, GroupResult]],
    folder: Path,
    formats: tuple[Format, ...],
) -> list[Path]:
    graph = JobGraph.from_bytes(bucket.get(graph_file(run_id)))
    trial_year = Portfolio.from_json(bucket.get(portfolio_file(summary.portfolio.key))).trial_year
    with ExitStack() as stack:
        writers = [
            _Writer(folder / f"{name}.{kind}", name, kind, stack) for name in period_tables(summary) for kind in formats
        ]
        for number, group in wanted:
            for first_trial, yet, row, loss in _blocks(bucket, graph, summary, group):
                for writer in writers:
                    writer.write(
                        period_rows(
                            writer.table,
                            yet,
                            row,
                            loss,
                            first_trial=first_trial,
                            trials=summary.portfolio.trials,
                            summary_id=number,
                            sampled=summary.ep_calc == 2,
                            trial_year=trial_year,
                        ),
                        row.size,
                    )
    return [writer.path for writer in writers]


def _blocks(
    bucket: Bucket, graph: JobGraph, summary: Summary, group: GroupResult
) -> Iterator[tuple[int, Arrays, Array, Array]]:
    """Yield first trial, YET, rows and losses of each block: what the group's measures were made from."""
    target = graph.target_names.index(measure_name(group.group_id, group.perspective))
    refs = graph.refs_of(int(graph.targets[target]))
    blocks = blocks_of(summary.portfolio.trials)
    parts = 2 if group.perspective == "ceded" else 1
    for block, (first_trial, _) in enumerate(blocks):
        names = [object_name(refs[block + part * len(blocks)]) for part in range(parts + 1)]
        yet, *yelts = [decode(data) for data in bucket.get_many(names)]
        yield first_trial, yet, *losses_of(yelts, group.perspective)


class _Writer:
    """One period loss table in one format, open until the stack ends."""

    def __init__(self, path: Path, table: PeriodTable, kind: Format, stack: ExitStack) -> None:
        self.path, self.table = path, table
        self.schema = pa.schema([pa.field(column.name, ARROW[column.kind]) for column in PERIOD_TABLES[table]])
        self.csv: IO[bytes] | None = None
        if kind == "csv":
            self.csv = stack.enter_context(path.open("wb"))
            self.csv.write((",".join(self.schema.names) + "\n").encode())
        else:
            self.parquet = stack.enter_context(pq.ParquetWriter(path, self.schema, compression="zstd"))

    def write(self, columns: dict[str, Array | None], rows: int) -> None:
        arrays = [
            pa.nulls(rows, field.type) if columns[field.name] is None else pa.array(columns[field.name], field.type)
            for field in self.schema
        ]
        block = pa.table(arrays, schema=self.schema)
        if self.csv is None:
            self.parquet.write_table(block)
        else:
            pyarrow.csv.write_csv(block, self.csv, pyarrow.csv.WriteOptions(include_header=False))
