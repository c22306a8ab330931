"""A run's live progress: one bar a wave, fed by the control table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class RunProgress:
    """Shows a run as it goes. Use as a context manager; `show` takes items as Deployment.watch yields them."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bars: dict[tuple[int, int], TaskID] = {}
        self._phase = self._progress.add_task("plan", total=1, note="")

    def __enter__(self) -> "RunProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, run: Mapping[str, Any]) -> None:
        """Show the state of a run."""
        jobs = run.get("jobs")
        if "cached" in run:
            note = f"{jobs:,} jobs, {run['cached']:,} cached, {run['to_run']:,} to run"
            self._progress.update(self._phase, completed=1, total=1, note=note)
        elif jobs:
            self._progress.update(self._phase, note=f"{jobs:,} jobs")
        for wave, counts in waves_of(run):
            finished, batches = wave_progress(run, *wave)
            bar = self._bars.get(wave)
            if bar is None:
                if not finished and self._bars and wave[1] > 0:
                    continue  # a wave that has not begun has no bar yet, so that its clock starts when it does
                again = f" (round {wave[0] + 1})" if wave[0] else ""
                bar = self._bars[wave] = self._progress.add_task(
                    f"wave {wave[1] + 1}{again}", total=counts["jobs"], note=""
                )
            note = f"{batches} of {counts['batches']} batches"
            self._progress.update(bar, completed=finished, total=counts["jobs"], note=note)


def waves_of(run: Mapping[str, Any]) -> list[tuple[tuple[int, int], dict[str, Any]]]:
    """Return ((round, wave), counts) of every planned wave of a run, in order."""
    waves = []
    for number in range(int(run.get("round", 0)) + 1):
        waves += [((number, wave), counts) for wave, counts in enumerate(run.get(f"waves_r{number}", []))]
    return waves


def wave_progress(run: Mapping[str, Any], round_number: int, wave: int) -> tuple[int, int]:
    """Return (jobs dealt with, batches ended) of one wave."""
    batches = [b for b in run.get("batches", []) if b.get("round") == round_number and b.get("wave") == wave]
    counted = ("done", "failed", "missing", "left")
    return (
        sum(int(batch.get(name, 0)) for batch in batches for name in counted),
        sum("seconds" in batch for batch in batches),
    )
