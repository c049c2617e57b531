"""The result of a run: what the pipeline returns, and the folder it is written to.

    write_result("out", segmentation, source="leg.nii.gz")
    result = read_result("out")
    result.document["femurs"]["right_femur"]["volume_ml"]
    result.file("right_femur_stl")

`result.json` is described by `result.schema.json` beside this page. A folder appears whole or not at all.
Reading needs the standard library only.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__, models, progress, sides
from .errors import InputError, OutputError
from .localization.detection import iou

if TYPE_CHECKING:
    import numpy as np
    from vtkmodules.vtkCommonDataModel import vtkPolyData

    from .findings import Finding
    from .grid import Grid
    from .localization.detection import Detection
    from .localization.radiograph import Radiograph
    from .localization.region import Localization
    from .models import Model
    from .segmentation.confidence import Evidence

SCHEMA_VERSION = 3
READABLE = (1, 2, 3)
"""Versions that `read_result` reads. 2 added what the bone tells (`anatomy` of a femur) and the CT's hash; 3 the
thickness of the cortex and the surfaces painted with it, how many perturbed copies of the mask were read, and the
set of the weights."""
DOCUMENT = "result.json"
REPORT = "report.html"
"""What `femurseg report` adds to a folder; a new run in the same folder takes it away."""
FILES = {
    "labelmap": "femurs.nii.gz",
    "segmentation": "femurs.seg.nrrd",
    "right_femur_stl": "right_femur.stl",
    "left_femur_stl": "left_femur.stl",
    "right_femur_thickness": "right_femur_thickness.vtp",
    "left_femur_thickness": "left_femur_thickness.vtp",
    "coronal": "coronal.png",
    "axial": "axial.png",
    "overview": "overview.png",
}
PACKAGES = ("torch", "monai", "ultralytics", "simpleitk", "vtk", "numpy", "scipy")
"""Packages whose versions a result records, where they are installed."""

_NIFTI_HEADER_BYTES = 352
_OF_THE_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that a file manager leaves in a folder that was looked at."""


@dataclass
class Segmentation:
    """Both femora in one CT, as the pipeline returns them.

    `labels`: uint8 (k, j, i) on `grid`, the grid of the CT as it was read. `radiographs`: coronal and axial.
    `confidence`: 0..1 by side, the probability that the mask is a good one (segmentation/confidence.py); without a
    calibration there is none. `findings`: all there is to tell, those of the localization included.
    `seconds`: by stage. `models`: the weights that were used. `probability`: where it was asked for, by side: a box
    of the oriented CT (a range for k, j and i) and float32 (k, j, i) in it, of this one body. `evidence`: by side,
    what the confidence was made of. `anatomy`: by side, what the bone tells (anatomy/record.py). `ct_sha256`: of
    the CT's voxels (`volume_sha256`). `surfaces`: by side, if they are made already (surface.surface_of).
    `painted`: by side, those with the thickness of the cortex at their points, if asked for (anatomy/thickness.py).
    """

    labels: np.ndarray
    grid: Grid
    radiographs: tuple[Radiograph, ...]
    localization: Localization
    confidence: dict[str, float]
    findings: list[Finding]
    seconds: dict[str, float]
    device: str
    models: list[Model]
    anatomy: dict[str, dict] = field(default_factory=dict, repr=False)
    ct_sha256: str = ""
    surfaces: dict[str, vtkPolyData] = field(default_factory=dict, repr=False)
    painted: dict[str, vtkPolyData] = field(default_factory=dict, repr=False)
    probability: dict[str, tuple[tuple[tuple[int, int], ...], np.ndarray]] = field(default_factory=dict, repr=False)
    evidence: dict[str, Evidence] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Result:
    """A result folder that was read: `document` is the content of its result.json."""

    folder: Path
    document: dict

    def file(self, key: str) -> Path | None:
        """Path of a file by its key in FILES; None if this result has none (a femur not found)."""
        name = self.document["files"].get(key)
        return self.folder / name if name else None


def check_folder(folder: Path | str) -> Path:
    """The absolute path of a folder that a result may be written to. Raises OutputError, before any work.

    Allowed: a path where nothing is, an empty folder, and an earlier result with no other files in it.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        if folder.exists():
            if not folder.is_dir():
                raise OutputError(f"{folder} is a file, not a folder.", "Choose another folder for the result.")
            names = {entry.name for entry in folder.iterdir()} - _OF_THE_SYSTEM
            strange = sorted(names - {DOCUMENT, REPORT, *FILES.values()})
            if strange:
                raise OutputError(
                    f"{folder} holds something else than a result ({strange[0]}), and is left as it is.",
                    "Choose a new folder, an empty one, or that of an earlier result.",
                )
            if names:
                read_result(folder)
        parent = next(place for place in folder.parents if place.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(f"No folder can be made in {parent}.", "Choose a place where you may write.")
    except InputError as error:
        raise OutputError(
            f"{folder} holds files, but no earlier result, and is left as it is.",
            "Choose a new folder, an empty one, or that of an earlier result.",
        ) from error
    except OSError as error:
        raise _output_error(error, folder) from error
    return folder


def write_result(
    folder: Path | str,
    segmentation: Segmentation,
    *,
    source: Path | str = "",
    started: float | None = None,
    listener: progress.Listener = progress.ignore,
) -> Path:
    """Write a result folder and return its absolute path. Raises OutputError; then nothing changed on disk.

    Everything is written to a hidden folder beside it, which takes its place at the end. An earlier result
    is replaced, anything else is refused (`check_folder`). `source` is the CT's path, for the record.
    `started` is `time.perf_counter()` at the start of the run; without it the total is the sum of the stages.
    """
    folder = check_folder(folder)
    made = [place for place in (folder.parent, *folder.parent.parents) if not place.exists()]
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    complete = False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        _write_files(partial, segmentation, source, started, listener)
        _flush(partial)
        _take_place(partial, folder)
        complete = True
    except OSError as error:
        raise _output_error(error, folder) from error
    finally:
        if not complete:
            shutil.rmtree(partial, ignore_errors=True)
            for place in made:
                if place.exists() and not any(place.iterdir()):
                    place.rmdir()
    return folder


def read_result(folder: Path | str) -> Result:
    """Read a result folder. Raises InputError if it is none, or of another version."""
    folder = Path(folder)
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a result folder: its {DOCUMENT} cannot be read.") from error
    if not isinstance(document, dict) or document.get("schema_version") not in READABLE:
        raise InputError(
            f"{folder / DOCUMENT} is not a result of this version of FemurSeg.", "Run the segmentation again."
        )
    return Result(folder, document)


def validate(document: dict) -> None:
    """Check the content of a result.json against the schema. Needs jsonschema; raises its ValidationError."""
    import jsonschema

    schema = json.loads(Path(__file__).with_name("result.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(document)


def volume_sha256(voxels: np.ndarray) -> str:
    """SHA-256 of a CT's voxels as they were read: int16 HU, little endian, slice by slice (k, j, i). The same for
    one CT in several file formats, where these keep the order of the axes."""
    import hashlib

    digest = hashlib.sha256()
    for part in voxels:
        digest.update(part.astype("<i2", order="C", copy=False).data)
    return digest.hexdigest()


def peak_memory_gb() -> float | None:
    """The most main memory (1e9 bytes) this process ever held, or None where the system does not tell.

    On Linux /proc counts since the program was started; getrusage also counts the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _write_files(folder: Path, segmentation: Segmentation, source, started, listener) -> None:
    from . import pictures, surface
    from .surfaces.files import write_surface

    seconds = dict(segmentation.seconds)
    began = time.perf_counter()
    labels, grid = segmentation.labels, segmentation.grid
    extents, surfaces = {}, dict(segmentation.surfaces)
    if not surfaces:
        listener(progress.progress("surfaces"))
    for side, label in sides.LABELS.items():
        box = surface.bounds(labels, label)
        if box is not None:
            extents[side] = box
            if side not in surfaces:
                surfaces[side] = surface.surface_of(labels, grid, label)
            surface.write_stl(folder / FILES[f"{side}_stl"], surfaces[side], sides.DISPLAY_NAMES[side])
            if side in segmentation.painted:
                name = f"{sides.DISPLAY_NAMES[side]}, thickness of the cortex"
                write_surface(folder / FILES[f"{side}_thickness"], segmentation.painted[side], name)
    seconds["surfaces"] = seconds.get("surfaces", 0.0) + time.perf_counter() - began

    began = time.perf_counter()
    listener(progress.progress("write"))
    boxes = _boxes(segmentation)
    for radiograph in segmentation.radiographs:
        drawn = {side: views[radiograph.view] for side, views in boxes.items() if views.get(radiograph.view)}
        pictures.draw_radiograph(radiograph, drawn).save(folder / FILES[radiograph.view])
    pictures.draw_overview(surfaces).save(folder / FILES["overview"])
    listener(progress.progress("write", 0.5))
    _write_labels(folder, segmentation, extents)
    seconds["write"] = time.perf_counter() - began

    seconds["total"] = sum(seconds.values()) if started is None else time.perf_counter() - started
    document = {
        "schema_version": SCHEMA_VERSION,
        "femurseg_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "input": {
            "path": str(source),
            "sha256": segmentation.ct_sha256 or None,
            **_grid_entry(segmentation.grid),
        },
        "femurs": {
            side: _femur_entry(segmentation, side, surfaces.get(side), extents.get(side), boxes[side])
            for side in sides.SIDES
        },
        "radiographs": {r.view: _radiograph_entry(r) for r in segmentation.radiographs},
        "warnings": [{"code": f.code, "message": f.message, "side": f.side} for f in segmentation.findings],
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "peak_memory_gb": _rounded(peak_memory_gb(), 3),
        "device": segmentation.device,
        "versions": versions(),
        "weights": models.terms_of(segmentation.models),
        "models": [{"name": m.name, "file": m.file, "sha256": m.sha256} for m in segmentation.models],
        "files": {key: name for key, name in FILES.items() if (folder / name).exists()},
    }
    (folder / DOCUMENT).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_labels(folder: Path, segmentation: Segmentation, extents: dict) -> None:
    """Both labelmap files, from one SimpleITK image."""
    import SimpleITK as sitk

    from .nifti import holds
    from .volume import Volume, to_sitk

    image = to_sitk(Volume(segmentation.labels, segmentation.grid))
    try:
        sitk.WriteImage(image, str(folder / FILES["labelmap"]), useCompression=True, compressionLevel=1)
        for key, value in _slicer_metadata(extents).items():
            image.SetMetaData(key, value)
        sitk.WriteImage(image, str(folder / FILES["segmentation"]), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise OSError(errno.EIO, "the labelmap could not be written") from error
    # ITK does not notice when the end is cut off by a full disk; the last bytes of gzip tell the length before it.
    for key, header in (("labelmap", _NIFTI_HEADER_BYTES), ("segmentation", 0)):
        if not holds(folder / FILES[key], header + segmentation.labels.size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _slicer_metadata(extents: dict) -> dict[str, str]:
    """What makes 3D Slicer read the labelmap as named, coloured and coded segments (.seg.nrrd)."""
    entries = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, (side, box) in enumerate(extents.items()):
        codes = (sides.TERMINOLOGY["category"], sides.TERMINOLOGY["type"], sides.TERMINOLOGY[side])
        terms = "~".join("^".join(code) for code in codes)
        segment = {
            "ID": side,
            "Name": sides.DISPLAY_NAMES[side],
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{channel:g}" for channel in sides.COLORS[side]),
            "ColorAutoGenerated": "0",
            "Extent": " ".join(f"{axis.start} {axis.stop - 1}" for axis in reversed(box)),
            "LabelValue": str(sides.LABELS[side]),
            "Layer": "0",
            "Tags": "TerminologyEntry:Segmentation category and type - DICOM master list"
            f"~{terms}~Anatomic codes - DICOM master list~^^~^^|",
        }
        entries.update({f"Segment{number}_{key}": value for key, value in segment.items()})
    return entries


def _boxes(segmentation: Segmentation) -> dict[str, dict[str, Detection | None]]:
    """By side and view, the detection that the region was made from (fusion may have overruled its side)."""
    boxes = {side: {r.view: None for r in segmentation.radiographs} for side in sides.SIDES}
    for side, region in segmentation.localization.regions.items():
        edges = dict(zip("ijk", zip(region.lower_ijk, region.upper_ijk, strict=True), strict=True))
        for radiograph in segmentation.radiographs:
            if radiograph.view not in region.views:
                continue
            shadow = radiograph.voxels_to_box(edges)
            detections = segmentation.localization.detections.get(radiograph.view, [])
            boxes[side][radiograph.view] = max(
                detections, key=lambda d: (iou(d.box, shadow), d.score), default=None
            )
    return boxes


def _grid_entry(grid: Grid) -> dict:
    return {
        "size_ijk": list(grid.shape[::-1]),
        "spacing_mm": list(grid.spacing_mm),
        "origin_lps_mm": list(grid.origin_mm),
        "direction_lps": grid.direction.tolist(),
    }


def _femur_entry(segmentation: Segmentation, side: str, shape, extent, boxes) -> dict:
    import numpy as np

    from .pictures import zoom_of
    from .surface import length_mm

    found = extent is not None
    voxels = np.count_nonzero(segmentation.labels[extent] == sides.LABELS[side]) if found else 0
    voxel_mm3 = float(np.prod(segmentation.grid.spacing_mm))
    confidence = segmentation.confidence.get(side) if found else None
    region = segmentation.localization.regions.get(side)
    radiographs = {r.view: r for r in segmentation.radiographs}
    return {
        "label": sides.LABELS[side],
        "found": found,
        "volume_ml": _rounded(voxels * voxel_mm3 / 1000, 3) if found else None,
        "length_mm": _rounded(length_mm(shape), 1) if found else None,
        "confidence": _rounded(confidence, 4),
        "cut": list(region.cut) if region else [],
        "boxes": {
            view: {
                "score": _rounded(box.score, 4),
                "box_pixels": [_rounded(edge * zoom_of(radiographs[view]), 2) for edge in box.box],
            }
            if box
            else None
            for view, box in boxes.items()
        },
        "region": _region_entry(region, segmentation.grid.oriented()) if region else None,
        "anatomy": segmentation.anatomy.get(side) if found else None,
    }


def _region_entry(region, oriented: Grid) -> dict:
    import numpy as np

    lower, upper = np.array(region.lower_ijk, float), np.array(region.upper_ijk, float)
    return {
        "lower_ijk": lower.round(3).tolist(),
        "upper_ijk": upper.round(3).tolist(),
        "center_lps_mm": oriented.lps((lower + upper) / 2).round(4).tolist(),
        "size_mm": ((upper - lower) * oriented.spacing_mm).round(4).tolist(),
        "axes_lps": oriented.direction.T.tolist(),
        "score": _rounded(region.score, 4),
        "agreement": _rounded(region.agreement, 4),
    }


def _radiograph_entry(radiograph: Radiograph) -> dict:
    import numpy as np

    from .pictures import zoom_of

    zoom = zoom_of(radiograph)
    rows, columns = radiograph.image.shape[:2]
    first, right, below = (
        radiograph.grid.lps(radiograph.pixel_to_ijk(x, y))
        for x, y in ((0.5 / zoom, 0.5 / zoom), (1 + 0.5 / zoom, 0.5 / zoom), (0.5 / zoom, 1 + 0.5 / zoom))
    )
    return {
        "file": FILES[radiograph.view],
        "size": [columns * zoom, rows * zoom],
        "origin_lps_mm": first.round(4).tolist(),
        "column_direction_lps": ((right - first) / np.linalg.norm(right - first)).round(9).tolist(),
        "row_direction_lps": ((below - first) / np.linalg.norm(below - first)).round(9).tolist(),
        "pixel_mm": [radiograph.pixel_mm[1] / zoom, radiograph.pixel_mm[0] / zoom],
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter, where they are installed."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _rounded(value, digits: int):
    return None if value is None else round(float(value), digits)


def _flush(folder: Path) -> None:
    """See every byte on disk before the folder takes its name: a full disk may only show then."""
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def _take_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`; what is there steps aside first, and comes back should that fail."""
    if not folder.exists():
        os.rename(partial, folder)
        return
    earlier = folder.with_name(f".{folder.name}.{os.getpid()}.earlier")
    try:
        os.rename(folder, earlier)
        os.rename(partial, folder)
    except BaseException:
        if earlier.exists() and not folder.exists():
            os.rename(earlier, folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _output_error(error: OSError, folder: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return OutputError(
            f"There is not enough space to write {folder}.", "Free some space or choose another disk."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{folder} may not be written.", "Choose a place where you may write.")
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return OutputError(f"{folder} is in use or a mounted disk.", "Choose a folder inside it.")
    return OutputError(f"{folder} could not be written ({error.strerror or error}).", "Choose another folder.")
