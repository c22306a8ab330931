"""OED reinsurance files: what is taken, what is refused and where, and that what went out comes back."""

import csv
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riskmill.errors import RiskmillError
from riskmill.oed import PERIL_CODES, REINS_INFO, REINS_SCOPE, perils_covered
from riskmill.portfolio import Layer, Outwards
from riskmill.terms import Terms
from riskmill_cli.oed_files import Side, export_oed, import_oed, ods_python
from riskmill_cli.portfolio_folder import FolderInvalid, read_folder
from unit.portfolio_fixtures import Folder

INFO = {
    "ReinsNumber": "1",
    "ReinsName": "Cat",
    "ReinsPeril": "AA1",
    "PlacedPercent": "0.8",
    "ReinsCurrency": "USD",
    "InuringPriority": "1",
    "ReinsType": "CXL",
    "OccLimit": "60",
    "OccAttachment": "30",
}
SCOPE = {"ReinsNumber": "1", "PortNumber": "us"}


def write(path: Path, *rows: dict[str, str]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


class Case:
    """OED files beside the tiny portfolio."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.portfolio = Folder()
        self.info = [dict(INFO)]
        self.scope = [dict(SCOPE)]
        self.side: Side = "outwards"
        self.times = 0

    def read(self, *, replace: bool = True) -> tuple[list[Outwards], list[str]]:
        self.times += 1
        self.portfolio.write(self.folder / "in")
        info = write(self.folder / "ReinsInfo.csv", *self.info)
        scope = write(self.folder / "ReinsScope.csv", *self.scope)
        out = self.folder / f"out{self.times}"
        done = import_oed(info, scope, self.folder / "in", out, side=self.side, replace=replace)
        return list(read_folder(out).portfolio.outwards), done.notes

    def layers(self, deal: str) -> list[Layer]:
        self.side = "layers"
        self.read()
        deals = read_folder(self.folder / f"out{self.times}").portfolio.deals
        return list(next(one for one in deals if one.deal_id == deal).layers)

    def faults(self) -> list[str]:
        with pytest.raises(FolderInvalid) as caught:
            self.read()
        assert not (self.folder / f"out{self.times}").exists()
        return caught.value.faults


#: The interpreter that has ods-tools. Its pandas takes seconds to import, so only tests that are about it run it.
PYTHON = ods_python()


@pytest.fixture(autouse=True)
def _only_own_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskmill_cli.oed_files.ods_python", lambda: None)


@pytest.fixture
def with_ods(_only_own_checks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import runs ods-tools."""
    monkeypatch.setattr("riskmill_cli.oed_files.ods_python", lambda: PYTHON)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_every_term_becomes_the_term_of_that_meaning(case: Case) -> None:
    case.portfolio.head["trial_year"] = 2025
    case.info[0] |= {
        "CededPercent": "0.5",
        "OccFranchiseDed": "5",
        "AggLimit": "100",
        "AggAttachment": "10",
        "Reinstatement": "2",
        "ReinstatementCharge": "0;0.5",
        "ReinsPremium": "3",
        "TreatyShare": "0.5",
        "InuringPriority": "4",
        "UseReinsDates": "Y",
        "ReinsInceptionDate": "2025-02-01",
        "ReinsExpiryDate": "2025-11-30",
    }
    [contract], _ = case.read()
    assert (contract.contract_id, contract.name, contract.group_id, contract.priority) == ("RI1", "Cat", "us", 4)
    assert (str(contract.inception), str(contract.expiry)) == ("2025-02-01", "2025-11-30")
    assert contract.terms == Terms(
        type="CXL",
        ceded_share=0.5,
        occurrence_retention=30,
        occurrence_limit=60,
        aggregate_deductible=10,
        aggregate_limit=100,
        reinstatements=(0.0, 0.5),
        premium=3,
        participation=0.4,
        franchise_deductible=5,
    )


def test_spellings_of_version_1_and_any_capitals_are_taken(case: Case) -> None:
    case.info = [
        {
            "reinsnumber": "1",
            "REINSPERILCODE": "AA1",
            "PlacedPercent": "1",
            "ReinsCurrency": "USD",
            "InuringPriority": "1",
            "ReinsType": "AXL",
            "AggregateLimit": "70",
            "AggregateAttachmentPoint": "20",
            "OccurenceFranchiseDed": "1",
            "OccLimit": "50",
            "ReinstatementNumber": "3",
            "ReinstatementCharge": "1",
            "ReinsHoursClause": "",
            "UseReinsDates": "No",
        }
    ]
    case.scope = [{"ReinsNumber": "1", "LocationGroup": "", "ReinsuranceTag": "", "RiskLevel": "LOC"}]
    [contract], _ = case.read()
    terms = contract.terms
    assert (terms.aggregate_limit, terms.aggregate_deductible, terms.franchise_deductible) == (70, 20, 1)
    assert terms.reinstatements == (1.0, 1.0, 1.0)
    assert contract.group_id == "all"  # no scope is the whole portfolio


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("ReinsType", "QQ", "'QQ' is not known"),
        ("ReinsType", "SL", "'SL' is not known"),
        ("ReinsPeril", "ZZZ", "'ZZZ' is not a peril code"),
        ("ReinsPeril", "WTC", "does not cover hurricane, winter"),
        ("ReinsCurrency", "USX", "'USX' is not a currency code"),
        ("ReinsCurrency", "EUR", "'EUR' is not the portfolio's currency"),
        ("PlacedPercent", "1.5", "is above 1"),
        ("PlacedPercent", "", "is empty"),
        ("OccLimit", "1,000", "is not a number"),
        ("OccLimit", "", "CXL"),
        ("OccReverseFranchise", "5", "reverse franchise"),
        ("AggPeriod", "730", "annual"),
        ("AttachmentBasis", "RA", "losses occurring"),
        ("DeemedPercentPlaced", "1", "notional"),
        ("ReinsFXrate", "1.2", "rate of exchange"),
        ("RiskLimit", "7", "RiskLevel"),
        ("Reinstatement", "2", "charge"),
        ("ReinstatementCharge", "1;x", "is not a list"),
        ("ReinsInceptionDate", "01/01/2025", "is not a date"),
        ("OEDVersion", "9.0.0", "version"),
        ("ReinsNumber", "2", "is not in ReinsInfo"),
        ("Mystery", "1", "is not a column of ReinsInfo"),
    ],
)
def test_what_cannot_be_computed_as_written_is_refused_with_file_row_and_column(
    case: Case, column: str, cell: str, says: str
) -> None:
    case.info[0][column] = cell
    faults = [fault for fault in case.faults() if says in fault]
    assert faults
    assert faults[0].startswith(("ReinsInfo.csv", "ReinsScope.csv"))
    if column not in ("Mystery",):
        assert ".csv:2: " in faults[0]


@pytest.mark.parametrize("column", ["PolNumber", "LocGroup", "LocNumber", "ProducerName", "LOB", "CountryCode"])
def test_a_scope_that_losses_are_not_known_by_is_refused(case: Case, column: str) -> None:
    case.scope[0][column] = "US"
    assert any(f"ReinsScope.csv:2: {column}: " in fault for fault in case.faults())


def test_a_scope_is_the_group_of_the_deals_that_it_names(case: Case) -> None:
    case.portfolio.rows["groups"] = [
        {"group_id": "all", "member_type": "group", "member_id": "gulf", "group_name": ""},
        {"group_id": "all", "member_type": "deal", "member_id": "D2", "group_name": ""},
        {"group_id": "gulf", "member_type": "deal", "member_id": "D1", "group_name": ""},
    ]
    for scope, group in (
        ({"PortNumber": "all", "AccNumber": "D1"}, "gulf"),
        ({"CedantName": "Gulf Mutual"}, "gulf"),
        ({"PortNumber": "all"}, "all"),
    ):
        case.scope = [{"ReinsNumber": "1", **scope}]
        [contract], _ = case.read()
        assert contract.group_id == group
    case.scope = [{"ReinsNumber": "1", "PortNumber": "all", "AccNumber": "D2"}]
    [fault] = case.faults()
    assert "no group has just these" in fault
    case.scope.append({"ReinsNumber": "1", "PortNumber": "all", "AccNumber": "D1"})
    assert case.read()[0][0].group_id == "all"
    case.scope[1]["PortNumber"] = ""
    assert any(fault.startswith("ReinsScope.csv:3: PortNumber: is empty") for fault in case.faults())


def test_an_inuring_order_that_a_portfolio_cannot_have_is_refused(case: Case) -> None:
    case.info.append(INFO | {"ReinsNumber": "2", "InuringPriority": "1"})
    case.scope.append({"ReinsNumber": "2", "PortNumber": "all"})
    [fault] = case.faults()
    assert fault.startswith("ReinsInfo.csv:3: InuringPriority: 1 on group 'all' is not above 1 of contract 1")
    case.info[1]["InuringPriority"] = "2"
    assert len(case.read()[0]) == 2


def test_contracts_are_added_to_those_of_the_folder_or_replace_them(case: Case) -> None:
    assert [contract.contract_id for contract in case.read(replace=False)[0]] == ["R1", "RI1"]
    assert [contract.contract_id for contract in case.read()[0]] == ["RI1"]


def test_perils_of_the_portfolio_that_are_codes_need_only_be_covered(case: Case) -> None:
    for row in (*case.portfolio.rows["perils"], *case.portfolio.rows["events"]):
        row["peril"] = {"hurricane": "WTC", "winter": "WEC"}[row["peril"]]
    case.info[0]["ReinsPeril"] = "WW2;QQ1"
    assert len(case.read()[0]) == 1
    assert perils_covered("WW2") == {"WTC", "WEC"}


def test_per_risk_and_surplus_treaties_are_layers_of_deals(case: Case) -> None:
    case.info[0] |= {"ReinsType": "PR", "RiskLimit": "7", "RiskAttachment": "2", "RiskLevel": "LOC",
                     "TreatyShare": "0.25", "InuringPriority": "2"}  # fmt: skip
    surplus_share = {"ReinsNumber": "2", "ReinsType": "SS", "CededPercent": "1", "PlacedPercent": "1"}
    case.info.append(INFO | surplus_share | {"OccLimit": "", "OccAttachment": ""})
    case.scope = [
        {"ReinsNumber": "1", "PortNumber": "us", "AccNumber": "D1"},
        {"ReinsNumber": "2", "PortNumber": "us", "AccNumber": "D1", "CededPercent": "0.1"},
        {"ReinsNumber": "2", "PortNumber": "us", "AccNumber": "D2", "CededPercent": "0.2"},
    ]
    per_risk, surplus = case.layers("D1")
    assert per_risk.terms == Terms(
        type="PR", occurrence_retention=30, occurrence_limit=60, risk_limit=7, risk_retention=2, placed_share=0.8,
        participation=0.25, inuring_priority=2,
    )  # fmt: skip
    assert (surplus.layer_id, surplus.terms) == ("RI2-D1", Terms(type="SS", ceded_share=0.1))
    assert [layer.terms.ceded_share for layer in case.layers("D2")] == [0.2]


def test_a_per_risk_treaty_on_a_group_is_refused(case: Case) -> None:
    case.info[0] |= {"ReinsType": "PR", "RiskLimit": "7", "RiskLevel": "LOC"}
    faults = case.faults()
    assert any("ReinsInfo.csv:2: ReinsType: is PR" in fault for fault in faults)
    assert any("ReinsInfo.csv:2: RiskLimit: " in fault for fault in faults)


def test_a_treaty_on_several_deals_together_is_no_layer(case: Case) -> None:
    case.side = "layers"
    [fault] = case.faults()
    assert "covers the deals D1, D2 together" in fault


def test_parquet_files_are_read_as_csv_ones(case: Case) -> None:
    [wanted], _ = case.read()
    paths = []
    for name in ("ReinsInfo", "ReinsScope"):
        paths.append(case.folder / f"{name}.parquet")
        pq.write_table(pa.csv.read_csv(case.folder / f"{name}.csv"), paths[-1])
    import_oed(*paths, case.folder / "in", case.folder / "of_parquet", side="outwards", replace=True)
    assert list(read_folder(case.folder / "of_parquet").portfolio.outwards) == [wanted]


AMOUNT = st.floats(0.001, 1e12)
ZERO_OR_AMOUNT = st.one_of(st.just(0.0), AMOUNT)
TERMS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["CXL", "FAC"]),
        "ceded_share": st.floats(0.001, 1),
        "occurrence_retention": ZERO_OR_AMOUNT,
        "occurrence_limit": AMOUNT,
        "aggregate_deductible": ZERO_OR_AMOUNT,
        "aggregate_limit": st.none() | AMOUNT,
        "reinstatements": st.none() | st.lists(st.floats(0, 3), max_size=4).map(tuple),
        "premium": ZERO_OR_AMOUNT,
        "participation": st.floats(0, 1),
        "franchise_deductible": ZERO_OR_AMOUNT,
    }
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TERMS, st.sampled_from(["all", "us"]), st.integers(1, 9)), min_size=1, max_size=5))
def test_outwards_contracts_that_go_out_as_oed_come_back_with_equal_terms(
    tmp_path_factory: pytest.TempPathFactory, contracts: list[tuple[dict[str, object], str, int]]
) -> None:
    path = tmp_path_factory.mktemp("oed")
    folder = Folder()
    folder.rows["outwards"] = [
        {
            "contract_id": f"C{number}",
            "name": f"Contract {number}",
            "group_id": group,
            "priority": str(priority),
        }
        | {
            name: ";".join(map(repr, value)) or "none" if isinstance(value, tuple) else str(value)
            for name, value in terms.items()
            if value is not None
        }
        for number, (terms, group, priority) in enumerate(contracts)
    ]
    folder.write(path / "in")
    info, scope = export_oed(path / "in", path / "oed")
    import_oed(info, scope, path / "in", path / "out", side="outwards", replace=True)
    before = {c.name: c for c in read_folder(path / "in").portfolio.outwards}
    after = {c.name: c for c in read_folder(path / "out").portfolio.outwards}
    assert {name: (c.terms, c.group_id) for name, c in after.items()} == {
        name: (c.terms, c.group_id) for name, c in before.items()
    }
    for one in before:
        for other in before:
            if before[one].group_id == before[other].group_id:
                assert (before[one].priority < before[other].priority) == (after[one].priority < after[other].priority)


def test_a_stop_loss_goes_out_as_an_aggregate_excess_of_the_same_amounts(case: Case) -> None:
    case.portfolio.rows["outwards"] = [
        {"contract_id": "S", "name": "Stop", "group_id": "all", "priority": "1", "type": "SL", "gnpi": "200",
         "attachment_ratio": "0.8", "limit_ratio": "0.5"}
    ]  # fmt: skip
    case.portfolio.write(case.folder / "in")
    paths = export_oed(case.folder / "in", case.folder / "oed")
    import_oed(*paths, case.folder / "in", case.folder / "out", side="outwards", replace=True)
    [contract] = read_folder(case.folder / "out").portfolio.outwards
    assert contract.terms == Terms(type="AXL", aggregate_deductible=160, aggregate_limit=100)


def test_a_term_that_oed_cannot_say_is_not_left_out_of_an_export(case: Case) -> None:
    case.portfolio.rows["outwards"][0] |= {"recovery_order": "pro_rata", "name": "x" * 31}
    case.portfolio.write(case.folder / "in")
    with pytest.raises(FolderInvalid) as caught:
        export_oed(case.folder / "in", case.folder / "oed")
    assert ["recovery_order" in fault for fault in caught.value.faults] == [True, False]
    assert "up to 30 in ReinsName" in caught.value.faults[1]


needs_ods = pytest.mark.skipif(PYTHON is None, reason="ods-tools is not installed: `make ods`")

#: What ods-tools knows, as JSON: the events that each peril code covers, and the columns of each reinsurance file.
SCHEMA = """
import json
from ods_tools.oed import OedSchema
schema = OedSchema.from_oed_schema_info(None).schema
fields = {name: [field["Input Field Name"] for field in schema["input_fields"][name].values()]
          for name in ("ReinsInfo", "ReinsScope")}
print(json.dumps({"covered": schema["perils"]["covered"], "fields": fields}))
"""


@needs_ods
def test_columns_and_codes_are_those_of_ods_tools() -> None:
    asked = subprocess.run([str(PYTHON), "-c", SCHEMA], capture_output=True, text=True, check=True)
    schema = json.loads(asked.stdout)
    assert set(schema["covered"]) == PERIL_CODES
    for code, covered in schema["covered"].items():
        assert perils_covered(code) == set(covered)
    scope_only_before = {"RiskLevel", "OriginalCurrency", "RateOfExchange"}
    for table, old in ((REINS_INFO, {"ReinsHoursClause"}), (REINS_SCOPE, scope_only_before)):
        assert {column.name for column in table.columns} - old == set(schema["fields"][table.name])


@needs_ods
@pytest.mark.usefixtures("with_ods")
def test_what_only_ods_tools_finds_is_a_fault_of_the_file(case: Case) -> None:
    assert "checked with ods-tools" in case.read()[1][-1]
    case.info[0]["OEDVersion"] = "4.0.0"
    case.scope[0]["OEDVersion"] = "5.0.0"
    assert "ods-tools: " in case.faults()[0]


def test_an_import_without_ods_tools_says_that_it_did_not_run(case: Case) -> None:
    assert case.read()[1][-1].startswith("ods-tools did not run: `make ods` installs it")


def test_an_ods_tools_that_cannot_be_run_is_one_clear_error(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken environment is not a file without faults."""
    monkeypatch.setattr("riskmill_cli.oed_files.ods_python", lambda: Path("/bin/false"))
    with pytest.raises(RiskmillError, match="ods-tools cannot be run with /bin/false: exit code 1"):
        case.read()
