"""The compiled kernel beside numpy: chosen at import, and refused unless it adds exactly as numpy does.

`RISKMILL_KERNEL` is `compiled` (the default: where there is one) or `numpy`. Both give the same bytes, so nothing else
depends on it, and it is the only thing in the environment that the domain reads. Numpy is the reference and does
whatever the kernel declines: every function here returns None then, and the caller goes on in numpy.

`make kernel` (python setup.py build_ext --inplace) builds `_kernel.c` beside this file. Each build is named for its
platform, so one folder carries several and each machine takes its own; and not `.so`, because `sam build` leaves out
files with that name.
"""

import math
import os
import platform
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.machinery import ExtensionFileLoader
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

import numpy as np

from riskmill.models.occurrences import F32, F64, I32, I64, YetIndex, index_yet, trial_starts, trials_of
from riskmill.outputs import Array, Arrays
from riskmill.terms import Terms

#: Environment variable: `numpy` or `compiled`.
CHOICE = "RISKMILL_KERNEL"

#: The build for this platform; setup.py names it so.
MACHINE = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
FILE = f"_kernel.{sys.platform}-{MACHINE}.bin"

#: Sums of LAYER_STATS, see pricing.
_STATS = 6

_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

#: Bits of an occurrence's row and of its place within its year; the events of an ELT have the other 64 - 48 or more.
_KEY_BITS = 48


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the models compute with: `name` is `compiled` or `numpy`, `why` says why it is numpy."""

    name: str
    why: str
    module: Any


def _load(choice: str) -> Kernel:
    """Return the compiled kernel, or numpy with the reason. Raises ValueError for a choice that there is not."""
    if choice not in ("", "compiled", "numpy"):
        raise ValueError(f"{CHOICE}={choice}: it is numpy or compiled")
    if choice == "numpy":
        return Kernel("numpy", f"{CHOICE}=numpy", None)
    folder = files("riskmill.models")
    built = folder / FILE
    if not built.is_file():
        return Kernel("numpy", f"no {FILE} was built", None)
    loader = ExtensionFileLoader("riskmill.models._kernel", str(built))
    try:
        module = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
        loader.exec_module(module)
    except ImportError as error:
        return Kernel("numpy", f"the compiled kernel does not load: {error}", None)
    source = folder / "_kernel.c"
    why = refusal(module, source.read_bytes() if source.is_file() else None)
    return Kernel("numpy", why, None) if why else Kernel("compiled", "", module)


def refusal(module: Any, source: bytes | None) -> str:
    """Return why a compiled kernel is not trusted, or nothing; `source` is the one beside it, if there is one."""
    if source is not None and source_digest(source) != module.SOURCE:
        return "the compiled kernel was built from another source; build it again"
    if not _adds_as_numpy(module):
        return "the compiled kernel does not add as numpy does"
    return ""


def source_digest(source: bytes) -> str:
    """Return what a kernel built from this source answers for its source."""
    return blake2b(source.replace(b"\r\n", b"\n"), digest_size=16).hexdigest()


def _adds_as_numpy(module: Any) -> bool:
    """Try the order of sums, that a product is rounded before it is added to, and that tiny numbers are kept."""
    number = np.arange(1, 1100)
    values = 1.0 / number + number * number * 1e3
    for size in (*range(1, 20), 127, 128, 129, 136, 137, 255, 264, 1023, 1099):
        part = values[:size]
        if module.sums(part) != (np.add.reduce(part), np.add.reduceat(part, [0])[0]):
            return False
    third = 1.0 / 3.0
    return bool(
        module.multiply_add(third, 3.1, -1.0) == third * 3.1 - 1.0 and module.multiply_add(5e-324, 1.0, 0.0) > 0
    )


KERNEL = _load(os.environ.get(CHOICE, ""))

_module = KERNEL.module


def compiled() -> bool:
    """Whether the models of this process compute with the compiled kernel."""
    return _module is not None


# ---- arrays and terms as the kernel takes them


def _is(array: Array, dtype: np.dtype[Any]) -> bool:
    return array.ndim == 1 and array.dtype == dtype and array.flags.c_contiguous


@dataclass(frozen=True, slots=True)
class _Inverted:
    """A YET as the kernel reads it (`yet_t`): its arrays and its numbers."""

    arrays: tuple[Array, ...]
    numbers: tuple[int, int, int, int]


def _inverted(yet: Arrays) -> _Inverted | None:
    """Return the YET as `yet_t`, or None when it is not of the usual types, or one year holds too many occurrences."""
    index: YetIndex = index_yet(yet)
    trial, day, rows = yet["trial"], yet["day"], yet["trial"].size
    if not (_is(trial, _INT32) and day.dtype == np.int16 and _is(day, day.dtype)):
        return None
    starts = trial_starts(trial)
    place = np.arange(rows) - np.repeat(starts, np.diff(np.append(starts, rows)))
    row_bits = max(int(rows - 1).bit_length(), 1)
    place_bits = int(place.max()).bit_length() if rows else 0
    if row_bits + place_bits > _KEY_BITS:
        return None
    packed = index.rows.astype(np.uint64) << np.uint64(64 - row_bits)
    packed |= place[index.rows].astype(np.uint64) << np.uint64(64 - row_bits - place_bits)
    # By the event's id where that table is small enough (YetIndex decides), else by its slot.
    by_slot = np.append(index.begin[: index.events.size], rows)
    ids = int(index.events[-1]) + 1 if index.slot_of_event.size and rows else 0
    begin = by_slot[np.searchsorted(index.events, np.arange(ids + 1))] if ids else by_slot
    arrays = (packed, trial[index.rows], begin.astype(np.int32), index.events, day)
    return _Inverted(arrays, (ids, trials_of(yet), row_bits, place_bits))


#: Terms that the kernel knows, and the defaults of all others: a layer that has another value there is left to numpy.
_KNOWN = {
    "type",
    "ceded_share",
    "occurrence_retention",
    "occurrence_limit",
    "aggregate_deductible",
    "aggregate_limit",
    "reinstatements",
    "premium",
    "participation",
    "placed_share",
}
_UNKNOWN = [(name, field.default) for name, field in Terms.model_fields.items() if name not in _KNOWN]
_LAYER = struct.Struct("=6d2q")


def takes(terms: Terms) -> bool:
    """Whether the kernel knows all terms of a layer."""
    for name, default in _UNKNOWN:
        if getattr(terms, name) != default:
            return False
    # Reinstatements of a layer without an occurrence limit are refused with a sentence, by numpy.
    return terms.reinstatements is None or terms.occurrence_limit is not None


def _packed(layers: Sequence[Terms]) -> tuple[bytes, bytes]:
    """Return the layers as `layer_t`s, and the charges of all their reinstatements."""
    parts: list[bytes] = []
    charges: list[float] = []
    for terms in layers:
        limit = math.inf if terms.occurrence_limit is None else terms.occurrence_limit
        annual = math.inf if terms.aggregate_limit is None else terms.aggregate_limit
        count, first = 0, len(charges)
        if terms.reinstatements is not None:
            count = len(terms.reinstatements)
            annual = min(annual, (count + 1) * limit)
            charges.extend(terms.reinstatements)
        parts.append(
            _LAYER.pack(
                terms.ceded_share,
                terms.occurrence_retention,
                limit,
                terms.aggregate_deductible,
                annual,
                terms.share,
                count,
                first,
            )
        )
    return b"".join(parts), struct.pack(f"={len(charges)}d", *charges)


# ---- the models' hot paths


def price_deal(
    layers: Sequence[Terms], elt: Arrays, yet: Arrays, *, rate: float = 1.0, days: tuple[int, int] | None = None
) -> tuple[I32, F32, F64] | None:
    """Return row, loss and layer_stats of a deal as `price_deal` does, or None where numpy has to."""
    if _module is None or not all(map(takes, layers)) or "event" not in elt or "mean" not in elt:
        return None
    event, mean = elt["event"], elt["mean"]
    if not (_is(event, _INT32) and _is(mean, _FLOAT64)) or event.size != mean.size:
        return None
    inverted = yet.derive("kernel.yet", _inverted)
    if inverted is None:
        return None
    packed, charges = _packed(layers)
    stats = np.empty((len(layers), _STATS))
    first, last = days or (0, 0)
    made = _module.price_deal(
        *inverted.arrays, event, mean, packed, charges, stats, inverted.numbers, rate, days is None, first, last
    )
    if made is None:
        return None
    return np.frombuffer(made[0], np.int32), np.frombuffer(made[1], np.float32), stats


def quote_layers(falling: F64, rank: I32, taken: I64, largest: F64, layers: Sequence[Terms], trials: int) -> F64 | None:
    """Return layer_stats of layers on one subject (see quotes.SubjectIndex), or None where numpy has to."""
    if _module is None:
        return None
    packed, charges = _packed(layers)
    stats = np.empty((len(layers), _STATS))
    done = _module.quote_layers(falling, rank, taken, largest, packed, charges, stats, trials)
    return None if done is None else stats


def event_order_recovery(loss: F64, starts: I64, deductible: float, limit: float) -> tuple[F64, F64] | None:
    """Return the recovery of each occurrence and of each year, or None where numpy has to."""
    if _module is None or not (_is(loss, _FLOAT64) and _is(starts, _INT64)):
        return None
    recovery, annual = np.empty(loss.size), np.empty(starts.size)
    done = _module.event_order(loss, starts, recovery, annual, deductible, limit)
    return None if done is None else (recovery, annual)


def roll_up(children: Sequence[Arrays]) -> tuple[I32, F64] | None:
    """Return row and loss of the sum of YELTs, or None where numpy has to."""
    if _module is None:
        return None
    arrays: list[Array] = []
    for child in children:
        row, loss = child.get("row"), child.get("loss")
        if row is None or loss is None or row.size != loss.size or not _is(row, _INT32):
            return None
        if not (_is(loss, _FLOAT32) or _is(loss, _FLOAT64)):
            return None
        arrays += (row, loss)
    made = _module.roll_up(arrays)
    return None if made is None else (np.frombuffer(made[0], np.int32), np.frombuffer(made[1], np.float64))


def annual_losses(leaf: Arrays, yet: Arrays) -> tuple[I64, I32, F64] | None:
    """Return the member, trial and annual loss of each year in which a member loses, or None where numpy has to."""
    if _module is None:
        return None
    offsets, row, loss, trial = leaf["member_offsets"], leaf["member_row"], leaf["member_loss"], yet["trial"]
    if not (_is(offsets, _INT64) and _is(row, _INT32) and _is(loss, _FLOAT32) and _is(trial, _INT32)):
        return None
    if offsets.size < 1 or row.size != loss.size:
        return None
    member, year, annual = np.empty(row.size, np.int64), np.empty(row.size, np.int32), np.empty(row.size)
    count = _module.annual_losses(offsets, row, loss, trial, member, year, annual)
    return None if count is None else (member[:count], year[:count], annual[:count])
