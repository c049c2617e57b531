"""Dice with and without the removal of spurs (segmentation/cleanup.py), a line a femur.

python Testing/benchmarks/spurs.py [CASES ...]      folders with NAME_CT and NAME_femurs files, or single CT files
"""

from __future__ import annotations

import sys
from pathlib import Path

from FemurSegLib.pipeline import segment_femurs
from FemurSegLib.segmentation import cleanup
from FemurSegLib.sides import LABELS, UNDECIDED_LABEL
from FemurSegLib.training.cases import find_cases, read_case

THIGHS = Path(__file__).parents[3] / "shared" / "data" / "ct" / "sts_thighs" / "labelled"
HELD_OUT = ("STS_046", "STS_017", "STS_029")


def main(places) -> None:
    if not places and not THIGHS.is_dir():
        print(f"There is no real CT at {THIGHS}; name folders of labelled cases.")
        return
    cases = [case for case in find_cases(*(places or [THIGHS])) if places or case.name in HELD_OUT]
    remove = cleanup.without_spurs
    print(f"{'':24s}{'side':14s}{'without':>10s}{'with':>10s}{'ml taken':>10s}{'of it bone':>12s}")
    for case in cases:
        ct, reference = read_case(case)
        results = []
        for function in (lambda mask: mask, remove):
            cleanup.without_spurs = function
            results.append(segment_femurs(ct, anatomy=False).labels)
        cleanup.without_spurs = remove
        known = reference.voxels != UNDECIDED_LABEL
        ml = float(ct.grid.spacing_mm[0] * ct.grid.spacing_mm[1] * ct.grid.spacing_mm[2]) / 1000
        for side, label in LABELS.items():
            before, after = ((labels == label) & known for labels in results)
            truth = reference.voxels == label
            if before.any() and truth.any():
                dice = [2 * (m & truth).sum() / (m.sum() + truth.sum()) for m in (before, after)]
                taken = before & ~after
                print(
                    f"{case.name:24s}{side:14s}{dice[0]:10.4f}{dice[1]:10.4f}{taken.sum() * ml:10.2f}"
                    f"{(taken & truth).sum() * ml:12.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
