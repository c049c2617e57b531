"""A bone as a signed distance field: quick to place in any pose and to paint on any grid, with no mesh
library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP_MM = 0.1
"""One unit of the stored int8 distances; they saturate at +-12.7 mm."""
PADDING_MM = 9.0
BAND_MM = 4.0


@dataclass(frozen=True)
class DistanceField:
    """Signed distance to a closed surface, negative inside.

    distance: int8 (z, y, x) in units of 0.1 mm; origin_mm: LPS (x, y, z) of element [0, 0, 0];
    spacing_mm: isotropic.
    """

    distance: np.ndarray
    origin_mm: np.ndarray
    spacing_mm: float

    @property
    def corners_mm(self) -> np.ndarray:
        """(8, 3) LPS corners of the box that the field fills."""
        last = self.origin_mm + self.spacing_mm * (np.array(self.distance.shape[::-1]) - 1)
        box = np.stack([self.origin_mm, last])
        return np.array([[box[a, 0], box[b, 1], box[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """Trilinear distance (mm) at LPS points (n, 3); beyond the field, the largest distance."""
        from scipy.ndimage import map_coordinates

        zyx = ((np.asarray(points_mm) - self.origin_mm) / self.spacing_mm).T[::-1]
        return map_coordinates(self.distance.astype(np.float32), zyx, order=1, cval=127.0) * STEP_MM


def distance_field(vertices_mm: np.ndarray, faces: np.ndarray, spacing_mm: float = 1.0) -> DistanceField:
    """Signed distance of a closed triangle mesh (LPS mm, faces outward).

    Inside and outside come from a scan conversion. Within `BAND_MM` of the surface the distance is the
    one to the tangent plane of the nearest vertex, second-order accurate in the edge length; farther off,
    a Euclidean distance transform.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    vertices_mm = np.asarray(vertices_mm, float)
    origin = vertices_mm.min(0) - PADDING_MM
    size = np.ceil((vertices_mm.max(0) + PADDING_MM - origin) / spacing_mm).astype(int) + 1
    inside = _scan_convert(vertices_mm, faces, origin, size, spacing_mm)
    distance = np.where(inside, -distance_transform_edt(inside), distance_transform_edt(~inside)) * spacing_mm
    distance += np.where(inside, 0.5, -0.5) * spacing_mm

    points, normals = _surface_samples(vertices_mm, faces)
    band = np.argwhere(np.abs(distance) < BAND_MM)
    at = origin + band[:, ::-1] * spacing_mm
    nearest_mm, nearest = cKDTree(points).query(at, workers=-1)
    to_plane = np.abs(np.einsum("ij,ij->i", at - points[nearest], normals[nearest]))
    sign = np.where(inside[tuple(band.T)], -1.0, 1.0)
    # Beside a crease the tangent plane says too little: never less than what the nearest sample allows.
    reach = np.sqrt(np.maximum(nearest_mm**2 - 1.0, 0.0))
    distance[tuple(band.T)] = sign * np.maximum(to_plane, reach)
    stored = np.clip(np.rint(distance / STEP_MM), -127, 127).astype(np.int8)
    return DistanceField(stored, origin, float(spacing_mm))


def _surface_samples(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangle centres with their outward unit normals."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    vertex_normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(vertex_normals, faces[:, corner], face_normals)
    normals = np.vstack([vertex_normals, face_normals])
    return np.vstack([vertices, corners.mean(1)]), normals / np.maximum(
        np.linalg.norm(normals, axis=1, keepdims=True), 1e-12
    )


def _scan_convert(vertices, faces, origin, size, spacing_mm) -> np.ndarray:
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

    mesh = vtk.vtkPolyData()
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices), deep=True))
    mesh.SetPoints(points)
    cells = vtk.vtkCellArray()
    quads = np.hstack([np.full((len(faces), 1), 3), faces]).astype(np.int64)
    cells.ImportLegacyFormat(numpy_to_vtkIdTypeArray(quads.ravel(), deep=True))
    mesh.SetPolys(cells)
    stencil = vtk.vtkPolyDataToImageStencil()
    stencil.SetInputData(mesh)
    stencil.SetOutputOrigin(origin)
    stencil.SetOutputSpacing((spacing_mm,) * 3)
    stencil.SetOutputWholeExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    image = vtk.vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    return vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(size[::-1]).astype(bool)
