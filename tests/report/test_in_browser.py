"""The pages in a real browser: no error, no request, nothing wider than the page, on a laptop and a phone, light and dark."""

import pytest

from gensupcon_jax.report import write_contact_sheet, write_report
from tests import browser as browsers
from tests.browser import WIDTHS, problems_of
from tests.report import pages, test_contact

pytestmark = pytest.mark.slow  # a browser

LONG = "a_very_long_name_without_any_space_in_it_" * 3


def test_the_report(browser, tmp_path):
    write_report(tmp_path / "report.html", pages.example())
    assert problems_of(browser, tmp_path / "report.html", tmp_path) == {}


def test_a_report_with_many_long_names(browser, tmp_path):
    names = [f"{LONG}{index}" for index in range(20)]
    write_report(tmp_path / "report.html", pages.example(classes=20, test=40, channels=3, names=names))
    assert browser.look(tmp_path / "report.html", tmp_path, width=390).problems == []


def point_at_the_map(opened):
    """What the map shows where the pointer is at its first point, and how far zooming moves that point."""
    point, tip = opened.locator("#map use").first, opened.locator("#map .tip")
    was_hidden = tip.is_hidden()
    point.hover(force=True)
    drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0)"
    told = tip.inner_text().split("\n"), opened.eval_on_selector("#map .tip canvas", drawn)
    before = point.get_attribute("x")
    opened.click("#map .zoom button[aria-label='zoom in']")
    zoomed = point.get_attribute("x")
    opened.click("#map .zoom button[data-factor='0']")
    return was_hidden, told, before != zoomed, point.get_attribute("x") == before


@pytest.mark.parametrize("width", WIDTHS)
def test_pointing_at_the_map_shows_the_image_its_class_and_its_file(browser, tmp_path, width):
    write_report(tmp_path / "report.html", pages.example())
    titles = browser.look(
        tmp_path / "report.html",
        tmp_path,
        script=False,
        act=lambda opened: opened.locator("#map title").first.text_content(),
    )
    seen = browser.look(tmp_path / "report.html", tmp_path, width=width, act=point_at_the_map)
    was_hidden, (told, is_drawn), moves, comes_back = seen.answer
    assert was_hidden and is_drawn and moves and comes_back
    assert [line for line in told if line] == titles.answer.split("\n")
    assert "test/0.png" in told
    assert seen.problems == []


def test_without_scripts_the_report_shows_all_and_no_dead_button(browser, tmp_path):
    write_report(tmp_path / "report.html", pages.example())

    def counts(opened):
        return (
            opened.locator("#map use").count(),
            opened.locator("button:visible").count(),
            opened.locator("h2:visible").count(),
        )

    with_script, without = (
        browser.look(tmp_path / "report.html", tmp_path, script=script, act=counts).answer for script in (True, False)
    )
    assert with_script[::2] == without[::2] and without[0] == 24
    assert with_script[1] == 3 and without[1] == 0


@pytest.mark.parametrize("name", ["trees", LONG])
def test_the_contact_sheet(browser, tmp_path, name):
    write_contact_sheet(tmp_path / "sheet.html", test_contact.example(title=name, remarks=[name]))
    assert problems_of(browser, tmp_path / "sheet.html", tmp_path) == {}


def test_the_counts_of_a_contact_sheet_are_not_broken_within_a_word_on_a_phone(browser, tmp_path):
    rows = [("split", "images", "damaged", "copies", "smallest", "median", "largest", "formats")]
    rows += [("validation", "1,024", "0", "0", "73x76", "137x105", "258x390", "JPEG 21, PNG 20")]
    write_contact_sheet(tmp_path / "sheet.html", test_contact.example(tables=[rows]))
    lines = """cells => cells.map(cell => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      return [cell.textContent, new Set([...range.getClientRects()].map(box => Math.round(box.top))).size];
    })"""
    seen = browser.look(
        tmp_path / "sheet.html",
        tmp_path,
        width=390,
        act=lambda opened: opened.eval_on_selector_all(".numbers th, .numbers td", lines),
    )
    assert [text for text, number in seen.answer if number > len(text.split())] == []
    assert len(seen.answer) == 16
    assert seen.problems == []


# The looking itself.


def page(folder, body):
    (folder / "page.html").write_text(f"<!doctype html><html><body style='margin:0'>{body}</body></html>")
    return folder / "page.html"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<script>nothing()</script>", "nothing is not defined"),
        ("<script>console.error('this is wrong')</script>", "this is wrong"),
        ("<img src='missing.png'>", "missing.png: net::ERR_FILE_NOT_FOUND"),
        ("<img src='http://127.0.0.1:9/a.png'>", "request of http://127.0.0.1:9/a.png"),
        ("<p class='long' style='width:391px'>words</p>", "p.long ends at 391 of 390 px: words"),
        ("<p style='width:20px'>words</p>", "the text of p spills over its box: words"),
        ("<div style='overflow-x:auto; width:400px'><p>words</p></div>", "div ends at 400 of 390 px: words"),
    ],
)
def test_a_broken_page_is_caught(browser, tmp_path, body, problem):
    assert problem in " ".join(browser.look(page(tmp_path, body), tmp_path, width=390).problems)


def test_what_scrolls_by_itself_is_not_wider_than_the_page(browser, tmp_path):
    body = "<div style='overflow-x:auto'><p style='width:900px'>words</p></div>"
    assert browser.look(page(tmp_path, body), tmp_path, width=390).problems == []


def test_width_scheme_and_script_are_as_asked(browser, tmp_path):
    body = """<p id="told">no script</p><script>
      told.textContent = innerWidth + (matchMedia('(prefers-color-scheme: dark)').matches ? ' dark' : ' light')</script>"""
    path, told = page(tmp_path, body), lambda opened: opened.inner_text("#told")
    assert browser.look(path, tmp_path, act=told).answer == "1280 light"
    assert browser.look(path, tmp_path, width=390, scheme="dark", act=told).answer == "390 dark"
    assert browser.look(path, tmp_path, script=False, act=told).answer == "no script"


def test_every_look_leaves_a_picture(browser, tmp_path):
    browser.look_everywhere(page(tmp_path, "words"), tmp_path / "pictures")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "page_1280_dark.png",
        "page_1280_light.png",
        "page_390_dark.png",
        "page_390_light.png",
        "page_390_light_noscript.png",
    ]


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_chromium_the_tests_are_skipped_and_fail_where_ci_is_true(monkeypatch, ci, outcome):
    def missing():
        raise FileNotFoundError(browsers.INSTALL)

    monkeypatch.setattr(browsers, "Browser", missing)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt-get install chromium"):
        next(browsers.browser.__wrapped__())


def test_a_machine_without_chromium_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(browsers, "PROGRAMS", ())
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the tests of pages need Chromium"):
        browsers.Browser()
