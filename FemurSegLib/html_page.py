"""Web pages that are one file: they open without a network and print on A4. No scripts but those handed in.

page("Report", table([("Dice", 0.97)], ("Figure", "Value")) + figure("coronal.png", "From the front"))
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

STYLE = """
@page { size: A4; margin: 11mm 12mm; }
* { box-sizing: border-box; }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0 auto; max-width: 186mm; padding: 6mm 0; background: #fff; color: #1c2128;
  font: 9.5pt/1.4 "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 17pt; line-height: 1.15; margin: 0 0 1mm; }
h2 { font-size: 11.5pt; margin: 4mm 0 1.5mm; padding-bottom: .5mm; border-bottom: .3mm solid #c6ccd4; }
p { margin: 0 0 1.5mm; }
table { border-collapse: collapse; width: 100%; font-size: 8.5pt; line-height: 1.25; }
th { text-align: left; font-weight: 600; color: #4a5462; border-bottom: .4mm solid #8b95a3;
  vertical-align: bottom; }
td { border-bottom: .2mm solid #e3e7ec; vertical-align: top; }
th, td { padding: .55mm 1.5mm .55mm 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: 8pt; color: #4a5462; margin-top: .8mm; }
tr, figure { break-inside: avoid; }
h2 { break-after: avoid; }
@media print { body { padding: 0; max-width: none; } }
"""
"""Sizes in mm and pt: a screen shows the sheet as it prints."""


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole HTML document. `body` is HTML, `style` CSS added to `STYLE`, `script` JavaScript run at the end;
    `title` is plain text. A content security policy forbids the page to load anything from elsewhere."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    code = f"<script>\n{script}\n</script>\n" if script else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n{code}"
        "</body>\n</html>\n"
    )


def inline_png(source) -> str:
    """A picture as a data URI for `src`. source: path of a PNG file, PIL image, or uint8 array (rows, columns) or
    (rows, columns, 3 or 4). Raises OSError where a file cannot be read."""
    if isinstance(source, (str, Path)):
        content = Path(source).read_bytes()
    else:
        from PIL import Image

        image = source if isinstance(source, Image.Image) else Image.fromarray(source)
        stream = BytesIO()
        image.save(stream, "PNG", optimize=True)
        content = stream.getvalue()
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def css_color(color: Iterable[float]) -> str:
    """RGB in 0..1 as CSS and SVG write it: #rrggbb."""
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in color)


def figure(source, caption: str = "", alt: str = "", width: str = "100%") -> str:
    """An inlined picture (see `inline_png`) over its caption (plain text); `width` as in CSS."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    picture = f'<img src="{inline_png(source)}" alt="{escape(alt or caption)}">'
    return f'<figure style="width:{escape(width)}">{picture}{below}</figure>\n'


def table(rows: Iterable[Sequence], header: Sequence[str] = ()) -> str:
    """A table. Cells are anything with a text, escaped; None is a dash. Numbers, and texts that begin with a digit
    or a sign before one, are set flush right, and so are the headings of columns that hold nothing else."""
    rows = [["–" if cell is None else cell for cell in row] for row in rows]
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    flush = [bool(c) and all(map(_numeric, c)) and not all(each == "–" for each in c) for c in columns]

    def line(cells, tag, right):
        return "<tr>" + "".join(
            f"<{tag}{' class=number' * bool(r)}>{escape(str(c))}</{tag}>" for c, r in zip(cells, right, strict=True)
        )

    head = f"<thead>{line(header, 'th', flush)}</thead>" if header else ""
    body = "\n".join(line(row, "td", [_numeric(cell) for cell in row]) for row in rows)
    return f"<table>{head}<tbody>\n{body}\n</tbody></table>\n"


def _numeric(cell) -> bool:
    text = str(cell).lstrip("+-−<>±≥≤ ")
    return text[:1].isdigit() or str(cell) in ("–", "∞")
