"""From the settings of a 3D network to its weights on disk: what the kinds of `femurseg train` do alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from FemurSegLib.errors import CancelledError
from FemurSegLib.training.curves import draw_segmenter_curve
from FemurSegLib.training.distributed import launched
from FemurSegLib.training.material import Material, add_to_settings, note_material

if TYPE_CHECKING:
    from FemurSegLib.training.loop import Training


def carry_out(args: argparse.Namespace, material: Material, train: Callable[..., Path], settings: Training) -> int:
    """Notes what is learned from, trains or goes on with a line every few steps, draws the curve, exports the
    weights where that is asked for, and prints their place. Raises InputError, CancelledError."""
    notes = note_material(args.out, material)
    is_first = launched().is_first
    try:
        weights = train(settings, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        raise CancelledError("Stopped.", "The same command goes on from the last checkpoint.") from None
    finally:
        if is_first:
            add_to_settings(args.out, notes)
            draw_segmenter_curve(args.out)
    if not is_first:  # of several processes only one writes
        return 0
    if args.export is not None:
        from FemurSegLib.training.export import export_run

        [weights] = export_run(args.out, args.export or None)
    print(weights)
    return 0
