"""Run ods-tools on reinsurance files, and print what it finds as one JSON value. A script for the environment it is in.

It imports nothing of riskmill's: `oed_files` runs it with the interpreter of .venv-ods, which has ods-tools alone.
"""

import importlib
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any


def check(folder: Path) -> dict[str, Any]:
    """Return {version, found: [{name, message}]}, or {version, error}, for ReinsInfo.csv and ReinsScope.csv there.

    ods-tools reads no reinsurance without the exposure that it reinsures: location.csv and account.csv stand there too.
    """
    ods: Any = importlib.import_module("ods_tools")
    oed: Any = importlib.import_module("ods_tools.oed")
    common: Any = importlib.import_module("ods_tools.oed.common")
    answer: dict[str, Any] = {"version": ods.__version__}
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):  # its progress bar, its log
            exposure = oed.OedExposure(
                location=str(folder / "location.csv"),
                account=str(folder / "account.csv"),
                ri_info=str(folder / "ReinsInfo.csv"),
                ri_scope=str(folder / "ReinsScope.csv"),
                check_oed=False,
                use_field=True,
            )
            checks = [{"name": each["name"], "on_error": "return"} for each in common.DEFAULT_VALIDATION_CONFIG]
            found = exposure.check(checks)
    except (common.OdsException, ValueError) as error:
        return answer | {"error": " ".join(str(error).split())}
    names = {"ri_info": "ReinsInfo", "ri_scope": "ReinsScope"}
    return answer | {
        "found": [
            {"name": names[each["name"]], "message": " ".join(str(each["msg"]).split())}
            for each in found
            if each["name"] in names
        ]
    }


if __name__ == "__main__":
    json.dump(check(Path(sys.argv[1])), sys.stdout)
