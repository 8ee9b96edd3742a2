"""The report in a real browser: dark figures in the dark, and the map answers the pointer."""

import numpy as np
import pytest
from PIL import Image

from gensupcon_jax.report import write_report
from tests.report.pages import example

pytestmark = pytest.mark.slow  # a browser


def test_figures_are_dark_in_the_dark(browser, tmp_path):
    write_report(tmp_path / "report.html", example(images=1, views=1))
    for scheme, is_dark in (("light", False), ("dark", True)):
        seen = browser.look(tmp_path / "report.html", tmp_path, scheme=scheme)
        assert seen.problems == []
        pixels = np.asarray(Image.open(seen.screenshot).convert("L"))
        below_the_head = pixels[900:]
        assert ((below_the_head > 128).mean() < 0.2) if is_dark else ((below_the_head > 128).mean() > 0.8)


def test_the_map_shows_the_image_class_and_file_under_the_pointer_and_zooms(browser, tmp_path):
    write_report(tmp_path / "report.html", example())

    def act(page):
        point = page.locator("#map use.wrong")
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        words, drawn = page.locator("#map .tip").inner_text(), "canvas => canvas.toDataURL().length"
        size = page.locator("#map canvas").evaluate(drawn)
        place = page.locator("#map use").evaluate_all("all => all.map(each => each.getAttribute('x'))")
        page.locator("#map .zoom button").first.click()
        moved = page.locator("#map use").evaluate_all("all => all.map(each => each.getAttribute('x'))")
        page.get_by_text("all", exact=True).click()
        back = page.locator("#map use").evaluate_all("all => all.map(each => each.getAttribute('x'))")
        return words, size, place != moved, [float(x) for x in place] == [float(x) for x in back]

    seen = browser.look(tmp_path / "report.html", tmp_path, act=act)
    assert seen.problems == []
    words, size, is_moved, is_back = seen.answer
    assert words.split("\n") == ["name0, predicted name1", "test/0.png"]
    assert size > 200 and is_moved and is_back


def test_without_javascript_the_map_is_a_picture_and_nothing_is_dead(browser, tmp_path):
    write_report(tmp_path / "report.html", example())

    def act(page):
        return page.locator("#map use").count(), page.locator("#map .zoom").is_visible()

    assert browser.look(tmp_path / "report.html", tmp_path, script=False, act=act).answer == (24, False)
