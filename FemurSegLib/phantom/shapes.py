"""Bone shapes of people, real and sampled from a shape model, turned into distance fields and kept in a
cache.

Sources (the folder is given by the user; nothing of it is shipped):
- `vsd/*.npz`, VSDFullBodyBoneModels, 16 people, CC BY-NC-SA 4.0; Fischer, Sci Data 10, 763 (2023).
- `llp26_left_limb.npz`, statistical shape model of the left lower limb, 26 people, MPL-2.0.
- `visible_human_soft_tissue/VHF.npz`, feet for phantoms without bones of `vsd`, CC BY 4.0; Andreassen et al.,
  Sci Data 10, 34 (2023).
All are RAS millimetres; everything here is LPS.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.phantom.distance import DistanceField, distance_field

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
FIELD_SPACING_MM = {
    "femur": 1.0,
    "hip": 1.2,
    "sacrum": 1.5,
    "tibia": 1.2,
    "fibula": 1.2,
    "patella": 1.0,
    "foot": 1.5,
}
FEET, OPEN_FEET = "z013", "vhf"
"""Who lends feet to those who have none; the second where no bone of `vsd` may be used."""
DISTAL_MM = 35.0
"""Height of the block of femur above its lowest point from which the knee's frame is taken."""
FOOT_BONES = (
    "talus",
    "calcaneus",
    "navicular",
    "cuboid",
    "lateral_cuneiform",
    "intermediate_cuneiform",
    "medial_cuneiform",
    "phalanges",
)
"""Of the Visible Human, whose phalanges hold the metatarsals."""
CACHE_VERSION = 1


@dataclass(frozen=True)
class FemurFrame:
    """Landmarks of a femur, LPS mm: head centre and radius, knee centre, and axes (3, 3) whose rows are
    the unit vectors to the patient's left, posterior and up along the mechanical axis (knee to head)."""

    head_mm: np.ndarray
    head_radius_mm: float
    knee_mm: np.ndarray
    axes: np.ndarray

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(self.head_mm - self.knee_mm))


@dataclass(frozen=True)
class Person:
    """Fields by bone name (`left_femur`, `right_hip`, `sacrum`, `left_foot`, ...), frames of the femora
    that are there, hip joint centres by side, and the plateau points of the tibiae, all in one LPS
    frame."""

    name: str
    fields: dict[str, DistanceField]
    frames: dict[str, FemurFrame]
    hip_centers_mm: dict[str, np.ndarray]
    plateaus_mm: dict[str, np.ndarray]

    def has_lower_leg(self, side: str) -> bool:
        return f"{side}_tibia" in self.fields


def people_in(shapes: Path) -> list[str]:
    """Names of the real people in a shapes folder."""
    return sorted(path.stem for path in (Path(shapes) / "vsd").glob("*.npz"))


def load_person(shapes: Path, name: str, cache: Path | None = None) -> Person:
    """A person by name: `z013` (real) or `llp26-17` (sample 17 of the shape model).

    cache: folder where the fields are kept between runs (about 5 MB a person); None keeps nothing.
    Raises InputError where the shapes are not found.
    """
    stored = Path(cache) / f"{name}.v{CACHE_VERSION}.npz" if cache else None
    if stored is not None and stored.exists():
        return _read(stored, name)
    person = _feet_donor(Path(shapes)) if name == OPEN_FEET else _person(name, *meshes_of(Path(shapes), name))
    if stored is not None:
        _write(stored, person)
    return person


def feet_for(people) -> str:
    """Who lends feet to phantoms of these people: nobody of `vsd` where none of them is."""
    return OPEN_FEET if people and all(name.startswith("llp26-") for name in people) else FEET


def _feet_donor(shapes: Path) -> Person:
    """Feet and tibiae of the Visible Human Female. Her legs' axes go from the head of the femur to its cartilage at
    the knee, and are turned as her feet point: straight forwards in her scan."""
    path = shapes / "visible_human_soft_tissue" / "VHF.npz"
    if not path.exists():
        raise InputError(f"{path} is not there, which lends feet.", "Give the folder that holds vsd/ and it.")
    facts = json.loads((shapes / "manifest.json").read_text())["visible_human"]["subjects"]["VHF"]["landmarks"]
    fields, frames = {}, {}
    with np.load(path) as file:
        for side in ("left", "right"):

            def mesh(name, side=side, file=file):
                return file[f"{name.format(side)}_vertices"] * RAS_TO_LPS, file[f"{name.format(side)}_faces"]

            foot = mesh("bone_{}_talus")
            for bone in FOOT_BONES[1:]:
                foot = _join(foot, mesh(f"bone_{{}}_{bone}"))
            fields[f"{side}_foot"] = distance_field(*foot, FIELD_SPACING_MM["foot"])
            fields[f"{side}_tibia"] = distance_field(*mesh("bone_{}_tibia"), FIELD_SPACING_MM["tibia"])
            head = np.array(facts[side]["femur_head_center_ras"]) * RAS_TO_LPS
            radius = facts[side]["cartilage_sphere_radius_mm"]
            knee = mesh("cartilage_{}_femur_distal")[0].mean(0)
            up = _unit(head - knee)
            left = _unit(np.array([1.0, 0, 0]) - up[0] * up)
            axes = np.stack([left, np.cross(up, left), up])
            frames[side] = FemurFrame(head, float(radius), knee, axes)
    return Person(OPEN_FEET, fields, frames, {}, {})


def _person(name: str, meshes: dict, hints: dict) -> Person:
    fields, frames, plateaus = {}, {}, {}
    for bone, (vertices, faces) in meshes.items():
        fields[bone] = distance_field(vertices, faces, FIELD_SPACING_MM[bone.split("_")[-1]])
        side = bone.split("_")[0]
        if bone.endswith("femur"):
            frames[side] = _femur_frame(vertices, *hints["heads"][side])
        if bone.endswith("tibia"):
            top = vertices[:, 2] > vertices[:, 2].max() - 12.0
            plateaus[side] = vertices[top][::4].copy()
    return Person(name, fields, frames, hints["hips"], plateaus)


def _femur_frame(vertices: np.ndarray, head_mm: np.ndarray, head_radius_mm: float) -> FemurFrame:
    knee = vertices[np.argmin(vertices @ _unit(head_mm - vertices.mean(0)))]
    for _ in range(4):
        up = _unit(head_mm - knee)
        height = vertices @ up
        distal = vertices[height < height.min() + DISTAL_MM]
        knee = distal.mean(0)
    across = distal - knee
    across = across - np.outer(across @ up, up)
    left = np.linalg.svd(across, full_matrices=False)[2][0]
    left = _unit(left - (left @ up) * up)
    left = left * np.sign(left[0])
    posterior = np.cross(up, left)  # LPS is right-handed: left x posterior = superior
    return FemurFrame(np.asarray(head_mm, float), float(head_radius_mm), knee, np.stack([left, posterior, up]))


def meshes_of(shapes: Path, name: str) -> tuple[dict, dict]:
    """Meshes by bone name, (vertices (n, 3) LPS mm, faces (m, 3)), and hints: `heads` by side (centre, radius),
    `hips` by side (joint centre). Raises InputError where the shapes are not found."""
    if name.startswith("llp26-"):
        return _llp26_sample(shapes / "llp26_left_limb.npz", int(name.split("-")[1]))
    path = shapes / "vsd" / f"{name}.npz"
    if not path.exists():
        raise InputError(
            f"No bone shapes of '{name}' in {shapes}.",
            "Give the folder that holds vsd/ and llp26_left_limb.npz.",
        )
    wanted = {f"{s}_{b}" for s in ("left", "right") for b in ("femur", "hip", "tibia", "fibula", "patella")} | {
        "sacrum"
    }
    feet = ("talus", "calcaneus", "tarsals", "metatarsals", "phalanges")
    meshes: dict[str, tuple] = {}
    with np.load(path) as file:
        bones = [key[: -len("_vertices")] for key in file.files if key.endswith("_vertices")]
        for bone in bones:
            mesh = file[f"{bone}_vertices"] * RAS_TO_LPS, file[f"{bone}_faces"]
            if bone in wanted:
                meshes[bone] = mesh
            elif bone.split("_")[-1] in feet:
                foot = bone.split("_")[0] + "_foot"
                meshes[foot] = _join(meshes[foot], mesh) if foot in meshes else mesh
    facts = json.loads((shapes / "manifest.json").read_text())["vsd_train"][name]["femur"]
    heads = {
        bone.split("_")[0]: (np.array(f["head_center_ras"]) * RAS_TO_LPS, f["head_radius_mm"])
        for bone, f in facts.items()
    }
    hips = {side: head[0] for side, head in heads.items()}
    return meshes, {"heads": heads, "hips": hips}


def _llp26_sample(path: Path, seed: int) -> tuple[dict, dict]:
    """x = mean + sum_k b_k sd_k modes_k, b_k ~ N(0, 1) clipped at 2, then a random size of 0.9 to 1.15."""
    if not path.exists():
        raise InputError(f"The shape model {path} is not there.", "Give the folder that holds llp26_left_limb.npz.")
    rng = np.random.default_rng(seed)
    with np.load(path) as model:
        weights = np.clip(rng.standard_normal(25), -2, 2) * model["sd"]
        points = model["mean"] + np.tensordot(weights, model["modes"].astype(np.float32), 1)
        points = points * RAS_TO_LPS * rng.uniform(0.9, 1.15)
        meshes = {}
        for bone in map(str, model["bones"]):
            first, last = model[f"{bone}_range"]
            meshes[bone] = points[first:last], model[f"{bone}_faces"]
        cup = model["idx_left_hip_acetabulum"]
        cups = {
            "left": meshes["left_hip"][0][cup],
            "right": meshes["right_hip"][0][model["mirror_left_hip_to_right_hip"][cup]],
        }
        head = _sphere(meshes["left_femur"][0][model["idx_left_femur_head"]])
    return meshes, {"heads": {"left": head}, "hips": {side: _sphere(p)[0] for side, p in cups.items()}}


def _sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Least-squares sphere through points (n, 3): centre and radius."""
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def _join(a: tuple, b: tuple) -> tuple:
    return np.vstack([a[0], b[0]]), np.vstack([a[1], b[1] + len(a[0])])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _write(path: Path, person: Person) -> None:
    arrays = {}
    for bone, field in person.fields.items():
        arrays[f"field/{bone}"] = field.distance
        arrays[f"place/{bone}"] = np.r_[field.origin_mm, field.spacing_mm]
    for side, frame in person.frames.items():
        arrays[f"frame/{side}"] = np.r_[frame.head_mm, frame.head_radius_mm, frame.knee_mm, frame.axes.ravel()]
    arrays |= {f"hip/{side}": center for side, center in person.hip_centers_mm.items()}
    arrays |= {f"plateau/{side}": points for side, points in person.plateaus_mm.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)


def _read(path: Path, name: str) -> Person:
    with np.load(path) as file:
        part = {
            kind: {k.split("/")[1]: file[k] for k in file.files if k.startswith(kind + "/")}
            for kind in ("field", "place", "frame", "hip", "plateau")
        }
    fields = {
        bone: DistanceField(d, part["place"][bone][:3], float(part["place"][bone][3]))
        for bone, d in part["field"].items()
    }
    frames = {
        side: FemurFrame(v[:3], float(v[3]), v[4:7], v[7:].reshape(3, 3)) for side, v in part["frame"].items()
    }
    return Person(name, fields, frames, part["hip"], part["plateau"])
