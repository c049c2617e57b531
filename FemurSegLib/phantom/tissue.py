"""What a patient is made of: Hounsfield units and thicknesses, sampled from a seed.

Values follow the real CTs of the project (fat -82 to -102 HU, muscle 38 to 56, cortex 1400 to 1550, measured as
modes) and are spread far beyond them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IMPLANTS = ("nail", "plate", "stem", "screws")


@dataclass(frozen=True)
class Tissue:
    """One patient's build, bone and belongings. HU unless the name or the comment says otherwise."""

    fat: float
    muscle: float
    muscle_fat_fraction: float  # 0 lean to 1: how wide the fat between muscles is
    cortex_shaft: float
    cortex_joint: float
    cortex_shaft_mm: float
    cortex_joint_mm: float
    trabecular: float
    trabecular_texture: float  # standard deviation
    marrow: float
    subcutaneous_mm: float  # fat under the skin of the thigh
    girth: float  # factor on the thickness of the limbs and the pelvis
    vessel: float
    bowel: float  # content of the bowel
    warp_mm: float  # standard deviation of the smooth bending of everything
    roughness_mm: float  # standard deviation of the bumps on a bone
    osteophyte_mm: float  # height of the spurs around the joints; 0: none
    calcified: float  # plaques in the walls of arteries; 0: none
    metal: str  # one of IMPLANTS, or "" for none
    metal_side: str  # "left" or "right"
    tumour_mm: float  # radius; 0: none
    table: bool
    table_hu: float  # the two skins of the board
    table_bend: float  # rise to the sides, mm per mm squared
    loaded: float  # more than `trabecular`, where the hip carries the weight


def sample_tissue(seed: int) -> Tissue:
    """Age and build at random: from a dense young skeleton to an osteoporotic one, thin to obese."""
    rng = np.random.default_rng([seed, 1])
    density = rng.beta(1.6, 1.6)  # 0 osteoporotic, 1 young and dense
    contrast = rng.random() < 0.3
    return Tissue(
        fat=rng.uniform(-120, -75),
        muscle=rng.uniform(30, 70),
        muscle_fat_fraction=rng.beta(1, 5),
        cortex_shaft=rng.uniform(1000, 1450) + 350 * density,
        cortex_joint=rng.uniform(250, 600) + 500 * density,
        cortex_shaft_mm=rng.uniform(2.0, 4.5) + 3.5 * density,
        cortex_joint_mm=rng.uniform(0.3, 0.9) + 0.8 * density,
        trabecular=rng.uniform(-60, 60) + 330 * density,
        trabecular_texture=rng.uniform(15, 110),
        marrow=rng.uniform(-100, 60),
        subcutaneous_mm=rng.gamma(2.2, 8.0) + 3,
        girth=rng.uniform(0.75, 1.3),
        vessel=rng.uniform(130, 450) if contrast else rng.uniform(25, 60),
        bowel=rng.uniform(100, 700) if rng.random() < 0.2 else rng.uniform(10, 60),
        warp_mm=rng.uniform(0, 4),
        roughness_mm=rng.uniform(0, 0.5),
        osteophyte_mm=rng.uniform(1, 4) if rng.random() < 0.35 else 0.0,
        calcified=rng.uniform(200, 1000) if rng.random() < 0.3 else 0.0,
        metal=str(rng.choice(["", *IMPLANTS], p=[0.84, 0.05, 0.04, 0.04, 0.03])),
        metal_side=str(rng.choice(["left", "right"])),
        tumour_mm=rng.uniform(20, 60) if rng.random() < 0.15 else 0.0,
        table=bool(rng.random() < 0.8),
        table_hu=rng.uniform(-500, 500),
        table_bend=rng.choice([0.0, rng.uniform(2e-4, 1.2e-3)]),
        loaded=rng.uniform(0, 380),
    )
