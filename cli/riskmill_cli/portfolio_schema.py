"""Writes the JSON Schemas of the portfolio format, one for portfolio.json and one for a row of each table.

`python -m riskmill_cli.portfolio_schema docs/schema` writes them anew; a test fails when they are not what this writes.
"""

import json
import sys
from pathlib import Path

from riskmill.portfolio_tables import TABLES, portfolio_schema, table_schema


def schema_files() -> dict[str, str]:
    """Return the text of every schema by its file name."""
    schemas = {"portfolio": portfolio_schema()} | {name: table_schema(table) for name, table in TABLES.items()}
    return {f"{name}.schema.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}


def main(folder: Path) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schema_files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m riskmill_cli.portfolio_schema FOLDER")
    main(Path(sys.argv[1]))
