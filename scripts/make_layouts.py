"""Writes the joint layouts for the page that draws them: `python scripts/make_layouts.py`.

realtime/skeleton.py is the truth; it needs NumPy, which the process that serves the page does without. A test says when
the file is behind it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from any folder, installed or not

from realtime.skeleton import LAYOUTS  # noqa: E402

PATH = ROOT / "realtime" / "assets" / "web" / "layouts.json"


def layouts_json() -> str:
    """Each published layout by name: its joints in order, and its bones as pairs of parent and child."""
    layouts = {name: {"joints": layout.joints, "bones": layout.bones} for name, layout in LAYOUTS.items()}
    return "{\n" + ",\n".join(f'"{name}": {json.dumps(one)}' for name, one in layouts.items()) + "\n}\n"


def main() -> None:
    """Writes the file, whole or not at all, and names it."""
    draft = PATH.with_suffix(".part")
    draft.write_text(layouts_json(), encoding="utf-8")
    draft.replace(PATH)
    print(PATH.relative_to(ROOT))


if __name__ == "__main__":
    main()
