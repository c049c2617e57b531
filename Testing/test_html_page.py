"""Pages of one file: nothing from elsewhere, nothing unescaped."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from FemurSegLib.html_page import figure, inline_png, page, table


class Tags(HTMLParser):
    """All (tag, attributes), and whether every tag that must be closed is."""

    VOID = {"meta", "img", "br"}
    OPTIONAL = {"tr", "td", "th"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID | self.OPTIONAL:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.OPTIONAL:
            assert self.open.pop() == tag


def decoded(uri):
    return np.array(Image.open(BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def test_a_page_is_well_formed_and_loads_nothing_from_elsewhere(tmp_path):
    Image.new("RGB", (3, 2), (9, 8, 7)).save(tmp_path / "a.png")
    text = page("A & B", figure(tmp_path / "a.png", "<caption>") + table([("x", 1)], ("Name", "Value")))
    parsed = Tags(text)
    assert parsed.open == []
    sources = [a.get("src") or a.get("href") for _, a in parsed.tags if "src" in a or "href" in a]
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,")
    assert "default-src 'none'" in text
    assert "A &amp; B" in text and "&lt;caption&gt;" in text and "http://" not in text and "https://" not in text


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_an_array_comes_back_from_its_png(shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert np.array_equal(decoded(inline_png(array)), array)
    assert np.array_equal(decoded(inline_png(Image.fromarray(array))), array)


def test_a_table_escapes_its_cells_and_sets_numbers_flush_right():
    text = table([("<b>", 1.5), ("c", "−2 mm"), ("d", None)], ("Name", "Value"))
    assert "&lt;b&gt;" in text and "<b>" not in text
    assert text.count("<td class=number>") == 3 and "<td class=number>–</td>" in text
    assert "<th>Name</th><th class=number>Value</th>" in text


def test_an_empty_table_is_a_table():
    assert "<th>Name</th>" in table([], ("Name",)) and "<table>" in table([])
