"""How well landmarks and measurements are repeated on real femora: `python -m FemurSegLib.anatomy.study SHAPES`.

Every femur of the 16 people of VSDFullBodyBoneModels and of samples of the LLP26 shape model is read from its
exact mesh, and again from masks of that mesh, turned, mirrored and roughened (see `stability`).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from FemurSegLib.sides import SIDES

from .bars import BARS
from .bone import Bone
from .knee import condylar_axes
from .landmarks import find_landmarks, landmark_points
from .measurements import measure
from .mistakes import mistaken
from .regions import label_regions, region_volumes
from .stability import perturbed, poses, voxelize

BARRED = (
    "head_center_mm",
    "head_diameter_mm",
    "length_mm",
    "neck_shaft_angle_deg",
    "anteversion_deg",
    "mldfa_deg",
    "anatomical_mechanical_angle_deg",
)
"""What is held against its bar, read from a mask instead of the exact mesh."""
SPACING_MM = (0.9, 0.9, 1.5)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", type=Path)
    parser.add_argument("--samples", type=int, default=10, help="of the shape model; default: 10")
    parser.add_argument("--first", type=int, default=0, help="number of the first sample; default: 0")
    parser.add_argument("--people", type=int, default=None, help="first N of the real people; default: all")
    parser.add_argument("--poses", type=int, default=3, help="masks of each femur; default: 3")
    parser.add_argument("--spacing", nargs=3, type=float, default=SPACING_MM, help="of the masks, mm")
    parser.add_argument("--regions", action="store_true", help="volumes of the regions too (slower)")
    parser.add_argument("--mistakes", action="store_true", help="also masks with the mistakes of `mistakes`")
    args = parser.parse_args(argv)

    values, off, moved, by_pose = (defaultdict(list) for _ in range(4))
    known, articular, volumes, missing, beyond = [], [], defaultdict(list), [], []
    mistakes = defaultdict(list)
    began = time.perf_counter()
    for number, (name, bone, truth) in enumerate(femora(args.shapes, args.samples, args.people, args.first)):
        exact = find_landmarks(bone)
        points, measured = landmark_points(exact), measure(exact)
        for key, m in measured.items():
            values[key].append(np.nan if m.value is None else m.value)
        if exact.reasons:
            missing.append(f"{name} {bone.side}: {exact.reasons}")
            continue
        if "articular" in truth:
            articular.append(_against_articular(bone, truth["articular"]))
        center, radius = truth["head"]
        known.append((np.linalg.norm(points["head_center"] - center), exact.hip.head.radius_mm - radius))
        which = poses(args.poses, seed=number)
        for pose, (again, back) in zip(which, perturbed(bone, args.spacing, which, number), strict=True):
            found = find_landmarks(again)
            errors = {}
            for key, m in measure(found).items():
                error = errors[key] = _off(m.value, measured[key].value)
                off[key].append(error)
                by_pose[_kind(pose), key].append(error)
            there = landmark_points(found)
            for key, point in points.items():
                if key == "head_center" and key in there:
                    errors["head_center_mm"] = np.linalg.norm(back(there[key]) - point)
                    by_pose[_kind(pose), "head_center_mm"].append(errors["head_center_mm"])
                moved[key].append(np.linalg.norm(back(there[key]) - point) if key in there else np.nan)
            errors["head_diameter_mm"] *= 100 / measured["head_diameter_mm"].value
            for key in BARRED:
                bar, error = BARS[key], errors.get(key, np.nan)
                if not bar.reached(abs(error)):
                    beyond.append(f"{name} {bone.side} {pose.name}: {key} {error:.2f} {bar.unit}")
        if args.mistakes:
            for kind, wrong in mistaken(bone, truth["neighbours"], args.spacing, args.first + number):
                found = find_landmarks(wrong)
                center = landmark_points(found).get("head_center", np.nan)
                errors = {"head_center_mm": np.linalg.norm(center - points["head_center"])}
                for key, m in measure(found).items():
                    errors[key] = _off(m.value, measured[key].value)
                mistakes[kind].append([errors[key] for key in BARRED])
        if args.regions:
            _compare_regions(bone, exact, args.spacing, number, volumes)
        print(f"{name} {bone.side}  " + "  ".join(f"{k} {m.value:.1f}" for k, m in measured.items()), flush=True)
    _report(values, off, moved, by_pose, known, volumes, missing)
    for kind, errors in mistakes.items():
        print(f"{kind}: {len(errors)} masks; |error| mean, largest" + _not_read(errors))
        for key, error in zip(BARRED, np.abs(errors).T, strict=True):
            print(f"  {key:34s}{np.nanmean(error):7.2f}{np.nanmax(error):7.2f}")
    print(f"{len(beyond)} values beyond a bar" + ":" * bool(beyond), *beyond, sep="\n  ")
    if articular:
        mean, largest = np.nanmean(articular, axis=0), np.nanmax(articular, axis=0)
        print(
            f"condylar axis from the shape model's cartilage alone: cylinder {mean[0]:.1f} deg (largest "
            f"{largest[0]:.1f}), spheres {mean[1]:.1f} deg (largest {largest[1]:.1f}); tangent points at most "
            f"{largest[2]:.1f} mm from it"
        )
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0


def femora(shapes: Path, samples: int, people: int | None = None, first: int = 0):
    """Yields (name, Bone, truth): truth["head"] is the head's (centre, radius) as the shapes' own file or index
    set has it, truth["neighbours"] its hip bone and tibia, where there are any, truth["articular"] for the shape
    model the indices of the points of its knee's cartilage."""
    from FemurSegLib.phantom.shapes import meshes_of, people_in

    with np.load(Path(shapes) / "llp26_left_limb.npz") as model:
        cartilage = model["idx_left_femur_knee"]
    for name in people_in(shapes)[:people] + [f"llp26-{n}" for n in range(first, first + samples)]:
        bones, hints = meshes_of(Path(shapes), name)
        for side in SIDES:
            if side in bones:
                vertices, faces = bones[side]
                body_side = side.split("_")[0]
                truth = {"head": hints["heads"][body_side], "neighbours": {}}
                for other in ("hip", "tibia"):
                    if f"{body_side}_{other}" in bones:
                        points, triangles = bones[f"{body_side}_{other}"]
                        truth["neighbours"][other] = Bone(np.asarray(points, float), triangles, side)
                if name.startswith("llp26"):
                    truth["articular"] = cartilage
                yield name, Bone(np.asarray(vertices, float), faces, side), truth


def _against_articular(bone: Bone, indices: np.ndarray) -> tuple[float, float, float]:
    """Condylar axes fitted to the model's own cartilage alone: angle (degrees) to ours by cylinder and by
    spheres, and the largest distance (mm) of our tangent points from the cartilage."""
    bone = bone.as_right()
    knee = find_landmarks(bone).knee
    inside = np.isin(bone.triangles, indices).all(axis=1)
    fitted = condylar_axes(bone, inside, knee.up, knee.medial, knee.posterior, knee.posterior_mm, knee.width_mm)
    if fitted is None:
        return np.nan, np.nan, np.nan
    _, by_spheres, axis, _ = fitted
    angles = [
        np.degrees(np.arccos(min(a.direction @ b.direction, 1.0)))
        for a, b in ((axis, knee.axis), (by_spheres, knee.axis_by_spheres))
    ]
    tangent = np.vstack([knee.posterior_mm, knee.distal_mm])
    gaps = np.linalg.norm(bone.points_mm[indices][:, None] - tangent, axis=2).min(axis=0)
    return angles[0], angles[1], float(gaps.max())


def _off(value: float | None, exact: float | None) -> float:
    return np.nan if value is None or exact is None else value - exact


def _not_read(errors) -> str:
    count = int(np.isnan(errors).any(axis=1).sum())
    return f"; {count} not read whole" if count else ""


def _kind(pose) -> str:
    return ("mirror " if pose.mirror else "turn ") + ("rough" if pose.rough else "")


def _compare_regions(bone, exact, spacing_mm, seed, volumes) -> None:
    """Volumes with landmarks of the mesh on a fine mask, against those all read from a turned, coarse mask."""
    fine = voxelize(bone, (0.6, 0.6, 0.6))
    truth = region_volumes(label_regions(*fine, exact), exact)
    for again, _ in perturbed(bone, spacing_mm, poses(1, seed), seed):
        labels, grid = voxelize(again, spacing_mm)
        found = find_landmarks(again)
        result = region_volumes(label_regions(labels, grid, found), found)
    for name, volume in truth.items():
        if volume.volume_ml and result[name].volume_ml:
            volumes[name].append((volume.volume_ml, result[name].volume_ml))


def _report(values, off, moved, by_pose, known, volumes, missing) -> None:
    masks = len(off["length_mm"])
    print(f"\n{len(values['length_mm'])} femora; {masks} masks of them, turned by up to 30 degrees")
    print(
        f"{'measurement':36s}{'mean':>9s}{'SD':>8s}{'from':>8s}{'to':>8s}{'|error|':>9s}{'p95':>7s}{'largest':>9s}"
    )
    for key, each in values.items():
        error = np.abs(off[key])
        print(
            f"{key:36s}{np.nanmean(each):9.1f}{np.nanstd(each):8.1f}{np.nanmin(each):8.1f}{np.nanmax(each):8.1f}"
            f"{np.nanmean(error):9.2f}{np.nanpercentile(error, 95):7.2f}{np.nanmax(error):9.2f}"
            + (f"  missing in {np.isnan(error).sum()}" if np.isnan(error).any() else "")
        )
    print(f"\n{'landmark, distance mm':36s}{'mean':>9s}{'p95':>8s}{'largest':>9s}")
    for key, each in moved.items():
        print(
            f"{key:36s}{np.nanmean(each):9.2f}{np.nanpercentile(each, 95):8.2f}{np.nanmax(each):9.2f}"
            + (f"  missing in {np.isnan(each).sum()}" if np.isnan(each).any() else "")
        )
    print("\n|error| by kind of mask: mean, largest")
    for kind in sorted({k for k, _ in by_pose}):
        print(kind)
        for key in BARRED:
            error = np.abs(by_pose[kind, key])
            print(f"  {key:34s}{np.nanmean(error):7.2f}{np.nanmax(error):7.2f}")
    known = np.array(known)
    print(
        f"\nhead against the shapes' own: centre {known[:, 0].mean():.2f} mm (largest {known[:, 0].max():.2f}), "
        f"radius {np.abs(known[:, 1]).mean():.2f} mm (largest {np.abs(known[:, 1]).max():.2f})"
    )
    for first, second in (
        ("neck_shaft_angle_deg", "neck_shaft_angle_by_sections_deg"),
        ("anteversion_of_head_deg", "anteversion_deg"),
    ):
        gap = np.array(values[first]) - np.array(values[second])
        print(f"{first} - {second}: mean {np.nanmean(gap):.1f}, SD {np.nanstd(gap):.1f}")
    for name, pairs in volumes.items():
        truth, found = np.array(pairs).T
        error = np.abs(found / truth - 1) * 100
        print(f"{name:20s}{truth.mean():8.1f} ml, error mean {error.mean():.2f} %, largest {error.max():.2f} %")
    print("\n".join(missing))


if __name__ == "__main__":
    raise SystemExit(main())
