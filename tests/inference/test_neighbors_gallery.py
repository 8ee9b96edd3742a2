"""The gallery of neighbors: one offline page, escaped names, pictures that decode, readable on a phone and in the dark."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from gensupcon_jax.inference.neighbors_gallery import render_gallery, thumbnail, write_gallery
from gensupcon_jax.inference.neighbors_search import Neighbor, QueryResult, results_text, search
from tests.browser import browser, problems_of  # noqa: F401  (a fixture)
from tests.encoded import encode, picture

NASTY = '<script>alert(1)</script>"&\u202e{{ 7 * 7 }}'


@pytest.fixture
def results(tmp_path):
    paths = []
    for number, size in enumerate([(200, 300), (20, 24), (300, 120)]):
        paths.append(str(tmp_path / f"a_rather_long_name_without_spaces_of_photograph_{number}.jpg"))
        (tmp_path / paths[-1]).write_bytes(encode(picture(number, 1, size)))
    neighbors = [Neighbor(paths[1], 0.98765), Neighbor(str(tmp_path / "gone.png"), -0.25), Neighbor(paths[2], 0.1)]
    return [QueryResult(paths[0], neighbors * 4, True), QueryResult(NASTY, neighbors[:1], False)]


def render(results):
    return render_gallery(results, facts=[("encoder", NASTY)], command=f"gensupcon neighbors {NASTY}")


def test_it_shows_queries_and_neighbors_with_names_cosines_and_alternative_texts(results):
    html = render(results)
    sources = re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)" alt="([^"]+)">', html)
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data, _ in sources]
    assert len(sources) == 1 + 8 + 1 and max(map(max, sizes)) == 128
    alternatives = [text for _, text in sources]
    assert alternatives[0].startswith("Query: ") and alternatives[0].endswith("photograph_0.jpg")
    assert alternatives[1].startswith("Neighbor 1: ") and alternatives[1].endswith("photograph_1.jpg, cosine 0.988")
    assert len(set(alternatives)) == len(alternatives) - 1  # the two queries share their first neighbor
    assert html.count("cannot be read</span>") == 4 + 1  # gone.png, and the second query
    assert html.count("Its own file is in the set, and left out.") == 1


def test_untrusted_names_are_escaped_and_nothing_is_requested(results):
    html = render(results)
    assert "<script" not in html and "\u202e" not in html
    body = re.sub(r"base64,[^\"]+", "", html).split("</style>")[1]
    assert "49" not in body.replace("{{ 7 * 7 }}", "")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", html) and "url(" not in html


def test_it_reads_well_in_a_browser(results, browser, tmp_path):  # noqa: F811
    write_gallery(
        tmp_path / "neighbors.html", results, facts=[("encoder", "runs/photos, step 6")], command="gensupcon x"
    )
    assert problems_of(browser, tmp_path / "neighbors.html", tmp_path / "seen") == {}


def test_thumbnails_are_upright_whole_and_none_where_they_cannot_be_read(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # stored on its side
    wide = Image.fromarray(np.zeros((100, 600, 3), np.uint8))
    (tmp_path / "turned.jpg").write_bytes(encode(wide, exif=exif))
    assert thumbnail(str(tmp_path / "turned.jpg")).shape == (256, 43, 3)
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    assert thumbnail(str(tmp_path / "broken.jpg")) is None
    assert thumbnail(str(tmp_path / "gone.jpg")) is None


def test_the_nearest_by_cosine_without_the_query_itself(tmp_path):
    features = np.array([[1, 0], [10, 1], [0, 1], [1, 0]], np.float32)
    paths = [str(tmp_path / name) for name in ("0.png", "1.png", "2.png", "copy.png")]
    queries = [str(tmp_path / "sub" / ".." / "0.png"), "elsewhere.png"]
    first, second = search((queries, features[:1].repeat(2, 0)), (paths, features), 2)
    # Its own file is left out, under any spelling of the path; a copy of it is not.
    assert first.is_in_set and [neighbor.path for neighbor in first.neighbors] == [paths[3], paths[1]]
    assert [neighbor.cosine for neighbor in first.neighbors] == pytest.approx([1, 10 / np.sqrt(101)])
    assert not second.is_in_set and {neighbor.path for neighbor in second.neighbors} == {paths[0], paths[3]}
    (everything,) = search((queries[:1], features[:1]), (paths, features), 99)
    assert [neighbor.path for neighbor in everything.neighbors] == [paths[3], paths[1], paths[2]]


def test_the_table_of_a_query():
    result = QueryResult("cat.jpg", [Neighbor("a.jpg", 0.98765), Neighbor("b.jpg", -0.25)], True)
    assert results_text([result]) == (
        "cat.jpg (its own file is in the set, and left out)\nrank  cosine  file\n   1   0.988  a.jpg\n   2  -0.250  b.jpg"
    )
