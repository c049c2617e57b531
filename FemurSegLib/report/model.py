"""The bones and their axes for the viewer (viewer.js): thinned out, packed small, as one JSON text."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from FemurSegLib.sides import COLORS, DISPLAY_NAMES

TRIANGLES = 14_000
"""Of each bone, about; a whole femur then has edges of 3 to 4 mm, and a report stays small."""
LINE_COLORS = {
    "mechanical_axis": (0.10, 0.45, 0.20),
    "anatomical_axis": (0.45, 0.20, 0.60),
    "neck_axis": (0.75, 0.10, 0.10),
    "posterior_condylar_line": (0.15, 0.15, 0.15),
    "distal_condylar_line": (0.15, 0.15, 0.15),
    "transepicondylar_line": (0.10, 0.35, 0.75),
}
"""Lines of a record that are drawn, on the radiograph and in the model, RGB in 0..1."""
LINE_NAMES = {
    "mechanical_axis": "mechanical axis",
    "anatomical_axis": "anatomical axis",
    "neck_axis": "neck axis",
    "posterior_condylar_line": "condylar lines, posterior and distal",
    "transepicondylar_line": "transepicondylar line",
}


def scene(surfaces: Mapping[str, Path], anatomy: Mapping[str, dict | None]) -> str:
    """JSON for viewer.js. surfaces: STL files in LPS mm by side; anatomy: records by side, or None.

    Points are stored as 16 bit steps of `size_mm` from `lower_mm`, little endian. Raises OSError where a file
    cannot be read.
    """
    meshes = {side: thinned(path) for side, path in surfaces.items()}
    if not meshes:
        return ""
    every = np.concatenate([points for points, _ in meshes.values()])
    lower, size = every.min(axis=0), float(np.ptp(every, axis=0).max())
    lines = [
        {"color": LINE_COLORS[name], "ends": line["ends_lps_mm"]}
        for record in anatomy.values()
        if record
        for name, line in record["lines"].items()
        if name in LINE_COLORS
    ]
    bones = [
        {
            "name": DISPLAY_NAMES[side],
            "color": COLORS[side],
            "points": _packed(np.rint((points - lower) / size * 65535), "<u2"),
            "triangles": _packed(triangles, "<u2" if len(points) < 65536 else "<u4"),
            "wide": len(points) >= 65536,
        }
        for side, (points, triangles) in meshes.items()
    ]
    content = {"lower_mm": lower.tolist(), "size_mm": size, "bones": bones, "lines": lines}
    return json.dumps(content, separators=(",", ":"))


def thinned(path: Path, triangles: int = TRIANGLES) -> tuple[np.ndarray, np.ndarray]:
    """(points (n, 3), triangles (m, 3)) of an STL file with about that many triangles left."""
    from vtkmodules.vtkFiltersCore import vtkCleanPolyData, vtkQuadricDecimation
    from vtkmodules.vtkIOGeometry import vtkSTLReader

    from FemurSegLib.surface import points_of, triangles_of

    if not Path(path).is_file():
        raise FileNotFoundError(2, "no such surface", str(path))
    reader = vtkSTLReader()
    reader.SetFileName(str(path))
    clean = vtkCleanPolyData()
    clean.SetInputConnection(reader.GetOutputPort())
    clean.Update()
    surface = clean.GetOutput()
    count = surface.GetNumberOfPolys()
    if count > triangles:
        thin = vtkQuadricDecimation()
        thin.SetInputData(surface)
        thin.SetTargetReduction(1 - triangles / count)
        thin.VolumePreservationOn()
        thin.Update()
        surface = thin.GetOutput()
    return points_of(surface).astype(float), triangles_of(surface)


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode("ascii")
