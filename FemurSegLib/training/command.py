"""`femurseg train`: from phantoms and labelled CTs to weights. Each kind has a page of its own."""

from __future__ import annotations

from FemurSegLib.training.compare_sets_command import add_compare_sets
from FemurSegLib.training.compartments_command import add_compartments
from FemurSegLib.training.detector_command import add_detector
from FemurSegLib.training.export_command import add_export
from FemurSegLib.training.pseudo_labels_command import add_pseudo_labels
from FemurSegLib.training.segmenter_command import add_segmenter

KINDS = (add_segmenter, add_detector, add_pseudo_labels, add_compartments, add_compare_sets, add_export)
"""What enters each kind, in the order of --help."""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train the networks",
        description="Train the networks on phantoms, on labelled CTs, or on both. An interrupted training "
        "goes on when the same command is given again.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="NETWORK", required=True)
    for add in KINDS:
        add(kinds)
