"""Makes the sample CT of the repository: both femora of a person sampled from the shape model LLP26 alone.

    python -m FemurSegLib.phantom.sample SHAPES Resources/SampleData

SHAPES is the folder that holds llp26_left_limb.npz (MPL-2.0). Writes sample_ct.nii.gz and sample_femurs.nii.gz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from FemurSegLib.phantom.anatomy import Variation, sample_anatomy
from FemurSegLib.phantom.case import grid_for, make_phantom
from FemurSegLib.phantom.scanner import Scanner
from FemurSegLib.phantom.shapes import load_person
from FemurSegLib.volume import Volume, write_volume

PERSON, SEED = "llp26-1000", 8
SPACING_MM = (1.8, 1.8, 2.5)
STEP_HU = 4
"""Values are rounded to this, and air is one value: the file stays small."""
LYING_STRAIGHT = Variation(
    hip_flexion_deg=(0, 6),
    hip_abduction_deg=(2, 6),
    hip_rotation_deg=(-5, 15),
    knee_flexion_deg=(2, 10),
    body_turn_deg=(2, 1, 1),
)
QUIET = Scanner(
    blur_mm=0.6,
    sharpen=0.0,
    slice_mm=SPACING_MM[2],
    spacing_mm=SPACING_MM[2],
    noise_hu=7.0,
    grain_mm=1.0,
    streak_hu=0.0,
    gain=1.0,
    offset_hu=0.0,
    cupping_hu=4.0,
)


def main(shapes: Path, out: Path) -> None:
    anatomy = sample_anatomy([load_person(shapes, PERSON)], None, SEED, LYING_STRAIGHT)
    phantom = make_phantom(anatomy, grid_for(anatomy, "femora", SPACING_MM, SEED), scanner=QUIET)
    hu = phantom.ct.voxels
    hu = np.where(hu < -900, -1000, np.round(hu / STEP_HU) * STEP_HU).astype(np.int16)
    out.mkdir(parents=True, exist_ok=True)
    write_volume(out / "sample_ct.nii.gz", Volume(hu, phantom.ct.grid))
    write_volume(out / "sample_femurs.nii.gz", phantom.labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
