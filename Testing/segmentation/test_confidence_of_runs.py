"""What the confidence says of the sample's right knee with the weights of the repository, and of worse inputs.

Runs on a piece of 120 mm: a truncated femur, metal, a leg without bone and air must score visibly lower.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from FemurSegLib import models  # noqa: E402
from FemurSegLib.errors import ModelError, NoFemurError  # noqa: E402
from FemurSegLib.localization.region import drawn_regions  # noqa: E402
from FemurSegLib.pipeline import segment_femurs  # noqa: E402
from FemurSegLib.sides import LABELS, RIGHT  # noqa: E402
from FemurSegLib.volume import Volume, read_ct, read_labelmap  # noqa: E402

SAMPLE = Path(__file__).resolve().parents[2] / "Resources" / "SampleData"
KNEE_MM, STUB_MM = 120.0, 30.0
LOWER_BY = 0.15


def _weights() -> bool:
    try:
        return {model.kind for model in models.table().values()} >= set(models.KINDS)
    except ModelError:
        return False


pytestmark = pytest.mark.skipif(not _weights(), reason="Resources/Models lacks weights")


def segmented(ct: Volume, regions=None):
    return segment_femurs(ct, device="cpu", regions=regions, anatomy=False)


@pytest.fixture(scope="module")
def knee():
    """The CT and the labels of the right knee: 120 mm of femur, and what is below it."""
    ct = read_ct(SAMPLE / "sample_ct.nii.gz").oriented()
    labels = read_labelmap(SAMPLE / "sample_femurs.nii.gz").oriented()
    bone = np.argwhere(labels.voxels == LABELS[RIGHT])
    low, high = bone.min(0), bone.max(0)
    spacing = ct.grid.spacing_mm[::-1]
    first = (max(0, low[0] - int(40 / spacing[0])), 0, 0)
    last = (
        low[0] + int(KNEE_MM / spacing[0]),
        ct.grid.shape[1],
        min(ct.grid.shape[2], high[2] + int(60 / spacing[2])),
    )
    return tuple(v.crop(tuple(map(int, first)), tuple(map(int, last))) for v in (ct, labels))


@pytest.fixture(scope="module")
def plain(knee):
    return segmented(knee[0])


def test_a_knee_as_it_is_scores_high_and_without_a_warning(plain):
    assert plain.confidence[RIGHT] > 0.6
    assert "low_confidence" not in {f.code for f in plain.findings if f.side == RIGHT}


def test_a_truncated_femur_scores_lower(knee, plain):
    ct, labels = knee
    slices = np.flatnonzero((labels.voxels == LABELS[RIGHT]).any(axis=(1, 2)))
    keep = int(slices[0] + STUB_MM / ct.grid.spacing_mm[2])
    short = segmented(ct.crop((0, 0, 0), (keep, *ct.grid.shape[1:])))
    assert short.confidence[RIGHT] < plain.confidence[RIGHT] - LOWER_BY


def test_metal_scores_lower_and_is_told(knee, plain):
    """A nail of 3000 HU and 12 mm along the middle of the shaft."""
    ct, labels = knee
    hu = ct.voxels.copy()
    j, i = np.meshgrid(*(np.arange(n) for n in hu.shape[1:]), indexing="ij")
    for section, mask in zip(hu, labels.voxels == LABELS[RIGHT], strict=True):
        if mask.any():
            middle = np.argwhere(mask).mean(0)
            away = np.hypot(
                *((a - m) * s for a, m, s in zip((j, i), middle, ct.grid.spacing_mm[1::-1], strict=True))
            )
            section[away < 6] = 3000
    nailed = segmented(Volume(hu, ct.grid))
    assert nailed.confidence[RIGHT] < plain.confidence[RIGHT] - LOWER_BY
    told = {(f.code, f.side) for f in nailed.findings}
    assert ("metal", RIGHT) in told
    assert "metal" not in {f.code for f in plain.findings}
    assert ("low_confidence", RIGHT) in told or nailed.confidence[RIGHT] >= 0.5


def test_in_air_no_femur_is_found(knee):
    with pytest.raises(NoFemurError):
        segmented(Volume(np.full_like(knee[0].voxels, -1000), knee[0].grid))


def test_a_box_drawn_where_no_bone_is_gives_no_femur_or_little_confidence(knee, plain):
    """The same leg with nothing in it that is denser than muscle."""
    ct, labels = knee
    soft = Volume(np.minimum(ct.voxels, 60).astype(np.int16), ct.grid)
    bone = np.argwhere(labels.voxels == LABELS[RIGHT])[:, ::-1]
    low, high = ct.grid.lps(bone.min(0) - 0.5), ct.grid.lps(bone.max(0) + 0.5)
    box = {"center_lps_mm": (low + high) / 2, "size_mm": high - low, "axes_lps": np.eye(3)}
    try:
        found = segmented(soft, drawn_regions({RIGHT: box}, soft.grid))
    except NoFemurError:
        return
    assert found.confidence[RIGHT] < min(0.5, plain.confidence[RIGHT] - LOWER_BY)
