"""The compiled kernel gives numpy's bytes, declines what it does not know, and is refused when it cannot be trusted."""

import math
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riskmill.errors import ModelError
from riskmill.models import kernel, run_model
from riskmill.models.contracts import event_order_recovery
from riskmill.models.occurrences import trial_starts
from riskmill.outputs import Arrays, encode
from riskmill.terms import Terms

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "layers" / "domain" / "riskmill" / "models" / "_kernel.c"

built = pytest.mark.skipif(not kernel.compiled(), reason=f"no compiled kernel: {kernel.KERNEL.why}")


@contextmanager
def numpy_only() -> Iterator[None]:
    """Compute with numpy alone, as with RISKMILL_KERNEL=numpy."""
    module, kernel._module = kernel._module, None
    try:
        yield
    finally:
        kernel._module = module


@contextmanager
def kernel_only() -> Iterator[list[Any]]:
    """Yield the list of what the kernel answered, call by call."""
    answers: list[Any] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            function = getattr(module, name)

            def call(*arguments: Any) -> Any:
                answer = function(*arguments)
                answers.append(answer)
                return answer

            return call

    module = kernel._module
    kernel._module = Watched()
    try:
        yield answers
    finally:
        kernel._module = module


def both(name: str, params: dict[str, Any], inputs: list[Arrays], *, taken: bool | None = True) -> dict[str, Any]:
    """Run a model compiled and in numpy; assert the same bytes, and whether the kernel took it."""
    with kernel_only() as answers:
        found = run_model(name, 1, params, [Arrays(dict(arrays)) for arrays in inputs])
    with numpy_only():
        expected = run_model(name, 1, params, [Arrays(dict(arrays)) for arrays in inputs])
    assert encode(found) == encode(expected)
    if taken is not None:
        assert (bool(answers) and None not in answers) == taken
    return found


def year_event_table(rng: np.random.Generator, trials: int, events: int, per_year: float, offset: int = 0) -> Arrays:
    """Return a YET; some years are empty, some crowded, and one event may occur twice in a year."""
    counts = rng.poisson(per_year * rng.choice([0.2, 1.0, 3.0], trials))
    size = int(counts.sum())
    trial = np.repeat(np.arange(trials), counts)
    day = np.sort(trial * 365 + rng.integers(0, 365, size)) % 365
    event = rng.integers(1, events + 1, size) * 3 + offset
    return Arrays(
        {
            "trial": trial.astype(np.int32),
            "day": day.astype(np.int16),
            "event": event.astype(np.int32),
            "trials": np.array([trials]),
        }
    )


def event_loss_table(rng: np.random.Generator, events: int, part: float, offset: int = 0) -> Arrays:
    event = np.flatnonzero(rng.random(events + 20) < part) * 3 + offset
    mean = rng.lognormal(3, 2, event.size) * (rng.random(event.size) < 0.95)
    return Arrays({"event": event.astype(np.int32), "mean": mean})


amounts = st.floats(0, 3000, allow_subnormal=True) | st.sampled_from([0.0, 1.0, 100.0])
terms = st.fixed_dictionaries(
    {
        "type": st.just("CXL"),
        "ceded_share": st.sampled_from([1.0, 0.3, 1 / 3, 0.0]),
        "occurrence_retention": amounts,
        "occurrence_limit": amounts,
        "aggregate_deductible": st.just(0.0) | amounts,
        "aggregate_limit": st.none() | amounts,
        "reinstatements": st.none() | st.lists(st.floats(0, 2), max_size=3),
        "participation": st.sampled_from([1.0, 0.7, 1 / 3, 0.0]),
        "placed_share": st.sampled_from([1.0, 0.9]),
    }
) | st.fixed_dictionaries(
    {
        "type": st.just("QS"),
        "ceded_share": st.sampled_from([1.0, 0.3]),
        "aggregate_deductible": st.just(0.0) | amounts,
        "aggregate_limit": st.none() | amounts,
    }
)
few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@built
@few
@given(
    layers=st.lists(terms, min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    trials=st.integers(1, 60),
    events=st.integers(1, 40),
    per_year=st.sampled_from([0.0, 0.5, 5.0, 40.0]),
    part=st.sampled_from([0.0, 0.3, 1.0]),
    rate=st.sampled_from([1.0, 0.85]),
    period=st.sampled_from([None, (0, 364), (100, 200), (-50, 20), (400, 500)]),
    offset=st.sampled_from([0, 2**31 - 500]),
)
def test_a_deal_is_priced_to_the_same_bytes(
    layers: list[dict[str, Any]],
    seed: int,
    trials: int,
    events: int,
    per_year: float,
    part: float,
    rate: float,
    period: tuple[int, int] | None,
    offset: int,
) -> None:
    rng = np.random.default_rng(seed)
    yet = year_event_table(rng, trials, events, per_year, offset)
    elt = event_loss_table(rng, events, part, offset)
    params: dict[str, Any] = {"layers": layers, "rate": rate}
    if period is not None:
        params["period"] = {"first": period[0], "last": period[1]}
    both("price_deal", params, [elt, yet])


@built
@pytest.mark.parametrize("deductible", [0.0, 2e4])
def test_a_large_deal_is_priced_to_the_same_bytes(deductible: float) -> None:
    rng = np.random.default_rng(5)
    yet, elt = year_event_table(rng, 20_000, 3_000, 12.0), event_loss_table(rng, 3_000, 0.7)
    layers = [
        {"type": "CXL", "occurrence_retention": 60.0, "occurrence_limit": 90.0, "reinstatements": [1.0, 0.4]},
        {"type": "AXL", "aggregate_deductible": deductible, "aggregate_limit": 4e4, "participation": 0.15},
        {"type": "QS", "ceded_share": 0.07},
    ]
    made = both("price_deal", {"layers": layers}, [elt, yet])
    assert made["row"].size > 70_000


@built
@pytest.mark.parametrize(
    ("layer", "extra"),
    [
        ({"franchise_deductible": 50.0}, {}),
        ({"risk_retention": 10.0}, {}),
        ({"recovery_order": "pro_rata", "aggregate_limit": 100.0}, {}),
        ({"reinstatements": [1.0], "reinstatement_basis": "amount_and_time"}, {}),
        ({"inuring_priority": 2}, {}),
    ],
    ids=lambda value: ",".join(value) or "-",
)
def test_terms_that_the_kernel_does_not_know_are_left_to_numpy(layer: dict[str, Any], extra: dict[str, Any]) -> None:
    assert not kernel.takes(Terms(type="CXL", occurrence_limit=300.0, **layer))
    rng = np.random.default_rng(1)
    yet, elt = year_event_table(rng, 200, 50, 4.0), event_loss_table(rng, 50, 0.9)
    layers = [{"type": "CXL", "occurrence_limit": 300.0, **layer}, {"type": "QS", "ceded_share": 0.5}]
    with kernel_only() as answers:
        found = run_model("price_deal", 1, {"layers": layers, **extra}, [elt, yet])
    assert found["row"].size
    with numpy_only():
        expected = run_model("price_deal", 1, {"layers": layers, **extra}, [Arrays(dict(elt)), Arrays(dict(yet))])
    assert encode(found) == encode(expected)
    # Only recoveries in the order of events are the kernel's, and these answer with a number.
    assert all(isinstance(answer, int) for answer in answers)


@built
@pytest.mark.parametrize("mean", [[1.0, math.nan], [1.0, -1.0], [1.0, 1e31]])
def test_a_bad_event_loss_table_is_refused_in_numpys_words(mean: list[float]) -> None:
    rng = np.random.default_rng(1)
    elt = Arrays({"event": np.array([3, 6], np.int32), "mean": np.array(mean)})
    with pytest.raises(ModelError, match="negative, not a number or above"):
        run_model("price_deal", 1, {"layers": [{"type": "QS"}]}, [elt, year_event_table(rng, 5, 5, 2.0)])


@built
def test_tables_of_other_types_are_left_to_numpy() -> None:
    rng = np.random.default_rng(2)
    yet, elt = year_event_table(rng, 50, 20, 3.0), event_loss_table(rng, 20, 0.9)
    other = Arrays(elt | {"mean": elt["mean"].astype(np.float32)})
    with kernel_only() as answers:
        run_model("price_deal", 1, {"layers": [{"type": "QS"}]}, [other, yet])
    # Only recoveries in the order of events are the kernel's, and these answer with a number.
    assert all(isinstance(answer, int) for answer in answers)
    strided = Arrays(elt | {"mean": np.repeat(elt["mean"], 2)[::2]})
    found = run_model("price_deal", 1, {"layers": [{"type": "QS"}]}, [strided, yet])
    assert encode(found) == encode(run_model("price_deal", 1, {"layers": [{"type": "QS"}]}, [elt, yet]))


@built
@few
@given(
    seed=st.integers(0, 2**32),
    children=st.integers(0, 8),
    rows=st.sampled_from([1, 10, 1_000, 200_000]),
    part=st.sampled_from([0.0, 0.01, 0.8]),
    single=st.booleans(),
)
def test_sums_of_groups_have_the_same_bytes(seed: int, children: int, rows: int, part: float, single: bool) -> None:
    rng = np.random.default_rng(seed)
    inputs = []
    for _ in range(children):
        row = np.flatnonzero(rng.random(rows) < part).astype(np.int32)
        loss = rng.lognormal(3, 3, row.size) * (rng.random(row.size) < 0.9)
        inputs.append(Arrays({"row": row, "loss": loss.astype(np.float32 if single else np.float64)}))
    both("roll_up", {}, inputs)


@built
@pytest.mark.parametrize(
    "child",
    [
        {"row": np.array([1, 1], np.int32), "loss": np.ones(2)},
        {"row": np.array([-1, 1], np.int32), "loss": np.ones(2)},
        {"row": np.array([0, 1], np.int32), "loss": np.array([1.0, math.nan])},
        {"row": np.array([0, 1], np.int32), "loss": np.array([1.0, math.inf], np.float32)},
        {"row": np.array([0, 1], np.int32), "loss": np.ones(1)},
        {"row": np.array([0, 1], np.int32)},
    ],
)
def test_what_is_no_year_event_loss_table_is_refused_in_numpys_words(child: dict[str, Any]) -> None:
    good = Arrays({"row": np.array([0], np.int32), "loss": np.ones(1)})
    with pytest.raises(ModelError) as compiled:
        run_model("roll_up", 1, {}, [good, Arrays(child)])
    with numpy_only(), pytest.raises(ModelError) as reference:
        run_model("roll_up", 1, {}, [good, Arrays(child)])
    assert str(compiled.value) == str(reference.value)


@built
@few
@given(
    years=st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), max_size=12),
    deductible=st.just(0.0) | st.floats(0, 1e6),
    limit=st.none() | st.floats(0, 1e6),
)
def test_recoveries_in_the_order_of_events_have_the_same_bytes(
    years: list[list[float]], deductible: float, limit: float | None
) -> None:
    loss = np.array([loss + 0.1 for year in years for loss in year])
    starts = trial_starts(np.repeat(np.arange(len(years)), [len(year) for year in years]).astype(np.int32))
    contract = Terms(type="AXL", aggregate_deductible=deductible, aggregate_limit=limit)
    found = event_order_recovery(contract, loss, starts)
    with numpy_only():
        expected = event_order_recovery(contract, loss, starts)
    assert [part.tobytes() for part in found] == [part.tobytes() for part in expected]


@built
@few
@given(layers=st.lists(terms, min_size=1, max_size=5), seed=st.integers(0, 2**32), trials=st.integers(1, 200))
def test_many_layers_on_one_subject_have_the_same_bytes_and_those_of_price_deal_but_for_rounding(
    layers: list[dict[str, Any]], seed: int, trials: int
) -> None:
    rng = np.random.default_rng(seed)
    yet, elt = year_event_table(rng, trials, 60, 4.0), event_loss_table(rng, 60, 0.7)
    subject = Arrays(run_model("price_deal", 1, {"layers": [{"type": "QS"}]}, [elt, yet]))
    found = both("quote_layers", {"layers": layers}, [subject, yet])["layer_stats"]
    # The subject is stored in float32, so the deal is priced on the same rounded losses.
    elt = Arrays(elt | {"mean": elt["mean"].astype(np.float32).astype(np.float64)})
    for name in ("price_deal", "quote_deal"):
        expected = run_model(name, 1, {"layers": layers}, [elt, yet])["layer_stats"]
        # Exhausted years sit on the edge of a limit, where rounding decides.
        np.testing.assert_allclose(found[:, [0, 1, 2, 3, 5]], expected[:, [0, 1, 2, 3, 5]], rtol=1e-9, atol=1e-6)


def test_quotes_refuse_terms_that_need_the_order_of_time() -> None:
    rng = np.random.default_rng(3)
    yet, elt = year_event_table(rng, 20, 20, 3.0), event_loss_table(rng, 20, 0.7)
    layers = [
        {"type": "CXL", "occurrence_limit": 1.0, "reinstatements": [1.0], "reinstatement_basis": "amount_and_time"}
    ]
    with pytest.raises(ModelError, match="layer 0 has terms that need"):
        run_model("quote_deal", 1, {"layers": layers}, [elt, yet])


def test_an_index_of_one_subject_is_not_used_for_another_year_event_table() -> None:
    rng = np.random.default_rng(4)
    subject = Arrays({"row": np.arange(6, dtype=np.int32), "loss": np.arange(6) + 1.0})
    found = []
    for counts in ([6, 0], [3, 3]):
        yet = year_event_table(rng, 2, 9, 0.0)
        yet["trial"] = np.repeat(np.arange(2, dtype=np.int32), counts)
        yet["day"], yet["event"] = np.arange(6, dtype=np.int16), np.arange(6, dtype=np.int32)
        layers = [{"type": "AXL", "aggregate_limit": 10.0}]
        found.append(run_model("quote_layers", 1, {"layers": layers}, [subject, yet])["layer_stats"][0, 1])
    assert found == [10.0, 6.0 + 10.0]


def test_numpy_can_be_chosen_and_an_unknown_choice_is_refused() -> None:
    chosen = kernel._load("numpy")
    assert (chosen.name, chosen.why) == ("numpy", "RISKMILL_KERNEL=numpy")
    with pytest.raises(ValueError, match="numpy or compiled"):
        kernel._load("fortran")


@built
def test_a_kernel_that_adds_in_another_order_or_fuses_is_not_trusted() -> None:
    module = kernel.KERNEL.module

    class Sequential:
        SOURCE = module.SOURCE
        multiply_add = staticmethod(module.multiply_add)

        @staticmethod
        def sums(numbers: Any) -> tuple[float, float]:
            return float(np.cumsum(numbers)[-1]), float(np.cumsum(numbers)[-1])

    class Fused:
        SOURCE = module.SOURCE
        sums = staticmethod(module.sums)

        @staticmethod
        def multiply_add(a: float, b: float, c: float) -> float:
            return math.fma(a, b, c)

    source = SOURCE.read_bytes()
    assert kernel.refusal(module, source) == ""
    assert kernel.refusal(module, None) == ""
    assert "another source" in kernel.refusal(module, source + b"\n")
    for other in (Sequential, Fused):
        assert "does not add as numpy does" in kernel.refusal(other, source)


@built
def test_the_kernel_carries_the_digest_of_its_source() -> None:
    assert kernel.source_digest(SOURCE.read_bytes()) == kernel.KERNEL.module.SOURCE


#: What tests/unit/kernel_harness.c prints on any machine: a change here is a change of results.
HARNESS = "003ca71ddd575bae"


@pytest.mark.parametrize(
    ("compiler", "runner"),
    [("cc", ""), ("aarch64-linux-gnu-gcc", "qemu-aarch64")],
    ids=["this machine", "arm64 under qemu"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="leaves Python's symbols unresolved, as GNU ld can")
def test_the_kernel_gives_the_same_bytes_on_every_architecture(compiler: str, runner: str, tmp_path: Path) -> None:
    for program in filter(None, (compiler, runner)):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    program = tmp_path / "harness"
    flags = ["-std=c99", "-O3", "-ffp-contract=off", "-static", "-Wl,--unresolved-symbols=ignore-all"]
    folders = ["-I", str(SOURCE.parent), "-I", sysconfig.get_path("include")]
    built = [compiler, *flags, *folders, str(Path(__file__).with_name("kernel_harness.c")), "-o", str(program)]
    subprocess.run(built, check=True, capture_output=True)
    done = subprocess.run([*filter(None, [runner]), str(program)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == HARNESS
