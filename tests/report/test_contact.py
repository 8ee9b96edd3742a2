"""The contact sheet: one offline page, escaped names, every picture decodes."""

import base64
import io
import re

import numpy as np
from PIL import Image

from gensupcon_jax.report import ContactSheet, Picture, contact, render_contact_sheet, write_contact_sheet

NASTY = '<script>alert(1)</script>"&\u202e{{ 7 * 7 }}'
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def example(**changes):
    fields = {
        "title": "folder:trees",
        "command": "gensupcon prepare --config mine.py",
        "facts": [("classes", "2")],
        "findings": ["1 image is damaged"],
        "remarks": ["there is no test split"],
        "tables": [[["split", "images"], ["train", "3"]]],
        "splits": ["train", "test"],
        "classes": [("ash", [[Picture("train/ash/1.png", PIXELS)], []])],
        "copies": [[Picture("a.png", PIXELS), Picture("b.png", None)]],
        "damaged": ["train/ash/2.png: the file is empty"],
    }
    return ContactSheet(**fields | changes)


def pictures(html):
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_it_shows_its_contents():
    html = render_contact_sheet(example())
    for text in ("folder:trees", "1 image is damaged", "there is no test split", "train/ash/2.png: the file is empty",
                 "no image", "cannot be read", "gensupcon prepare --config mine.py"):  # fmt: skip
        assert text in html
    assert len(pictures(html)) == 2
    assert all(np.array_equal(each, PIXELS) for each in pictures(html))  # small images are stored without loss


def test_untrusted_names_are_escaped():
    picture = Picture(NASTY, PIXELS)
    html = render_contact_sheet(
        example(title=NASTY, command=NASTY, facts=[(NASTY, NASTY)], findings=[NASTY], remarks=[NASTY],
                tables=[[[NASTY], [NASTY]]], splits=[NASTY], classes=[(NASTY, [[picture]])], copies=[[picture]],
                damaged=[NASTY])
    )  # fmt: skip
    assert "<script" not in html
    assert "\u202e" not in html
    assert "49" not in re.sub(r"base64,[^\"]+", "", html).split("</style>")[1]
    assert html.count("&lt;script&gt;") >= 14


def test_it_makes_no_network_requests():
    html = render_contact_sheet(example())
    assert not re.search(r"https?:|@import|url\(|<script|<link", html)
    assert "default-src 'none'; img-src data:" in html


def test_no_problems_are_reported():
    html = render_contact_sheet(example(findings=[], damaged=[], copies=[]))
    assert "No problems were found." in html
    assert "cannot be decoded" not in html
    assert "Identical images" not in html


def test_large_pictures_are_shrunk_and_gray_ones_drawn():
    large, gray = np.zeros((900, 300, 3), np.uint8), np.full((60, 90, 1), 7, np.uint8)
    html = render_contact_sheet(example(classes=[("ash", [[Picture("l", large), Picture("g", gray)], []])], copies=[]))
    assert [picture.shape[:2] for picture in pictures(html)] == [(128, 43), (60, 90)]
    assert len(html) < 30_000


def test_many_damaged_lines_are_truncated_and_counted():
    html = render_contact_sheet(example(damaged=[f"image {number}" for number in range(250)]))
    assert html.count("<li>image ") == 200
    assert "and 50 more" in html


def test_it_is_marked_and_written_atomically(tmp_path):
    write_contact_sheet(tmp_path / "deep" / "sheet.html", example())
    assert f'content="{contact.MARK}"' in (tmp_path / "deep" / "sheet.html").read_text()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["sheet.html"]
