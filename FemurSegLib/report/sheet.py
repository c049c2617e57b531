"""The report of one result as HTML: two A4 pages, everything in one file.

html = sheet(read_result("out"), ct, "")
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from FemurSegLib.anatomy.measurements import NAMES, SHORTLY
from FemurSegLib.html_page import css_color, inline_png, page
from FemurSegLib.result import Result
from FemurSegLib.sides import COLORS, DISPLAY_NAMES, SIDES
from FemurSegLib.volume import Volume

from .model import LINE_COLORS, LINE_NAMES, scene
from .slices import Plane, draw
from .thickness import STYLE as THICKNESS_STYLE
from .thickness import thickness

UNITS = {"deg": "°", "mm": " mm", "mm2": " mm²"}
METHODS_COMPARED = ("condylar_axes_deg",)
"""What says how well two methods agree: its difference between the sides means nothing."""
DIGITS = {"mm2": 0, "bow_radius_mm": 0}
VIEWS = {
    "front": "Front",
    "back": "Back",
    "right": "Right",
    "left": "Left",
    "below": "Below",
}
"""Where the model is seen from."""
CUT_OUTS = (
    ("hip", "coronal", "head_center", 120.0, "Hip, coronal through the head's centre"),
    ("hip", "axial", "head_center", 120.0, "Hip, axial through the head's centre"),
    ("knee", "coronal", "notch", 110.0, "Knee, coronal through the notch"),
    ("knee", "axial", "epicondyles", 110.0, "Knee, axial between the epicondyles"),
)
"""Slices of each side: joint, view, landmark they run through, width in mm, caption."""
NO_PROOF = "The program noticed nothing. A mask can still be wrong: look at the contours in the slices."
ABSENT = ("femur_missing", "side_doubtful")
"""Warnings that say why a femur is not there."""
JOINTS = {"hip": "head_center", "knee": "notch"}
"""A joint is there where this landmark is."""
NOTE = (
    "Not a medical device. For research. Made by software without a person's judgement: check the contours in the "
    "slices and the axes before anything is planned with these figures."
)

STYLE = """
header { display: flex; justify-content: space-between; align-items: flex-end; gap: 6mm; margin-bottom: 2.5mm;
  border-bottom: .6mm solid #1c2128; padding-bottom: 1.5mm; }
header .case { text-align: right; font-size: 8.5pt; color: #4a5462; overflow-wrap: anywhere; min-width: 52mm; }
.not-a-device { font-size: 8pt; color: #7a1f1f; margin: 0; }
.first { display: flex; flex-direction: column; height: 272mm; } /* the pictures take what the rest leaves of A4 */
.first > * { flex: none; }
.warnings { border: .3mm solid #c98a1b; border-left: 1.6mm solid #c98a1b; background: #fff8e8; padding: 1.2mm 3mm;
  margin-bottom: 2.5mm; }
.warnings.none { border-color: #5b8c5a; background: #f3f9f2; }
.warnings h2 { border: 0; margin: 0; padding: 0; font-size: 10pt; }
.warnings ul { margin: .5mm 0 0; padding-left: 5mm; font-size: 9pt; line-height: 1.3; }
.first > .pictures { display: flex; gap: 4mm; flex: 1 1 0; min-height: 70mm; }
.films { width: 46mm; display: flex; flex-direction: column; gap: 1.5mm; }
.films figure { display: flex; flex-direction: column; min-height: 0; }
.films svg { flex: 1 1 0; min-height: 0; width: 100%; }
.films svg, .slices svg { display: block; background: #000; }
.slices svg { width: 100%; height: auto; }
.viewer { flex: 1; position: relative; border: .2mm solid #c6ccd4; background: #fff; }
.viewer canvas { display: none; position: absolute; left: 0; top: 7mm; width: 100%; height: calc(100% - 19mm);
  cursor: grab; touch-action: none; }
.viewer .still { position: absolute; left: 2mm; top: 2mm; width: calc(100% - 4mm); height: calc(100% - 16mm);
  object-fit: contain; }
.viewer.live canvas { display: block; }
.viewer.live .still, .viewer .buttons { display: none; }
.viewer.live .buttons { display: flex; position: absolute; right: 1.5mm; top: 1.5mm; gap: 1mm; }
.viewer .key { position: absolute; left: 2mm; right: 2mm; bottom: .8mm; font-size: 7pt; line-height: 1.25;
  color: #4a5462; }
button { font-family: inherit; font-size: 7.5pt; padding: .6mm 1.6mm; border: .2mm solid #8b95a3; background: #fff;
  border-radius: .8mm; cursor: pointer; }
.measures { line-height: 1.2; }
.measures td { padding-top: .45mm; padding-bottom: .45mm; }
.measures small { color: #6b7583; font-size: 7pt; }
.spread { color: #6b7583; }
.reasons { font-size: 7.5pt; line-height: 1.3; color: #4a5462; margin: 1mm 0 0; }
.slices { display: grid; grid-template-columns: repeat(4, 1fr); gap: 2mm; }
.slices figcaption { font-size: 7pt; line-height: 1.2; }
.slices .missing { border: .2mm dashed #8b95a3; color: #4a5462; font-size: 8pt; padding: 3mm; aspect-ratio: 1;
  display: flex; align-items: center; text-align: center; }
.swatch { display: inline-block; width: 2.6mm; height: 2.6mm; border-radius: .5mm; vertical-align: -.3mm;
  margin-right: .8mm; }
.stroke { display: inline-block; width: 4mm; border-top: .5mm solid; vertical-align: .8mm; margin: 0 .6mm 0 1.6mm; }
.provenance td:first-child { white-space: nowrap; color: #4a5462; padding-right: 4mm; }
.provenance td { font-size: 7.5pt; overflow-wrap: anywhere; padding-top: .3mm; padding-bottom: .3mm; }
.regions tr:first-child th { border-bottom: 0; padding-bottom: 0; }
.sign { display: flex; gap: 8mm; margin-top: 7mm; font-size: 8.5pt; color: #4a5462; }
.sign span { flex: 1; border-top: .3mm solid #8b95a3; padding-top: .8mm; }
.second { break-before: page; }
@media print { body { padding: 0 .3mm; } .viewer.live .buttons, .on-screen { display: none; } }
@media screen { body { padding: 8mm 4mm; max-width: 194mm; } }
"""


def sheet(result: Result, ct: Volume | None = None, without_ct: str = "") -> str:
    """The whole page. ct: the CT of the result, on its grid; without one `without_ct` says why there are no slices.

    Raises InputError where a file of the result cannot be read.
    """
    document = result.document
    anatomy = {side: document["femurs"][side].get("anatomy") for side in SIDES}
    case = Path(document["input"]["path"]).name or result.folder.name
    body = [
        '<section class="first">',
        "<header><div><h1>Report on the femora</h1>"
        f'<p class="not-a-device">{NOTE}</p></div><div class="case"><b>{escape(case)}</b><br>'
        f"{escape(document['created'][:16].replace('T', ' '))} UTC<br>"
        f"FemurSeg {escape(document['femurseg_version'])}</div></header>",
        _warnings(document, without_ct),
        f'<div class="pictures"><div class="films">{_films(result, anatomy)}</div>{_viewer(result)}'
        f"{thickness(result, anatomy)}</div>",
        _measurements(document, anatomy),
        "</section>",
        '<h2 class="second">Slices through hip and knee</h2>',
        _slices(result, anatomy, ct, without_ct),
        _volumes(anatomy),
        _provenance(document),
    ]
    surfaces = {side: path for side in SIDES if (path := result.file(f"{side}_stl"))}
    told = scene(surfaces, anatomy).replace("<", "\\u003c")
    body.append(f'<script type="application/json" id="scene">{told}</script>' if told else "")
    viewer = Path(__file__).with_name("viewer.js").read_text(encoding="utf-8")
    return page(f"Femora: {case}", "\n".join(body), STYLE + THICKNESS_STYLE, viewer if told else "")


def _warnings(document: dict, without_ct: str) -> str:
    told = [warning["message"] for warning in document["warnings"]]
    absent = [side for side in SIDES if not document["femurs"][side]["found"]]
    explained = {warning["side"] for warning in document["warnings"] if warning["code"] in ABSENT}
    told += [f"The {DISPLAY_NAMES[s].lower()} is not in this result." for s in absent if s not in explained]
    told += [without_ct] if without_ct else []
    if not told:
        return f'<div class="warnings none"><h2>No warnings</h2>{NO_PROOF}</div>'
    items = "".join(f"<li>{escape(text)}</li>" for text in dict.fromkeys(told))
    return f'<div class="warnings"><h2>Look at this first</h2><ul>{items}</ul></div>'


def _films(result: Result, anatomy: dict) -> str:
    """Both radiographs with their boxes, the axes drawn on the coronal one."""
    out = []
    for view, caption in (("coronal", "Coronal radiograph with boxes and axes"), ("axial", "Axial radiograph")):
        entry = result.document["radiographs"][view]
        width, height = entry["size"]
        drawn = "".join(_line(entry, line, name) for name, line in _lines(anatomy)) if view == "coronal" else ""
        out.append(
            f'<figure style="flex:{height / width + 0.12:.2f} 1 0">'
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{caption}">'
            f'<image width="{width}" height="{height}" href="{inline_png(result.file(view))}"/>{drawn}'
            f"{_sides_of(width, height)}</svg>"
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return "".join(out)


def _sides_of(width: int, height: int) -> str:
    """The patient's right and left in the lower corners of a picture."""
    size = max(width, height) / 20
    text = f'y="{height - 0.5 * size:.0f}" font-size="{size:.0f}" font-family="Arial, sans-serif" fill="#fff"'
    return (
        f'<text x="{0.3 * size:.0f}" {text}>R</text>'
        f'<text x="{width - 0.3 * size:.0f}" text-anchor="end" {text}>L</text>'
    )


def _lines(anatomy: dict):
    shown = ("mechanical_axis", "anatomical_axis", "neck_axis", "distal_condylar_line")
    for record in filter(None, anatomy.values()):
        yield from ((name, record["lines"][name]["ends_lps_mm"]) for name in shown if name in record["lines"])


def _line(entry: dict, ends, name: str) -> str:
    axes = np.array([entry["column_direction_lps"], entry["row_direction_lps"]])
    at = (np.array(ends) - entry["origin_lps_mm"]) @ axes.T / entry["pixel_mm"] + 0.5
    (x1, y1), (x2, y2) = at.round(1)
    color = css_color(0.45 + 0.55 * c for c in LINE_COLORS[name])  # lighter, on black
    width = entry["size"][0] / 220
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" stroke-width="{width:.1f}"/>'


def _viewer(result: Result) -> str:
    buttons = "".join(f'<button type="button" data-view="{key}">{text}</button>' for key, text in VIEWS.items())
    key = "".join(
        f'<span class="stroke" style="border-color:{css_color(LINE_COLORS[name])}"></span>{text}'
        for name, text in LINE_NAMES.items()
    )
    bones = " ".join(
        f'<span class="swatch" style="background:{css_color(COLORS[side])}"></span>{DISPLAY_NAMES[side].lower()}'
        for side in SIDES
    )
    return (
        '<div class="viewer"><canvas tabindex="0" aria-label="Model of the femora; drag to turn"></canvas>'
        f'<img class="still" src="{inline_png(result.file("overview"))}" alt="The femora from several sides">'
        f'<div class="buttons">{buttons}<button type="button">Axes</button></div>'
        f'<div class="key">{bones} {key} <span class="on-screen"><br>Drag to turn, wheel to enlarge.</span></div>'
        "</div>"
    )


def _measurements(document: dict, anatomy: dict) -> str:
    reasons: dict[str, str] = {}
    rows = []
    for key, name in NAMES.items():
        cells = {side: _measured(anatomy[side], key) for side in SIDES}
        told = [_value(cells[side], key, reasons) for side in SIDES]
        both = [cells[side] and cells[side]["value"] for side in SIDES]
        difference = ""
        if None not in both and key not in METHODS_COMPARED:
            unit = cells[SIDES[0]]["unit"]
            difference = f"{both[0] - both[1]:+.{_digits(key, unit)}f}{UNITS[unit]}".replace("-", "−")
        label = f"{escape(name)} <small>{escape(SHORTLY[key])}</small>"
        rows.append(f"<tr><td>{label}</td>{_cells(*told, difference)}</tr>")
    whole = {side: document["femurs"][side] for side in SIDES}
    confidence = [
        "–" if whole[side]["confidence"] is None else f"{whole[side]['confidence']:.0%}" for side in SIDES
    ]
    rows.append(f"<tr><td>Confidence in the segmentation</td>{_cells(*confidence, '')}</tr>")
    notes = _explained(reasons)
    unread = [DISPLAY_NAMES[s].lower() for s in SIDES if whole[s]["found"] and not anatomy[s]]
    if unread:
        notes += f"Of the {' and the '.join(unread)} no measurements are in the result."
    head = (
        "<tr><th></th><th class=number>Right</th><th class=number>Left</th><th class=number>Right − left</th></tr>"
    )
    spread = any("sd" in m for r in anatomy.values() if r for m in r["measurements"].values())
    copies = max((r.get("perturbations") or 0 for r in anatomy.values() if r), default=0)
    copies = f"{copies} turned, mirrored or roughened copies" if copies else "turned, mirrored and roughened copies"
    extra = f" ± is the standard deviation about the value, over {copies} of the mask." if spread else ""
    return (
        f'<h2>Measurements</h2><table class="measures"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
        f'<p class="reasons">{notes}{extra}</p>'
    )


def _measured(record: dict | None, key: str) -> dict | None:
    return record["measurements"].get(key) if record else None


def _value(m: dict | None, key: str, reasons: dict[str, str]) -> str:
    """A value with its unit and spread; without one a mark of the reason, which is noted."""
    if m is None:
        return "–"
    if m["value"] is None:
        return _absent(m["reason"], reasons)
    digits = _digits(key, m["unit"])
    unit = UNITS[m["unit"]]
    spread = f" <span class=spread>± {m['sd']:.{digits}f}{unit}</span>" if "sd" in m else unit
    return f"{m['value']:.{digits}f}".replace("-", "−") + spread


def _absent(why: str, reasons: dict[str, str]) -> str:
    """A dash with the mark of a reason, which is noted in `reasons` (reason: mark)."""
    mark = reasons.setdefault(why, "abcdefghijklmnopqrstuvwxyz"[len(reasons) % 26])
    return f"– <sup>{mark}</sup>"


def _explained(reasons: dict[str, str]) -> str:
    """What goes below a table: its marks and what they stand for."""
    return "".join(f"<b>{mark}</b> {escape(why)}. " for why, mark in reasons.items())


def _digits(key: str, unit: str) -> int:
    return DIGITS.get(key, DIGITS.get(unit, 1))


def _slices(result: Result, anatomy: dict, ct: Volume | None, without_ct: str) -> str:
    if ct is None:
        return f"<p>{escape(without_ct or 'There are no slices: the CT was not given.')}</p>"
    from FemurSegLib.volume import read_labelmap

    labels = read_labelmap(result.file("labelmap"))
    out = []
    for side in SIDES:
        record = anatomy[side]
        if not result.document["femurs"][side]["found"]:
            continue
        for joint, view, through, size, caption in CUT_OUTS:
            title = f"{DISPLAY_NAMES[side].split()[0]} {caption[0].lower()}{caption[1:]}"
            if not record or JOINTS[joint] not in record["landmarks"]:
                why = record["missing"].get(joint, "not found") if record else "the bone could not be read"
                out.append(f'<div class="missing">{escape(title)}: {escape(why)}</div>')
                continue
            plane, marks = _plane(record, joint, view, through, size)
            out.append(
                f"<figure>{draw(plane, ct, labels, marks, title)}<figcaption>{escape(title)}</figcaption></figure>"
            )
    return f'<div class="slices">{"".join(out)}</div>'


def _plane(record: dict, joint: str, view: str, through: str, size: float) -> tuple[Plane, str]:
    """The plane through a landmark, in the middle of the joint, and what is marked on it."""
    at = {key: np.array(point["position_lps_mm"]) for key, point in record["landmarks"].items()}
    if joint == "knee":
        at["epicondyles"] = center = 0.5 * (at["epicondyle_medial"] + at["epicondyle_lateral"])
    else:
        center = 0.65 * at["head_center"] + 0.35 * at.get("greater_trochanter", at["neck_center"])
    normal = np.cross(*Plane(center, view, size).axes)
    center = center + ((at[through] - center) @ normal) * normal
    plane = Plane(center, view, size)
    if joint == "knee":
        return plane, ""
    (x, y), diameter = plane.place(at["head_center"]), record["measurements"]["head_diameter_mm"]["value"]
    marks = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{diameter / 2:.1f}" fill="none" stroke="#fff" stroke-width=".4" '
        f'stroke-dasharray="1.5 1.5"/><path d="M{x - 2:.1f} {y:.1f}h4m-2 -2v4" stroke="#fff" stroke-width=".4"/>'
    )
    return plane, marks


def _volumes(anatomy: dict) -> str:
    """Regions and compartments: volume, cortical part, mean HU, density where calibrated; both sides."""
    records = {side: record for side, record in anatomy.items() if record}
    if not records:
        return ""
    parts = {s: r["compartments"].get("compartments", {}) for s, r in records.items()}
    cortical = any(parts.values())
    dense = any(e["density_mg_cm3"] is not None for r in records.values() for e in r["regions"].values())
    kinds = [
        ("volume_ml", "Volume", 1, " ml"),
        ("cortical_ml", "Of it cortical", 1, " ml"),
        ("cortical_thickness_mm", "Thickness of cortex", 1, " mm"),
        ("mean_hu", "Mean of the CT", 0, " HU"),
    ]
    thick = any(p.get("cortical_thickness_mm") is not None for r in records.values() for p in r["regions"].values())
    kinds = [k for k in kinds if {"cortical_ml": cortical, "cortical_thickness_mm": thick}.get(k[0], True)]
    kinds += [("density_mg_cm3", "Density", 0, " mg/cm³")] if dense else []
    names = {key: e["name"] for r in records.values() for key, e in r["regions"].items()}
    rows, reasons = [], {}
    entries = [(name, {s: r["regions"].get(key) for s, r in records.items()}) for key, name in names.items()]
    if cortical:
        entries += [
            (label, {s: parts[s].get(key, {}) for s in records})
            for key, label in (("cortical", "Cortical bone"), ("inside", "Trabecular bone and marrow"))
        ]
    for name, of_side in entries:
        cells = [
            _amount(of_side.get(side) or {}, kind, digits, unit, reasons)
            for kind, _, digits, unit in kinds
            for side in SIDES
        ]
        rows.append(f"<tr><td>{escape(name)}</td>{_cells(*cells)}</tr>")
    first = "".join(f"<th class=number colspan=2>{text}</th>" for _, text, _, _ in kinds)
    second = "<th class=number>Right</th><th class=number>Left</th>" * len(kinds)
    head = f"<tr><th></th>{first}</tr><tr><th></th>{second}</tr>"
    notes = _explained(reasons)
    missing = {r["compartments"]["reason"] for r in records.values() if "reason" in r["compartments"]}
    notes += " ".join(f"Cortex and marrow are not told apart: {escape(why)}." for why in sorted(missing))
    return (
        f"<h2>Regions and compartments</h2><table class=regions><thead>{head}</thead>"
        f'<tbody>{"".join(rows)}</tbody></table><p class="reasons">{notes}</p>'
    )


def _amount(entry: dict, kind: str, digits: int, unit: str, reasons: dict[str, str]) -> str:
    """What a region or compartment has of a kind; the reason why not stands with its volume."""
    value = entry.get(kind)
    if value is not None:
        return f"{value:.{digits}f}{unit}".replace("-", "−")
    return _absent(entry["reason"], reasons) if kind == "volume_ml" and entry.get("reason") else "–"


def _provenance(document: dict) -> str:
    source, seconds = document["input"], document["seconds"].get("total")
    size = " × ".join(map(str, source["size_ijk"]))
    spacing = " × ".join(f"{s:g}" for s in (round(s, 4) for s in source["spacing_mm"]))
    packages = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    rows = [
        ("CT", f"{source['path']} ({size} voxels of {spacing} mm)"),
        ("SHA-256 of its voxels", source.get("sha256") or "not recorded"),
        ("Run", f"{document['created']}, {seconds:.0f} s on {document['device']}; {packages}"),
        *_terms(document.get("weights")),
        *((f"Weights {m['name']}", f"{m['file']}  SHA-256 {m['sha256']}") for m in document["models"]),
    ]
    lines = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    table = f'<table class="provenance"><tbody>{lines}</tbody></table>'
    sign = '<div class="sign"><span>Looked at by</span><span>Date</span><span>Remarks</span></div>'
    return f'<h2>Where this comes from</h2>{table}<p class="reasons">{NOTE}</p>{sign}'


def _terms(weights: dict | None) -> list[tuple[str, str]]:
    """The row on the set of weights; none where a result of an earlier version does not tell."""
    if not weights:
        return []
    return [("Set of weights", f"{weights['set']}; licence: {weights['licence'] or 'not known'}")]


def _cells(*texts: str) -> str:
    return "".join(f"<td class=number>{text}</td>" for text in texts)
