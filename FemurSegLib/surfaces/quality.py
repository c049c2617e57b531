"""What a surface is worth: closed, of which volume, of how many pieces, how long its edges are."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from vtkmodules.vtkCommonDataModel import vtkPolyData

from FemurSegLib.surface import points_of, triangles_of


@dataclass(frozen=True)
class Quality:
    """volume_mm3: enclosed, negative where the triangles face inwards. pieces: surfaces that hang together.
    handles: of all pieces together, 0 where each is like a ball (pieces - Euler characteristic / 2). open_edges:
    that do not lie between exactly two triangles. edge_mm: mean; 5 % are shorter than edge_p05_mm, 5 % longer than
    edge_p95_mm. shape_p05: 5 % of the triangles are less regular (4 sqrt(3) area / sum of squared edges: 1 for
    equilateral ones, 0 for flat ones)."""

    triangles: int
    volume_mm3: float
    area_mm2: float
    pieces: int
    handles: float
    open_edges: int
    edge_mm: float
    edge_p05_mm: float
    edge_p95_mm: float
    shape_p05: float

    @property
    def closed(self) -> bool:
        return self.open_edges == 0 and self.volume_mm3 > 0

    def as_dict(self) -> dict:
        return {key: round(value, 4) for key, value in asdict(self).items()}


def quality(surface: vtkPolyData) -> Quality:
    """Measures of a surface of triangles that is not empty."""
    points, triangles = points_of(surface).astype(float), triangles_of(surface)
    corners = points[triangles] - points[0]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(across, axis=1) / 2
    lengths = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    pairs = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(pairs @ [len(points), 1], return_counts=True)
    ends = np.divmod(edges, len(points))
    mesh = coo_matrix((np.ones(len(edges), bool), ends), shape=(len(points),) * 2)
    number, piece = connected_components(mesh, directed=False)
    used = np.zeros(len(points), bool)
    used[triangles] = True
    pieces = len(np.unique(piece[used]))
    euler = int(used.sum()) - len(edges) + len(triangles)
    short, long = np.quantile(lengths, (0.05, 0.95))
    return Quality(
        triangles=len(triangles),
        volume_mm3=float(np.einsum("ni,ni->", corners[:, 0], across) / 6),
        area_mm2=float(areas.sum()),
        pieces=pieces,
        handles=pieces - euler / 2,
        open_edges=int(np.count_nonzero(counts != 2)),
        edge_mm=float(lengths.mean()),
        edge_p05_mm=float(short),
        edge_p95_mm=float(long),
        shape_p05=float(np.quantile(4 * np.sqrt(3) * areas / np.maximum((lengths**2).sum(axis=1), 1e-12), 0.05)),
    )
