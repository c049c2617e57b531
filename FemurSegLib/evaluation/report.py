"""One page with all of an evaluation: tables, figures and a picture of every case. It opens without a network.

report = Report("report", runs=["runs/segmenter"])
report.add(case_score, ct, result, reference)      # draws at once; nothing of the volumes is kept
report.write(scores)                               # report/report.html
"""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
from collections.abc import Iterable
from datetime import datetime, timezone
from html import escape
from pathlib import Path

from FemurSegLib import __version__, models
from FemurSegLib.errors import FemurSegError, InputError, OutputError
from FemurSegLib.evaluation.calibration import Judged, figures, judged_of, read_judged
from FemurSegLib.evaluation.figures import draw_precision_recall, draw_reliability, draw_violins
from FemurSegLib.evaluation.metrics import AP_IOU
from FemurSegLib.evaluation.papers import XIE_MEANS
from FemurSegLib.evaluation.score import CaseScore
from FemurSegLib.evaluation.tables import (
    BOX_COLUMNS,
    HIGH_IS_BAD,
    MASK_COLUMNS,
    case_ap,
    of_case,
    summary,
)
from FemurSegLib.html_page import figure, page, table
from FemurSegLib.result import versions
from FemurSegLib.segmentation.confidence import GOOD_DICE
from FemurSegLib.sides import DISPLAY_NAMES
from FemurSegLib.volume import Volume
from FemurSegLib.whole_file import write_text

NAME = "report.html"
LARGEST_SCALE_MM = 5.0
"""Where the colours of the painted bones end at most; what lies farther is as dark."""
PAGE_MM, BONE_MM = 258.0, 100.0
"""Width of the page's text, and height of a painted bone on it."""

STYLE = """
body { max-width: 270mm; padding: 6mm; }
h3 { font-size: 10.5pt; margin: 5mm 0 1mm; }
th.sortable { cursor: pointer; }
th.sortable:hover { color: #000; text-decoration: underline; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4mm; align-items: start; }
.note { color: #4a5462; font-size: 8.5pt; }
.bones { display: flex; flex-wrap: wrap; gap: 4mm; margin-top: 3mm; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .5mm 4mm; font-size: 8.5pt; margin: 2mm 0; }
dt { font-weight: 600; color: #4a5462; }
dd { margin: 0; overflow-wrap: anywhere; }
"""
SCRIPT = """
const value = cell => { const n = parseFloat(cell.textContent); return isNaN(n) ? cell.textContent : n; };
document.querySelectorAll('thead th').forEach(head => {
  head.classList.add('sortable');
  head.title = 'Sort by this column';
  let up = false;
  head.addEventListener('click', () => {
    const body = head.closest('table').tBodies[0], n = head.cellIndex;
    up = !up;
    const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === 'number' ? -1 : 1;
    [...body.rows].sort((a, b) => (up ? 1 : -1) * order(value(a.cells[n]), value(b.cells[n])))
      .forEach(row => body.append(row));
  });
});
document.querySelectorAll('td:first-child').forEach(cell => {
  const there = document.getElementById('case-' + cell.textContent);
  if (!there) return;
  const link = document.createElement('a');
  link.href = '#' + there.id;
  link.textContent = cell.textContent;
  cell.replaceChildren(link);
});
"""


class Report:
    """Collects the pictures of cases as they are evaluated, and writes the page at the end.

    network, data_set: of the weights, whose calibration is shown. runs: folders of training runs, or of several,
    whose curves are shown.
    Raises InputError for one without a curve, OutputError where the folder cannot be made, or the page not be
    written; then an earlier page stays.
    """

    def __init__(
        self,
        folder: Path | str,
        network: str = "segresnet",
        runs: Iterable[Path | str] = (),
        data_set: str | None = None,
    ):
        self.folder, self._network, self._set = Path(folder), network, models.chosen_set(data_set)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The folder {folder} cannot be made.", "Choose another one.") from error
        self._runs = [run for each in runs for run in _runs_in(Path(each))]
        self._scratch = tempfile.TemporaryDirectory(prefix="femurseg-report-")
        self._pictures: dict[str, list[tuple[Path, str]]] = {}

    def add(self, score: CaseScore, ct: Volume, result: Volume | None, reference: Volume | None) -> None:
        """Draws the slices of a case and, where there is a reference, the distance painted on each bone."""
        from FemurSegLib.evaluation.pictures import draw_case

        drawn = self._pictures.setdefault(score.name, [])
        path = Path(self._scratch.name) / f"{len(self._pictures)}.png"
        draw_case(path, ct, result, reference, score.name)
        drawn.append((path, _ABOUT_SLICES))
        if result is None or reference is None:
            return
        for femur in score.femurs:
            if femur.present and femur.found:
                painted = path.with_name(f"{path.stem}_{femur.side}.png")
                if _paint(painted, result, reference, femur, score.name):
                    drawn.append((painted, f"{DISPLAY_NAMES[femur.side]}: {_ABOUT_BONES}"))

    def write(self, scores: list[CaseScore]) -> Path:
        """The page over all cases; its path."""
        scores = sorted(scores, key=_worst_first)
        body = [
            "<h1>FemurSeg: evaluation</h1>",
            _made(scores, self._set),
            "<h2>In short</h2>", _short(scores),
            "<h2>Boxes, a line a case</h2>", _boxes(scores),
            "<h2>Masks, a line a femur</h2>", _masks(scores),
            *self._figures(scores),
            *_curves(self._runs),
            "<h2>Cases, the worst first</h2>", *map(self._case, scores),
        ]  # fmt: skip
        text = page("FemurSeg: evaluation", "\n".join(body), STYLE, SCRIPT)
        write_text(self.folder / NAME, text)
        return self.folder / NAME

    def _figures(self, scores: list[CaseScore]) -> list[str]:
        scratch, out = Path(self._scratch.name), []
        if any(f.present for s in scores if s.labelled for f in s.femurs):
            out.append("<h2>Detectors</h2>")
            out.append(figure(draw_precision_recall(scratch / "curves.png", scores), _ABOUT_CURVES, width="78%"))
            out.append("<h2>How the figures spread</h2>")
            out.append(figure(draw_violins(scratch / "violins.png", scores), _ABOUT_VIOLINS))
        out.append("<h2>Confidence</h2>")
        out.append(f"<p>The confidence is the probability that a mask reaches Dice {GOOD_DICE}.</p>")
        fitted = read_judged(models.find("segmenter", self._network, data_set=self._set).name)
        here = [femur for femur in judged_of(scores) if not math.isnan(femur.confidence)]
        plots = (
            ("fit.png", "Femora of the calibration, each person left out in turn", fitted),
            ("here.png", "The femora of this page", here),
        )
        for name, title, judged in plots:
            if judged:
                out.append(
                    figure(draw_reliability(scratch / name, judged, title), _in_numbers(judged), width="78%")
                )
            else:
                out.append(f'<p class="note">{escape(title)}: there are none.</p>')
        return out

    def _case(self, score: CaseScore) -> str:
        told = [score.verdict, *(f"{DISPLAY_NAMES[f.side].lower()}: Dice {_text(f.dice)}, mean distance "
                f"{_text(f.mean_surface_mm, 2)} mm, confidence {_text(f.confidence, 2)}"
                for f in score.femurs if f.found and f.present)]  # fmt: skip
        told += [score.message] if score.message else []
        told += [", ".join(code.replace("_", " ") for code in dict.fromkeys(score.findings))] * bool(score.findings)
        drawn = self._pictures.get(score.name, [])
        slices = "".join(figure(_fewer_colors(path), words) for path, words in drawn[:1])
        bones = "".join(figure(path, words, width=_width(path)) for path, words in drawn[1:])
        return (f'<h3 id="case-{escape(score.name)}">{escape(score.name)}</h3>'
                f"<p>{escape('; '.join(told))}</p>{slices}<div class='bones'>{bones}</div>")  # fmt: skip


_ABOUT_SLICES = (
    "A coronal, a sagittal (front at the left) and three axial slices; the patient's right is at the left edge. "
    "Outlined: result (right femur red, left one blue), reference (green), what the reference leaves open (yellow)."
)
_ABOUT_BONES = "distance to the reference's surface; grey: left open by the reference."
_ABOUT_CURVES = "Precision and recall of the boxes over all cases, as the score that a box must reach falls."
_ABOUT_VIOLINS = "Overlaps are better the higher, distances the lower."


def _in_numbers(judged: list[Judged]) -> str:
    f = figures(judged)
    told = f"{f['femora']} femora of {f['people']} people, {f['good']} of them good. Brier score {f['brier']:.3f}"
    told += f" (always saying the share of good ones: {f['brier_of_the_share']:.3f}); "
    return told + f"area under the ROC curve {f['roc_area']:.2f}."


def _paint(path: Path, result: Volume, reference: Volume, femur, name: str) -> bool:
    from FemurSegLib.evaluation.painted_bone import nice_limit_mm, painted_distance
    from FemurSegLib.evaluation.surface_error import surface_error

    found = surface_error(result, reference, femur.side)
    if found is None:
        return False
    mesh, distances = found
    limit = min(nice_limit_mm(distances), LARGEST_SCALE_MM)
    painted_distance(mesh, distances, path, f"{DISPLAY_NAMES[femur.side]} of {name}", limit_mm=limit)
    return True


def _width(path: Path) -> str:
    """Of a painted bone on the page: as much as makes it `BONE_MM` high, all at most."""
    from PIL import Image

    with Image.open(path) as picture:
        return f"{min(100.0, 100 * BONE_MM * picture.width / picture.height / PAGE_MM):.1f}%"


def _fewer_colors(path: Path):
    """A picture of slices in greys and the colours of its outlines: a third of the size, and hardly another."""
    from PIL import Image

    from FemurSegLib.evaluation.pictures import REFERENCE_BGR, RESULT_BGR, UNDECIDED_BGR

    colors = [c[::-1] for c in (REFERENCE_BGR, UNDECIDED_BGR, *RESULT_BGR.values())]
    greys = [(round(n * 255 / (255 - len(colors))),) * 3 for n in range(256 - len(colors))]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for color in (*greys, *colors) for channel in color])
    with Image.open(path) as picture:
        return picture.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)


def _worst_first(score: CaseScore):
    dice = [f.dice for f in score.femurs if f.present or (f.found and score.labelled)]
    return (min((d for d in dice if not math.isnan(d)), default=2.0), score.name)


def _made(scores: list[CaseScore], data_set: str) -> str:
    """The command, the time, versions and the weights of a set."""
    weights = []
    try:
        used = [m for m in models.table().values() if m.data_set == data_set]
        weights = [f"{m.file} (SHA-256 {m.sha256[:16]}…)" for m in used]
    except FemurSegError as error:
        weights = [str(error)]
    rows = [
        ("Command", shlex.join(["femurseg", *sys.argv[1:]])),
        ("Made", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("Versions", ", ".join(f"{k} {v}" for k, v in {"FemurSeg": __version__, **versions()}.items())),
        ("Weights", ", ".join(weights)),
        ("Cases", f"{len(scores)}, {sum(s.labelled for s in scores)} of them with a reference"),
    ]
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return f"<dl>{lines}</dl>"


def _short(scores: list[CaseScore]) -> str:
    s = summary(scores)
    rows = []
    for title, column in {**BOX_COLUMNS, **MASK_COLUMNS}.items():
        digits = 2 if column in HIGH_IS_BAD else 4
        v = s[column]
        low, high = (_text(end, digits) for end in v["ci95"])
        between = f"{low} to {high}" if math.isfinite(v["mean"]) else None
        paper = _text(XIE_MEANS.get(column))
        rows.append((title, _text(v["mean"], digits), between, _text(v["worst"], digits), paper))
    rows.insert(len(BOX_COLUMNS), ("mAP", _text(s["map"], 4), None, None, XIE_MEANS["map"]))
    told = (f"Femora {s['femora']}, missed {s['missed']}, found where there is none {s['extra']}, "
            f"sides exchanged {s['swapped']}, errors {s['errors']}.")  # fmt: skip
    head = ("", "Mean", "95 % interval", "Worst case", "Xie 2025 (other data)")
    return f"<p>{told}</p>" + table(rows, head)


def _boxes(scores: list[CaseScore]) -> str:
    rows = [(s.name, *(_text(of_case(s, c)) for c in BOX_COLUMNS.values()), _text(case_ap(s)), s.verdict)
            for s in scores]  # fmt: skip
    return table(rows, ("Case", *BOX_COLUMNS, f"AP (IoU ≥ {AP_IOU})", "Outcome"))


def _masks(scores: list[CaseScore]) -> str:
    rows = []
    for s in scores:
        for f in s.femurs:
            if f.present or f.found:
                values = [_text(getattr(f, c), 2 if c in HIGH_IS_BAD else 4) for c in MASK_COLUMNS.values()]
                rows.append((s.name, f.side.split("_")[0], *values, f.reference_ml if s.labelled else None,
                             f.result_ml, _text(f.confidence, 2), _text(s.seconds, 1)))  # fmt: skip
    head = ("Case", "Femur", *MASK_COLUMNS, "Reference ml", "Result ml", "Confidence", "Seconds, case")
    return table(rows, head)


def _runs_in(folder: Path) -> list[Path]:
    """The run, or the runs, that a folder holds. Raises InputError for none."""
    here = [folder, *sorted(p for p in folder.glob("*") if p.is_dir())]
    found = [p for p in here if (p / "curve.jsonl").is_file() or (p / "results.csv").is_file()]
    if not found:
        raise InputError(f"{folder} holds no training curve.", "Give the folder of a training run.")
    return found


def _curves(runs: list[Path]) -> list[str]:
    from FemurSegLib.training.curves import draw_detector_curve, draw_segmenter_curve

    drawn = [(run, draw_segmenter_curve(run) or draw_detector_curve(run)) for run in runs]
    out = [figure(path, f"Training run {run}") for run, path in drawn if path]
    return ["<h2>Training</h2>", f'<div class="pair">{"".join(out)}</div>'] if out else []


def _text(value, digits: int = 4) -> str | None:
    if value is None or math.isnan(value):
        return None
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"
