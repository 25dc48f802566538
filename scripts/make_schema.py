"""Writes the JSON Schema of every wire message into docs/schema: `python scripts/make_schema.py`.

The types in realtime/messages.py are the truth; a test says when these files are behind them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from any folder, installed or not

from realtime.messages import json_schemas  # noqa: E402

FOLDER = ROOT / "docs" / "schema"


def schema_files() -> dict[str, str]:
    """File name -> content, such as action-event-1.json."""
    return {
        f"{tag.replace('/', '-')}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for tag, schema in json_schemas().items()
    }


def main() -> None:
    """Writes each file, whole or not at all, and names it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in schema_files().items():
        path = FOLDER / name
        draft = path.with_suffix(".part")
        draft.write_text(content, encoding="utf-8")
        draft.replace(path)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
