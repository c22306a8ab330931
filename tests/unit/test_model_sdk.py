"""Models of one's own: found, registered, run on files, and pricing deals of a portfolio."""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from riskmill.errors import ModelError, PortfolioInvalid, RiskmillError
from riskmill.models import MODELS, find_model, model, run_model
from riskmill.models.catalogue import BLOCK_TRIALS
from riskmill.models.discovery import import_all
from riskmill.models.pricing import LAYER_STATS
from riskmill.outputs import Array, Arrays
from riskmill.planner import DEFAULT_RATES, JOB_OVERHEAD_SECONDS, USERS_PRICE_RATE, estimate_seconds
from riskmill.portfolio import Portfolio
from riskmill.rollup_graph import rollup_graph
from riskmill.sdk import Paid, PriceDealParams, deal_occurrences, deal_output, pay_layers
from riskmill_cli.main import app
from riskmill_cli.model_commands import load_file, read_arrays
from riskmill_cli.portfolio_folder import PreparedPortfolio, read_folder
from rollup_cloud import Direct, run_directly, tiny_portfolio
from unit.portfolio_fixtures import Folder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "own_models"
NTH, PARETO = EXAMPLES / "nth_event_cover.py", EXAMPLES / "pareto_severity.py"

ALL_OF_IT = {"type": "QS", "ceded_share": 1.0}


@pytest.fixture(autouse=True)
def own_models() -> Iterator[None]:
    """Whatever a test registers or imports is gone behind it."""
    before, modules = dict(MODELS), set(sys.modules)
    yield
    MODELS.clear()
    MODELS.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith(("riskmill_file_", "own_package")):
            del sys.modules[name]


def elt(losses: dict[int, float]) -> Arrays:
    return Arrays({"event": np.array([*losses], np.int32), "mean": np.array([*losses.values()], np.float64)})


def yet(years: Sequence[Sequence[int]]) -> Arrays:
    return Arrays(
        {
            "trial": np.repeat(np.arange(len(years), dtype=np.int32), [len(year) for year in years]),
            "day": np.array([10 * n for year in years for n in range(len(year))], np.int16),
            "event": np.array([event for year in years for event in year], np.int32),
            "trials": np.array([len(years)], np.int64),
        }
    )


# ---- registering


def test_a_model_takes_its_parameters_from_the_annotation_and_version_1() -> None:
    class Doubled(BaseModel):
        by: float

    def times(params: Doubled, inputs: Sequence[Arrays]) -> dict[str, Array]:
        return {"x": inputs[0]["x"] * params.by}

    model("times")(times)
    assert MODELS["times", 1].params is Doubled
    assert run_model("times", 1, {"by": 3}, [Arrays({"x": np.array([1.0, 2.0])})])["x"].tolist() == [3.0, 6.0]
    with pytest.raises(ModelError, match=r"times version 1: (?s:.*)by"):
        run_model("times", 1, {}, [])


def test_a_model_without_typed_parameters_or_a_sound_name_is_refused() -> None:
    def untyped(params, inputs):  # type: ignore[no-untyped-def]
        return {}

    with pytest.raises(TypeError, match="annotate the first argument"):
        model("untyped")(untyped)
    with pytest.raises(ValueError, match="a name is a letter"):
        model("two words")
    with pytest.raises(ValueError, match="versions count from 1"):
        model("fine", version=0)


def test_a_model_is_found_by_name_and_version_and_the_latest_without_one() -> None:
    load_file(NTH)
    assert find_model("nth_event_cover") is find_model("nth_event_cover@1") is MODELS["nth_event_cover", 1]
    with pytest.raises(ModelError, match=r"did you mean nth_event_cover"):
        find_model("nth_events_cover")
    with pytest.raises(ModelError, match=r"no version '7' of model nth_event_cover; known: 1"):
        find_model("nth_event_cover@7")


# ---- discovery


def package(folder: Path, **files: str) -> ModuleType:
    """Return a package of these files, that stands for riskmill.user_models."""
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    found = ModuleType(folder.name)
    found.__path__ = [str(folder)]
    sys.modules[folder.name] = found
    return found


def test_every_file_of_the_package_is_imported_and_its_models_are_registered(tmp_path: Path) -> None:
    own = package(tmp_path / "own_package", b=NTH.read_text(), a=PARETO.read_text())
    assert import_all(own) == ["a", "b"]
    assert {("nth_event_cover", 1), ("pareto_severity", 1)} <= MODELS.keys()
    assert MODELS["nth_event_cover", 1].run.__module__ == "own_package.b"


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    own = package(tmp_path / "own_package", fine="x = 1", broken="import no_such_module_anywhere")
    with pytest.raises(ImportError, match=r"own_package/broken\.py cannot be imported: ModuleNotFoundError"):
        import_all(own)


def test_a_file_in_the_users_folder_is_deployed_with_no_other_change(tmp_path: Path) -> None:
    """The domain as it is copied to Lambda, with one more file in it, knows one more model."""
    import subprocess

    import riskmill

    domain = tmp_path / "domain"
    shutil.copytree(Path(riskmill.__file__).parent, domain / "riskmill", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(NTH, domain / "riskmill" / "user_models" / "nth_event_cover.py")
    asked = "from riskmill.compute import run_model\nfrom riskmill.models.registry import MODELS\nprint(sorted(MODELS))"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={"PYTHONPATH": str(domain), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "('nth_event_cover', 1)" in done.stdout


# ---- the worked examples


def test_a_second_event_cover_pays_from_the_second_qualifying_event_of_a_year() -> None:
    load_file(NTH)
    layer = {"type": "CXL", "occurrence_retention": 50, "occurrence_limit": 100, "reinstatements": [1.0], "premium": 8}
    made = run_model(
        "nth_event_cover",
        1,
        {"layers": [layer], "event_number": 2, "qualifying_loss": 60},
        # 120, 90, 55 (does not qualify), 400 | 400 | nothing | 90, 120, 400, 400
        [elt({1: 120, 2: 90, 3: 55, 4: 400}), yet([[1, 2, 3, 4], [4], [], [2, 1, 4, 4]])],
    )
    assert made["row"].tolist() == [1, 3, 6, 7, 8]
    # the last year: 70 + 100, then the second limit's last 30
    assert made["loss"].tolist() == [40, 100, 70, 100, 30]
    stats = dict(zip(LAYER_STATS, made["layer_stats"][0].tolist(), strict=True))
    assert stats == {
        "trials": 4,
        "recovery": 340,
        "recovery_squared": 140**2 + 200**2,
        "attached": 2,
        "exhausted": 1,
        "reinstated": 2.0,
    }


def test_the_first_event_of_no_threshold_is_the_usual_cover() -> None:
    load_file(NTH)
    layers = [
        {
            "type": "CXL",
            "occurrence_retention": 50,
            "occurrence_limit": 100,
            "reinstatements": [1.0, 0.5],
            "premium": 8,
        },
        {"type": "QS", "ceded_share": 0.25, "participation": 0.5},
        {"type": "AXL", "aggregate_deductible": 100, "aggregate_limit": 300},
    ]
    rng = np.random.default_rng(3)
    inputs = [
        elt({event: 10.0 * event for event in range(1, 30)}),
        yet([rng.integers(1, 30, rng.integers(0, 6)).tolist() for _ in range(300)]),
    ]
    own = run_model("nth_event_cover", 1, {"layers": layers, "event_number": 1}, inputs)
    ours = run_model("price_deal", 1, {"layers": layers}, inputs)
    assert own.keys() == ours.keys()
    for name, array in ours.items():
        assert own[name].dtype == array.dtype, name
        assert np.array_equal(own[name], array), name


def sampling(first_trial: int) -> dict[str, Any]:
    return {"seed": 5, "first_trial": first_trial, "stream": "a"}


def test_pareto_multiples_have_mean_1_and_the_laws_quantiles_and_are_drawn_alike_in_any_block() -> None:
    load_file(PARETO)
    years = [[1, 2]] * 10_000
    params = {"layers": [ALL_OF_IT], "alpha": 2.0}
    halves = [
        run_model("pareto_severity", 1, params | {"sampling": sampling(first)}, [elt({1: 10, 2: 30}), yet(years)])
        for first in (0, 10_000)
    ]
    whole = run_model(
        "pareto_severity", 1, params | {"sampling": sampling(0)}, [elt({1: 10, 2: 30}), yet(years + years)]
    )
    assert np.array_equal(whole["loss"], np.concatenate([half["loss"] for half in halves]))
    assert not np.array_equal(halves[0]["loss"], halves[1]["loss"])
    multiple = whole["loss"] / np.tile([10.0, 30.0], 20_000)
    # Pareto of index 2 and mean 1 has the least value 1/2, and P(X > x) = (2x)^-2
    assert multiple.min() == pytest.approx(0.5, rel=0.02)
    assert np.mean(multiple > 1.0) == pytest.approx(0.25, abs=0.02)
    assert np.mean(multiple > 5.0) == pytest.approx(0.01, abs=0.003)
    from_table = sys.modules["riskmill_file_pareto_severity"].multiples(2.0)
    assert from_table.mean() == pytest.approx(1.0, abs=1e-14)


def test_random_losses_need_a_portfolio_with_secondary_uncertainty() -> None:
    load_file(PARETO)
    with pytest.raises(ModelError, match="secondary_uncertainty"):
        run_model("pareto_severity", 1, {"layers": [ALL_OF_IT], "alpha": 2.0}, [elt({1: 10}), yet([[1]])])


def test_the_guide_shows_the_example_as_it_is() -> None:
    guide = (EXAMPLES.parents[1] / "docs" / "model-sdk.md").read_text()
    assert NTH.read_text() in guide


def test_the_guides_session_gives_what_the_guide_says(tmp_path: Path) -> None:
    guide = (EXAMPLES.parents[1] / "docs" / "model-sdk.md").read_text()
    params = re.search(r"^\$ echo '(.*)' > params.json$", guide, re.MULTILINE)
    assert params is not None
    (tmp_path / "params.json").write_text(params[1])
    (tmp_path / "elt.csv").write_text("event,mean:float64\n1,120\n2,90\n")
    np.savez(
        tmp_path / "yet.npz",
        allow_pickle=False,
        trial=np.array([0, 0, 1, 2, 2], np.int32),
        day=np.array([5, 90, 7, 20, 300], np.int16),
        event=np.array([1, 2, 2, 2, 1], np.int32),
        trials=np.array([3]),
    )
    words = ["--params", tmp_path / "params.json", "--input", tmp_path / "elt.csv", "--input", tmp_path / "yet.npz"]
    done = riskmill("run-model", "nth_event_cover", "--file", NTH, *words, "--out", tmp_path / "out.npz")
    assert done.exit_code == 0, done.output
    made = read_arrays(tmp_path / "out.npz")
    assert (made["row"].tolist(), made["loss"].tolist()) == ([1, 4], [40.0, 60.0])


# ---- the toolbox


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("risk_retention", 5.0),
        ("inuring_priority", 2),
        ("reinstatement_basis", "amount_and_time"),
    ],
)
def test_terms_that_the_toolbox_does_not_apply_are_refused_not_ignored(field: str, value: object) -> None:
    params = PriceDealParams.model_validate(
        {"layers": [{"type": "PR" if field == "risk_retention" else "CXL", "occurrence_limit": 9, field: value}]}
    )
    found = deal_occurrences(params, [elt({1: 10}), yet([[1]])])
    with pytest.raises(ModelError, match=f"layer 0: .*{field}"):
        pay_layers(params.layers, found)


def test_a_recovery_that_is_negative_or_of_another_size_is_refused() -> None:
    params = PriceDealParams.model_validate({"layers": [ALL_OF_IT]})
    found = deal_occurrences(params, [elt({1: 10}), yet([[1], [1]])])
    for recovery, words in (([1.0], "1 recoveries of 2"), ([1.0, -1.0], "negative"), ([1.0, np.nan], "not a number")):
        with pytest.raises(ModelError, match=words):
            deal_output(params, found, [Paid(np.array(recovery))])
    with pytest.raises(ModelError, match="0 recoveries of 1 layers"):
        deal_output(params, found, [])


# ---- in a portfolio


def with_model(prepared: PreparedPortfolio, deal_id: str, **own: Any) -> PreparedPortfolio:
    deals = tuple(deal.model_copy(update=own) if deal.deal_id == deal_id else deal for deal in prepared.portfolio.deals)
    document = prepared.portfolio.model_copy(update={"deals": deals}).to_json()
    return replace(prepared, portfolio=Portfolio.from_json(document))


NTH_COVER = {"pricing_model": "nth_event_cover@1", "pricing_params": {"event_number": 2, "qualifying_loss": 40}}


def test_a_portfolio_that_names_no_model_has_the_document_and_the_keys_that_it_had() -> None:
    prepared = tiny_portfolio(seed=4)
    assert b"pricing_model" not in prepared.portfolio.to_json()
    assert b"pricing_params" not in prepared.portfolio.to_json()
    load_file(NTH)
    graph, changed = (rollup_graph(each.portfolio) for each in (prepared, with_model(prepared, "D02", **NTH_COVER)))
    other = [
        (graph.job(n), changed.job(n))
        for n in range(len(graph))
        if graph.job(n).model in ("price_deal", "simulate_years")
    ]
    assert sum(a.key != b.key for a, b in other) == 1


def test_a_rollup_prices_the_deal_by_its_own_model_and_publishes_it() -> None:
    load_file(NTH)
    prepared = with_model(tiny_portfolio(seed=4), "D02", **NTH_COVER)
    usual, own = run_directly(tiny_portfolio(seed=4)), run_directly(prepared)
    (job,) = [own.graph.job(n) for n in range(len(own.graph)) if own.graph.job(n).model == "nth_event_cover"]
    assert job.params["event_number"] == 2
    assert len(job.params["layers"]) == 2
    before, after = aal_by_deal(usual), aal_by_deal(own)
    assert 0 < after["D02"] < before["D02"]
    assert {name: aal for name, aal in after.items() if name != "D02"} == {
        name: aal for name, aal in before.items() if name != "D02"
    }
    north = {which: direct.targets["measure/gross/north"]["aal"][0] for which, direct in (("b", usual), ("a", own))}
    assert north["b"] - north["a"] == pytest.approx(before["D02"] - after["D02"], rel=1e-6)


def aal_by_deal(direct: Direct) -> dict[str, float]:
    deals = direct.targets["deals"]
    return dict(zip(json.loads(deals["deal_ids"].tobytes()), deals["aal"].tolist(), strict=True))


def test_a_severity_of_ones_own_keeps_the_mean_of_a_deal_without_limits() -> None:
    load_file(PARETO)
    prepared = tiny_portfolio(seed=4, deals=2, trials=BLOCK_TRIALS + 20_000)
    share = prepared.portfolio.deals[0].layers[1:]
    own = {"pricing_model": "pareto_severity@1", "pricing_params": {"alpha": 3.0}, "layers": share}
    sampled = prepared.portfolio.model_copy(update={"secondary_uncertainty": True})
    prepared = replace(prepared, portfolio=sampled)
    usual = with_model(prepared, "D00", layers=share)
    changed = run_directly(with_model(prepared, "D00", **own))
    assert [job.params["sampling"]["first_trial"] for job in jobs_of(changed, "pareto_severity")] == [0, BLOCK_TRIALS]
    assert aal_by_deal(changed)["D00"] == pytest.approx(aal_by_deal(run_directly(usual))["D00"], rel=0.01)


def jobs_of(direct: Direct, name: str) -> list[Any]:
    return [direct.graph.job(n) for n in range(len(direct.graph)) if direct.graph.job(n).model == name]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"pricing_model": "nth_event_cover"}, "has no version"),
        ({"pricing_model": "nth_event_cover@2"}, "no version '2'"),
        ({"pricing_model": "nth_evnt_cover@1"}, "did you mean nth_event_cover"),
        ({"pricing_model": "measure@3"}, "does not price deals"),
        ({"pricing_model": "nth_event_cover@1"}, "event_number: Field required"),
        (NTH_COVER | {"pricing_params": {"event_number": 0}}, "event_number: .*greater than or equal to 1"),
        (NTH_COVER | {"pricing_params": {"event_number": 1, "rate": 2.0}}, "states rate, which the portfolio says"),
        ({"pricing_params": {"event_number": 1}}, "pricing_model is not"),
    ],
)
def test_a_model_that_cannot_price_the_deal_is_a_fault(own: dict[str, Any], words: str) -> None:
    load_file(NTH)
    with pytest.raises(PortfolioInvalid, match=rf"deals\[2\]\.pricing_.*{words}"):
        with_model(tiny_portfolio(seed=4), "D02", **own)


def test_a_model_of_ones_own_does_not_go_with_a_cost_of_capital() -> None:
    load_file(NTH)
    prepared = tiny_portfolio(seed=4)
    loads = prepared.portfolio.pricing.model_copy(update={"cost_of_capital": 0.1})
    prepared = replace(prepared, portfolio=prepared.portfolio.model_copy(update={"pricing": loads}))
    with pytest.raises(PortfolioInvalid, match="cost of capital"):
        with_model(prepared, "D02", **NTH_COVER)


def test_a_users_price_is_planned_at_a_first_rate_of_its_own() -> None:
    load_file(NTH)
    graph = rollup_graph(with_model(tiny_portfolio(seed=4), "D02", **NTH_COVER).portfolio)
    seconds = estimate_seconds(graph, {})
    for name, rate in (("nth_event_cover", USERS_PRICE_RATE), ("price_deal", DEFAULT_RATES["price_deal"])):
        number = next(n for n in range(len(graph)) if graph.job(n).model == name)
        assert seconds[number] == pytest.approx(JOB_OVERHEAD_SECONDS + rate * graph.work[number])


def test_the_folder_names_models_in_two_columns_of_deals(tmp_path: Path) -> None:
    load_file(NTH)
    folder = Folder()
    folder.rows["deals"][0] |= {"pricing_model": "nth_event_cover@1", "pricing_params": '{"event_number": 2}'}
    deals = read_folder(folder.write(tmp_path / "sound")).portfolio.deals
    assert (deals[0].pricing_model, deals[0].pricing_params) == ("nth_event_cover@1", {"event_number": 2})
    assert (deals[1].pricing_model, deals[1].pricing_params) == (None, {})


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"pricing_model": "nth@1"}, r"deals\.csv:2: pricing_model: no model 'nth'.*nth_event_cover@1"),
        ({"pricing_model": "nth_event_cover@1", "pricing_params": "[]"}, r"deals\.csv:2: .*is not a JSON object"),
        ({"pricing_model": "nth_event_cover@1", "pricing_params": '{"event_number": NaN}'}, r"csv:2: .*is no number"),
        ({"pricing_model": "nth_event_cover@1", "pricing_params": "{}"}, r"csv:2: .*event_number: Field required"),
    ],
)
def test_a_fault_of_a_model_names_the_row_and_what_is_allowed(tmp_path: Path, own: dict[str, str], words: str) -> None:
    load_file(NTH)
    folder = Folder()
    folder.rows["deals"][0] |= own
    with pytest.raises(PortfolioInvalid, match=words):
        read_folder(folder.write(tmp_path / "faulty"))


# ---- the commands


def riskmill(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Inputs of the second event cover: an ELT as CSV, a YET as .npz, parameters."""
    found = {"elt": tmp_path / "elt.csv", "yet": tmp_path / "yet.npz", "params": tmp_path / "params.json"}
    found["elt"].write_text("event,mean:float64\n1,120\n2,90\n")
    np.savez(found["yet"], allow_pickle=False, **yet([[1, 2], [2], [2, 1]]))
    found["params"].write_text(json.dumps({"layers": [ALL_OF_IT], "event_number": 2}))
    return found | {"out": tmp_path / "made" / "out.npz"}


def run_words(files: dict[str, Path]) -> list[object]:
    params, inputs = ["--params", files["params"]], ["--input", files["elt"], "--input", files["yet"]]
    return ["run-model", "nth_event_cover@1", "--file", NTH, *params, *inputs, "--out", files["out"]]


def test_run_model_runs_a_file_of_ones_own_on_a_laptop(files: dict[str, Path]) -> None:
    done = riskmill(*run_words(files), "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["model"], facts["arrays"]["loss"]) == ("nth_event_cover@1", {"dtype": "float32", "shape": [2]})
    made = read_arrays(files["out"])
    assert (made["row"].tolist(), made["loss"].tolist()) == ([1, 4], [90.0, 120.0])


def test_run_model_writes_and_reads_what_jobs_store(files: dict[str, Path], tmp_path: Path) -> None:
    stored = tmp_path / "out.safetensors"
    assert riskmill(*run_words(files)[:-1], stored).exit_code == 0
    summed = riskmill("run-model", "roll_up", "--input", stored, "--input", stored, "--out", files["out"])
    assert summed.exit_code == 0, summed.output
    assert read_arrays(files["out"])["loss"].tolist() == [180.0, 240.0]


def test_run_model_says_what_is_wrong(files: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def (")
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1")
    raising = tmp_path / "raising.py"
    raising.write_text(
        "from riskmill.sdk import BaseModel, model\n\nclass P(BaseModel):\n    pass\n\n"
        "@model('raising')\ndef raising(params: P, inputs):\n    return inputs[3]\n\n"
        "@model('shapeless')\ndef shapeless(params: P, inputs):\n    return 7\n"
    )
    out = ("--out", files["out"])
    for words, expected in (
        (("run-model", "nth", *out), "no model 'nth'"),
        (("run-model", "roll_up", "--out", "x.csv"), "the output is a .npz or a .safetensors"),
        (("run-model", "x", "--file", broken, *out), "broken.py cannot be imported: SyntaxError"),
        (("run-model", "x", "--file", empty, *out), "empty.py registers no model"),
        (("run-model", "raising", "--file", raising, *out), "raised IndexError"),
        (("run-model", "shapeless", "--file", raising, *out), "returned int, not a dict of numpy arrays"),
        (("run-model", "roll_up", "--input", tmp_path / "gone.npz", *out), "gone.npz: No such file"),
        (("run-model", "roll_up", "--input", NTH, *out), "inputs are .npz, .safetensors or .csv"),
        (("run-model", "roll_up", "--params", NTH, *out), "not JSON"),
        (("run-model", "simulate_years", *out), "simulate_years version 1: 3 validation errors"),
    ):
        done = riskmill(*words, "--json")
        assert done.exit_code == 1, words
        assert expected in json.loads(done.stdout)["message"], words
    assert not files["out"].exists()


def test_a_csv_of_anything_but_numbers_is_refused_with_its_column(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    for text, words in (
        ("a\nx\n", "column 'a': every cell must be a number"),
        ("a,b\n1,\n2,3\n", "column 'b': every cell must be a number"),
        ("a:int8\n300\n", "column 'a': a value does not fit int8"),
        ("a:words\n3\n", "'words' is not a dtype of numpy"),
        ("a,a\n3,4\n", "column 'a' stands twice"),
    ):
        path.write_text(text)
        with pytest.raises(RiskmillError, match=words):
            read_arrays(path)
    path.write_text("small,large,real,typed:int16\n1,5000000000,1.5,7\n2,1,2,8\n")
    found = {name: str(array.dtype) for name, array in read_arrays(path).items()}
    assert found == {"small": "int32", "large": "int64", "real": "float64", "typed": "int16"}


def test_models_lists_every_model_with_its_version_and_parameters() -> None:
    listed = {(each["model"], each["version"]): each for each in json.loads(riskmill("models", "--json").stdout)}
    assert listed.keys() == MODELS.keys()
    assert "keep_members" in listed["roll_up", 1]["params"]["properties"]
    shown = riskmill("models", "--file", NTH)
    assert shown.exit_code == 0
    assert "nth_event_cover@1" in shown.output
    assert "event_number*" in shown.output
