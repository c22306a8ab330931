"""The rules of the house, held by reading the tree: who imports what, what is pure, what no file may name."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cfnlint.decode import decode_str

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = ROOT / "layers" / "domain" / "riskmill"
AWS = DOMAIN / "aws"
#: Reads one variable, RISKMILL_KERNEL, on which no byte of any result depends.
KERNEL = DOMAIN / "models" / "kernel.py"
HANDLERS = sorted((ROOT / "functions").glob("*/app.py"))
PURE = sorted(path for path in DOMAIN.rglob("*.py") if not path.is_relative_to(AWS))
MAX_HANDLER_LINES = 20

#: Below are the layers of the design: a file imports from its own and from those under it only.
LEVELS = ({"riskmill"}, {"riskmill_local"}, {"riskmill_cli"})

#: What reads a clock, the environment or a file, called by its full name.
IMPURE = {
    "open", "input", "print", "os.environ", "os.getenv", "time.time", "time.time_ns", "time.monotonic",
    "time.perf_counter", "time.sleep", "datetime.now", "datetime.utcnow", "datetime.today", "datetime.datetime.now",
    "datetime.date.today", "date.today", "random.random", "uuid.uuid4", "subprocess.run",
}  # fmt: skip
IMPURE_MODULES = {"os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "urllib.request", "http", "requests"}

#: Put together here so that this file does not name what it looks for.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.])/" + r"(?:home/[a-z]\w*/|Users/\w+/|root/|wo" + r"rk/)"),
    "an address of an index": re.compile(
        r"--(?:extra-)?index-url|--find-" + r"links|--trusted-" + r"host"
        r"|https?://(?!py" + r"pi\.org/project/)[\w.-]*(?:py" + r"pi|artifactory|nexus|devpi)"
    ),
    "an address of a registry of this network": re.compile(
        r"https?://(?:10\.|192\.168\.|[\w-]+\.(?:internal|local|lan)\b)"
    ),
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git clone, so what is committed is not known")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def dotted(node: ast.AST) -> str:
    """Return the dotted name of an expression, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_committed_file_names(what: str) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a table or a picture
        found += [f"{short(path)}: {match[0]}" for match in FORBIDDEN[what].finditer(text)]
    assert found == []


def test_locked_requirements_have_a_hash_for_every_package_and_no_address() -> None:
    locked = [*sorted((ROOT / "requirements").glob("*.txt")), ROOT / "layers" / "dependencies" / "requirements.txt"]
    assert len(locked) > 3
    for path in locked:
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, short(path)
        entries = re.findall(r"^[a-z0-9][\w.-]*(?:\[[\w,-]+\])?==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        assert entries, short(path)
        assert not [entry for entry in entries if "--hash=sha256:" not in entry], short(path)


def test_the_layer_is_locked_to_the_versions_that_the_tests_run() -> None:
    pin = re.compile(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)
    tested = dict(pin.findall((ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")))
    deployed = dict(pin.findall((ROOT / "layers" / "dependencies" / "requirements.txt").read_text(encoding="utf-8")))
    assert {"numpy", "scipy", "redis", "boto3", "aws-xray-sdk"} <= set(deployed)
    assert {name: tested.get(name) for name in deployed} == deployed


@pytest.mark.parametrize("path", [path for path in PURE if path != KERNEL], ids=short)
def test_the_domain_does_no_io_and_reads_no_clock_or_environment(path: Path) -> None:
    tree = parsed(path)
    assert not [name for name in imports(tree) if {name, name.partition(".")[0]} & IMPURE_MODULES]
    named = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)}
    assert not named & (IMPURE - {"open", "input", "print"})
    called = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"open", "input", "print"}


def test_the_kernel_reads_one_variable_and_nothing_else() -> None:
    tree = parsed(KERNEL)
    assert {name for name in imports(tree) if {name, name.partition(".")[0]} & IMPURE_MODULES} == {"os"}
    named = [dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert [name for name in named if name in IMPURE] == ["os.environ"]
    assert 'os.environ.get(CHOICE, "")' in KERNEL.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PURE, ids=short)
def test_only_the_aws_folder_imports_boto3_and_redis_and_the_domain_does_not_import_it(path: Path) -> None:
    for name in imports(parsed(path)):
        assert name.partition(".")[0] not in ("boto3", "botocore", "redis"), name
        assert not name.startswith("riskmill.aws"), name


def test_imports_point_downwards() -> None:
    places = {DOMAIN: 0, ROOT / "local" / "riskmill_local": 1, ROOT / "cli" / "riskmill_cli": 2}
    upwards = [
        f"{short(path)} imports {name}"
        for folder, level in places.items()
        for path in folder.rglob("*.py")
        for name in imports(parsed(path))
        for above in LEVELS[level + 1 :]
        if name.partition(".")[0] in above
    ]
    assert upwards == []


@pytest.mark.parametrize("path", HANDLERS, ids=short)
def test_a_handler_is_under_20_lines_and_imports_from_the_domain_only(path: Path) -> None:
    tree = parsed(path)
    (handler,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert handler.name == "handler"
    assert ast.get_docstring(handler)
    assert handler.end_lineno is not None
    assert handler.end_lineno - handler.lineno + 1 < MAX_HANDLER_LINES
    assert {name.partition(".")[0] for name in imports(tree)} <= {"typing", "aws_lambda_powertools", "riskmill"}


def test_every_function_has_its_folder_and_an_event_and_no_folder_is_left_over() -> None:
    template, _ = decode_str((ROOT / "template.yaml").read_text(encoding="utf-8"))
    assert template is not None
    used = {
        str(resource["Properties"]["CodeUri"])
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    assert used == {short(path.parent) for path in HANDLERS}
    assert not [name for name in sorted(used) if not list((ROOT / "events").glob(f"{Path(name).name}*.json"))]


def test_every_module_says_what_it_is() -> None:
    folders = ("layers/domain", "functions", "fargate", "cli", "local")
    modules = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert not [short(path) for path in modules if not ast.get_docstring(parsed(path))]
