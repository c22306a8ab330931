"""`riskmill models` and `riskmill run-model`: list the models, and run one on files, without any cloud."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from riskmill.errors import ModelError, RiskmillError
from riskmill.models import MODELS, Model, find_model, run_model
from riskmill.outputs import Array, Arrays, decode, encode
from riskmill_cli.session import console, emit, told

File = Annotated[Path | None, typer.Option(help="Python file with a model that is not deployed yet")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON value to standard output")]

#: Values of an array that are shown.
SHOWN = 5


def add_model_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("models")(models)
    app.command("run-model")(run_one)


def models(file: File = None, as_json: Json = False) -> None:
    """List the models, their versions and their parameters (* is required)."""
    with told(as_json):
        if file is not None:
            load_file(file)
        found = [MODELS[key] for key in sorted(MODELS)]
        if as_json:
            emit([_facts(each) for each in found])
            return
        table = Table("model", "parameters", "what it does", box=None)
        for each in found:
            fields = (f"{name}{'*' if field.is_required() else ''}" for name, field in each.params.model_fields.items())
            table.add_row(f"{each.name}@{each.version}", ", ".join(fields), _summary(each))
        console.print(table, markup=False)


def run_one(
    model: Annotated[str, typer.Argument(help="name, or name@version; the latest version if left out")],
    out: Annotated[Path, typer.Option(help="file to write the arrays to: .npz or .safetensors")],
    params: Annotated[Path | None, typer.Option(help="JSON file with the parameters; none if left out")] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", help="arrays, in the order of the model: .npz, .safetensors or .csv; may be repeated"),
    ] = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Run one model on files, as a deployed job would run it."""
    with told(as_json):
        if out.suffix not in (".npz", ".safetensors"):
            raise RiskmillError(f"{out}: the output is a .npz or a .safetensors file")
        if file is not None:
            load_file(file)
        found = find_model(model)
        given = _read_params(params)
        arrays = [read_arrays(path) for path in inputs or ()]
        begun = perf_counter()
        try:
            made = run_model(found.name, found.version, given, arrays)
        except RiskmillError:
            raise
        except Exception as error:
            raise ModelError(_raised(found, error)) from error
        seconds = perf_counter() - begun
        data = _encoded(found, made)
        write_arrays(made, data, out)
        if as_json:
            emit(
                {
                    "model": f"{found.name}@{found.version}",
                    "file": str(out),
                    "seconds": round(seconds, 6),
                    "arrays": {name: {"dtype": str(array.dtype), "shape": array.shape} for name, array in made.items()},
                }
            )
            return
        console.print(f"{found.name}@{found.version}: {seconds:.3f} s, {len(data):,} bytes to {out}", markup=False)
        for name, array in made.items():
            values = np.array2string(array.ravel()[:SHOWN], separator=", ")
            more = " ..." if array.size > SHOWN else ""
            console.print(f"  {name}: {array.dtype} {list(array.shape)} {values}{more}", markup=False)


def _summary(model: Model) -> str:
    return (model.run.__doc__ or "").strip().partition("\n")[0]


def _facts(model: Model) -> dict[str, Any]:
    return {
        "model": model.name,
        "version": model.version,
        "module": model.run.__module__,
        "doc": _summary(model),
        "params": model.params.model_json_schema(),
    }


def _raised(model: Model, error: Exception) -> str:
    """Say what a model raised, and in which line of whose code."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" ({at.tb_frame.f_code.co_filename}, line {at.tb_lineno})" if at is not None else ""
    return f"{model.name}@{model.version} raised {type(error).__name__}: {error}{where}"


def _encoded(model: Model, made: object) -> bytes:
    """Return the bytes of a model's output as a job would store them. Raises ModelError when it is not arrays."""
    if not isinstance(made, dict) or not all(isinstance(array, np.ndarray) for array in made.values()):
        raise ModelError(f"{model.name}@{model.version} returned {type(made).__name__}, not a dict of numpy arrays")
    return encode(made)


def load_file(path: Path) -> None:
    """Import a Python file and with it register its models; a file that is imported already stays as it is.

    Raises RiskmillError for a file that cannot be read or imported, or that registers no model.
    """
    real = path.resolve()
    if any(Path(known).resolve() == real for known in _imported_files()):
        return
    spec = importlib.util.spec_from_file_location(f"riskmill_file_{path.stem}", real)
    if path.suffix != ".py" or spec is None or spec.loader is None:
        raise RiskmillError(f"{path}: a model is a Python file (.py)")
    before = len(MODELS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise RiskmillError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if len(MODELS) == before:
        raise RiskmillError(f"{path} registers no model: decorate a function with @model(...)")


def _imported_files() -> list[str]:
    found = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return [name for name in found if name]


def _read_params(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RiskmillError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise RiskmillError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RiskmillError(f"{path}: parameters are a JSON object")
    return found


def read_arrays(path: Path) -> Arrays:
    """Read named arrays from a .npz, .safetensors or .csv file.

    A column of a CSV file is an array of whole numbers (int32, int64 where they are large) or of float64;
    `name:dtype` in the header says which. Raises RiskmillError, naming the file, for anything else.
    """
    try:
        match path.suffix:
            case ".safetensors":
                return decode(path.read_bytes())
            case ".npz":
                with np.load(path, allow_pickle=False) as held:
                    return Arrays({name: held[name] for name in held.files})
            case ".csv":
                return Arrays(_read_csv(path))
    except OSError as error:
        raise RiskmillError(f"{path}: {error.strerror or error}") from error
    except (ModelError, ValueError, zipfile.BadZipFile) as error:
        raise RiskmillError(f"{path}: {error}") from error
    raise RiskmillError(f"{path}: inputs are .npz, .safetensors or .csv files")


def _read_csv(path: Path) -> dict[str, Array]:
    from pyarrow.csv import read_csv  # slow to import, and no other command of these needs it

    table = read_csv(path)
    arrays: dict[str, Array] = {}
    for header, column in zip(table.column_names, table.columns, strict=True):
        name, typed, wanted = header.strip().partition(":")
        values = column.to_numpy()
        if column.null_count or values.dtype.kind not in "iuf":
            raise ValueError(f"column {name!r}: every cell must be a number")
        if typed:
            try:
                dtype = np.dtype(wanted)
            except TypeError as error:
                raise ValueError(f"column {name!r}: {wanted!r} is not a dtype of numpy") from error
            if dtype.kind not in "iuf":
                raise ValueError(f"column {name!r}: {wanted!r} is not a dtype of numbers")
            converted = values.astype(dtype)
            if dtype.kind in "iu" and not np.array_equal(converted, values):
                raise ValueError(f"column {name!r}: a value does not fit {wanted}")
        elif values.dtype.kind in "iu" and _fits_int32(values):
            converted = values.astype(np.int32)
        else:
            converted = values
        if name in arrays:
            raise ValueError(f"column {name!r} stands twice")
        arrays[name] = converted
    return arrays


def _fits_int32(values: Array) -> bool:
    limits = np.iinfo(np.int32)
    return not values.size or bool(values.min() >= limits.min and values.max() <= limits.max)


def write_arrays(arrays: dict[str, Array], data: bytes, out: Path) -> None:
    """Write arrays (`data` as safetensors) to a .npz or .safetensors file. Raises RiskmillError when it cannot."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".npz":
            np.savez(out, allow_pickle=False, **arrays)
        else:
            out.write_bytes(data)
    except OSError as error:
        raise RiskmillError(f"{out}: {error.strerror}") from error
