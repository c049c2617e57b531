"""`femurseg report`: one page about a result, to look at, print and file."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "report",
        help="one printable page about a result",
        description="Write a result folder as one HTML page that opens without a network and prints on two A4 "
        "pages: warnings, radiographs with their boxes, slices with contours, a model that turns, measurements.",
    )
    parser.add_argument("result", metavar="RESULT", type=Path, help="folder that `femurseg segment` wrote")
    parser.add_argument(
        "--ct",
        metavar="CT",
        help="the CT of the result, for the slices; default: where result.json says it was",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="default: report.html in the result folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints its path. Raises InputError or OutputError; then nothing is left behind."""
    from FemurSegLib.errors import InputError
    from FemurSegLib.report.sheet import sheet
    from FemurSegLib.result import REPORT, read_result
    from FemurSegLib.whole_file import write_text

    result = read_result(args.result)
    out = args.out or args.result / REPORT
    ct, why = find_ct(result, args.ct)
    try:
        text = sheet(result, ct, why)
    except OSError as error:
        name = Path(error.filename).name if error.filename else "a file"
        raise InputError(
            f"The result is not whole: {name} cannot be read.", "Run the segmentation again."
        ) from error
    print(write_text(out, text))
    return 0


def find_ct(result, given: str | None):
    """(the CT of a result, "") or (None, why there is none). A CT that was given must be the right one: else
    InputError; one that is only remembered may be gone or have changed."""
    from FemurSegLib.errors import FemurSegError, InputError
    from FemurSegLib.result import volume_sha256
    from FemurSegLib.volume import read_ct, read_labelmap

    source = result.document["input"]
    path = given or source["path"]
    if given is None and not (path and Path(path).exists()):
        return None, "There are no slices on this page: the CT is no longer where it was. Give it with --ct."
    try:
        ct = read_ct(path)
        if not ct.grid.matches(read_labelmap(result.file("labelmap")).grid, tolerance_mm=0.1):
            raise InputError(
                f"{Path(path).name} does not lie on the grid of the result.", "Give the CT it was made from."
            )
        if source.get("sha256") and volume_sha256(ct.voxels) != source["sha256"]:
            raise InputError(f"{Path(path).name} is not the CT that the result was made from.", "Give that one.")
    except FemurSegError as error:
        if given is not None:
            raise
        return None, f"There are no slices on this page: {error} Give the CT with --ct."
    return ct, ""
