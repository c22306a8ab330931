"""Year-event tables (YET), event loss tables (ELT) and year-event loss tables (YELT), as the models read them.

A YET is sorted by (trial, day); a row is a position in it, so sorted rows are in the order of time. A YELT names the
rows that have a loss, sorted. Nothing here changes what it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riskmill.errors import ModelError
from riskmill.outputs import Arrays

type F64 = np.ndarray[Any, np.dtype[np.float64]]
type F32 = np.ndarray[Any, np.dtype[np.float32]]
type I64 = np.ndarray[Any, np.dtype[np.int64]]
type I32 = np.ndarray[Any, np.dtype[np.int32]]

#: Largest loss of one event that is taken for real; it keeps sums and float32 far from overflow.
MAX_LOSS = 1e30

#: Up to this event id a table indexed by the id finds an event's occurrences; above it, a binary search.
_DIRECT_IDS = 1 << 22


@dataclass(frozen=True, slots=True)
class YetIndex:
    """The inverted YET: where each event occurs.

    Events of the YET are numbered by slots (sorted by event id); one slot more, without occurrences, stands for every
    event that does not occur.
    """

    #: rows of the YET, grouped by slot, in the order of time within a slot
    rows: I32
    #: slot of each row of the YET
    slot_of_row: I32
    #: first position in `rows` and number of occurrences of each slot [slots + 1]
    begin: I64
    count: I64
    #: event id of each slot [slots]
    events: I32
    #: slot of each event id [max id + 2]; empty when ids are too large for that
    slot_of_event: I32

    def slots(self, events: I32) -> I64:
        """Return the slot of each event id."""
        if self.slot_of_event.size:
            slots: I64 = self.slot_of_event[np.minimum(events, self.slot_of_event.size - 1)].astype(np.int64)
            return slots
        slots = np.searchsorted(self.events, events).astype(np.int64)
        absent = self.events[np.minimum(slots, self.events.size - 1)] != events
        slots[absent] = self.events.size
        return slots

    def occurrences(self, slots: I64) -> I32:
        """Return the rows at which the events in these slots occur, event by event."""
        rows: I32 = self.rows[self.places(slots, self.count[slots])]
        return rows

    def places(self, slots: I64, count: I64) -> I64:
        """Return where in `rows` the occurrences of the events in these slots are, event by event."""
        end = np.cumsum(count)
        at: I64 = np.repeat(self.begin[slots] - (end - count), count)
        at += np.arange(at.size)
        return at


def index_yet(yet: Arrays) -> YetIndex:
    """Return the inverted YET, made once per YET in memory."""
    return yet.derive("occurrences.index", _index_yet)


def _index_yet(yet: Arrays) -> YetIndex:
    event = yet["event"]
    rows = np.argsort(event, kind="stable").astype(np.int32)
    grouped = event[rows]
    begin = np.flatnonzero(np.concatenate(([True], grouped[1:] != grouped[:-1]))[: grouped.size])
    events = grouped[begin].astype(np.int32)
    count = np.diff(np.append(begin, grouped.size))
    slot_of_row = np.empty(event.size, np.int32)
    slot_of_row[rows] = np.repeat(np.arange(begin.size, dtype=np.int32), count)
    slot_of_event = np.empty(0, np.int32)
    if not events.size or events[-1] < _DIRECT_IDS:
        slot_of_event = np.full(int(events[-1]) + 2 if events.size else 2, events.size, np.int32)
        slot_of_event[events] = np.arange(events.size, dtype=np.int32)
    return YetIndex(rows, slot_of_row, np.append(begin, 0), np.append(count, 0), events, slot_of_event)


def need(arrays: Arrays, what: str, *names: str) -> None:
    """Raise ModelError unless `arrays` has all of `names`."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ModelError(f"the {what} has no array {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'none'}")


def check_yet(yet: Arrays) -> Arrays:
    """Return the YET. Raises ModelError when it is not one."""
    return yet.derive("occurrences.yet", _check_yet)


def _check_yet(yet: Arrays) -> Arrays:
    need(yet, "year-event table", "trial", "day", "event", "trials")
    trial, trials = yet["trial"], trials_of(yet)
    if not trial.shape == yet["event"].shape == yet["day"].shape or trial.ndim != 1:
        raise ModelError("the year-event table's trial, day and event differ in length")
    if trials < 1:
        raise ModelError(f"the year-event table has {trials} trials; it needs one at least")
    if trial.size and (trial[0] < 0 or trial[-1] >= trials or (trial[1:] < trial[:-1]).any()):
        raise ModelError(f"the year-event table's trials are not sorted within 0..{trials - 1}")
    if trial.size and yet["event"].min() < 0:
        raise ModelError("the year-event table has a negative event id")
    return yet


def trials_of(yet: Arrays) -> int:
    """Return the number of trials of a YET."""
    return int(yet["trials"][0])


def check_elt(elt: Arrays) -> Arrays:
    """Return the ELT. Raises ModelError when events are not sorted and unique, or a mean loss is not a loss."""
    return elt.derive("occurrences.elt", _check_elt)


def _check_elt(elt: Arrays) -> Arrays:
    need(elt, "event loss table", "event", "mean")
    event, mean = elt["event"], elt["mean"]
    if event.shape != mean.shape or event.ndim != 1:
        raise ModelError(f"the event loss table has {event.size} events and {mean.size} mean losses")
    if not event.size:
        return elt
    if event[0] < 0 or not (event[1:] > event[:-1]).all():
        raise ModelError("the event loss table's events are not sorted, unique and positive")
    if not (mean.min() >= 0 and mean.max() <= MAX_LOSS):
        raise ModelError(f"the event loss table has a mean loss that is negative, not a number or above {MAX_LOSS:g}")
    return elt


def check_yelt(yelt: Arrays, rows: int | None = None) -> Arrays:
    """Return the YELT. Raises ModelError when rows are not sorted and unique within a YET of `rows` occurrences."""
    yelt.derive("occurrences.yelt", _check_yelt)
    row = yelt["row"]
    if rows is not None and row.size and row[-1] >= rows:
        raise ModelError(f"a year-event loss table names row {row[-1]} of a year-event table of {rows} rows")
    return yelt


def _check_yelt(yelt: Arrays) -> Arrays:
    need(yelt, "year-event loss table", "row", "loss")
    row, loss = yelt["row"], yelt["loss"]
    if row.shape != loss.shape or row.ndim != 1:
        raise ModelError(f"a year-event loss table has {row.size} rows and {loss.size} losses")
    if row.size and (row[0] < 0 or not (row[1:] > row[:-1]).all()):
        raise ModelError("a year-event loss table's rows are not sorted, unique and from 0")
    if loss.size and not (loss.min() >= 0 and loss.max() < np.inf):
        raise ModelError("a year-event loss table has a loss that is negative or not a number")
    return yelt


def trial_starts(trial: I32) -> I64:
    """Return where each trial begins in a sorted array of trials (or any run of equal numbers)."""
    if not trial.size:
        return np.empty(0, np.int64)
    change = np.empty(trial.size, np.bool_)
    change[0] = True
    np.not_equal(trial[1:], trial[:-1], out=change[1:])
    return np.flatnonzero(change)


def sum_by_trial(loss: F64, starts: I64) -> F64:
    """Return the sum of the losses of each trial that begins at `starts`."""
    return np.add.reduceat(loss, starts) if starts.size else np.empty(0, np.float64)


def largest_by_trial(loss: F64, starts: I64) -> F64:
    """Return the largest loss of each trial that begins at `starts`."""
    return np.maximum.reduceat(loss, starts) if starts.size else np.empty(0, np.float64)


def split_blocks(inputs: Sequence[Arrays], blocks: int, *parts: str, extra: int = 0) -> list[Sequence[Arrays]]:
    """Return the inputs as one list of `blocks` for each of `parts`, and the `extra` ones behind them."""
    wanted = blocks * len(parts) + extra
    if len(inputs) != wanted:
        named = ", ".join(parts)
        raise ModelError(f"{len(inputs)} inputs; {named} of each of {blocks} block(s) and {extra} more make {wanted}")
    lists = [inputs[k * blocks : (k + 1) * blocks] for k in range(len(parts))]
    return [*lists, inputs[blocks * len(parts) :]]
