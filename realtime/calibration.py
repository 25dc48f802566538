"""What was measured at this site: the files of calib/, as `--calib` takes them.

Each file is one JSON object with a "schema"; each kind has its module here, which holds what the line does with it:
    calib-camera/1      lens.py         the camera's lens
    calib-depth/1       rig.py          where the depth camera stands to the colour camera
    calib-floor/1       floor.py        which way is up, and how high the camera hangs
    calib-thresholds/1  thresholds.py   when actions start and end here
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realtime.errors import UsageError
from realtime.fields import Fields, short
from realtime.floor import Floor
from realtime.lens import Lens
from realtime.rig import Rig
from realtime.thresholds import Thresholds


class Measured(Fields):
    """A file of calib/."""

    what = "calibration"
    file = "it"
    remedy = "measure it again, or leave it out of --calib"
    error = UsageError
    constants = True


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of the site; None: not measured."""

    lens: Lens | None = None
    rig: Rig | None = None
    floor: Floor | None = None
    thresholds: Thresholds | None = None


KINDS: dict[str, tuple[str, type[Lens] | type[Rig] | type[Floor] | type[Thresholds]]] = {
    "calib-camera/1": ("lens", Lens),
    "calib-depth/1": ("rig", Rig),
    "calib-floor/1": ("floor", Floor),
    "calib-thresholds/1": ("thresholds", Thresholds),
}


def load_calibration(path: Path | None) -> Calibration:
    """Reads one file, or every *.json of a folder; UsageError names the file and what is wrong with it."""
    if path is None:
        return Calibration()
    try:
        path.stat()
    except OSError as error:
        why = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise UsageError(f"--calib {path}: {why}; python -m calib.camera --help says how to make one") from error
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError(
            f"--calib {path}: the folder holds no .json; python -m calib.camera --help says how to make one"
        )
    found: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for file in files:
        name, part = _read(file)
        if name in found:
            raise UsageError(f"--calib {path}: {origins[name].name} and {file.name} are of one kind; keep one of them")
        found[name], origins[name] = part, file
    return Calibration(**found)


def _read(file: Path) -> tuple[str, Any]:
    """The name of the part that a file holds, and the part."""
    document = Measured.document(file, file)
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema not in KINDS:
        raise UsageError(
            f"calibration {file}: its schema is {short(schema)}, not one of {', '.join(KINDS)}; {Measured.remedy}"
        )
    name, kind = KINDS[schema]
    return name, kind.of(Measured(file, document, kind.KEYS))
