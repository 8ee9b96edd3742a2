"""The page of a comparison: what it shows, that it is safe, and how it looks in a browser."""

import re

import pytest

from gensupcon_jax.compare.curves import charts, group_look
from gensupcon_jax.compare.groups import grouped
from gensupcon_jax.compare.page import compare, render_comparison
from gensupcon_jax.compare.runs import read_runs
from gensupcon_jax.compare.table import as_text
from tests.browser import problems_of
from tests.compare.workdirs import make_run
from tests.report.test_report import Page

MIXUP = {"kind": "mixup"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two groups of two seeds, a longer run with another temperature, and an unfinished one."""
    folder = tmp_path_factory.mktemp("runs")
    made = [
        make_run(folder / f"plain_{seed}", seed=seed, linear=range(10 + seed), knn=(1,), best=(2,)) for seed in (0, 1)
    ]
    made += [
        make_run(folder / f"mixup_{seed}", seed=seed, linear=range(3 - seed), best=(), mix=MIXUP) for seed in (0, 1)
    ]
    made.append(make_run(folder / "warm", linear=range(30), rows=300, loss={"temperature": 0.2}))
    return [*made, make_run(folder / "open", finished=False, rows=2, epochs=9.0)]


@pytest.fixture(scope="module")
def found(folders):
    return compare(read_runs(folders))


@pytest.fixture(scope="module")
def html(found):
    return render_comparison(found, "gensupcon compare plain_0 plain_1")


def test_it_shows_its_contents(html):
    page = Page(html)
    assert "plain is less accurate than mixup by 8.00 points (linear probe, last step: 89.50 % and 97.50 %" in page.text
    assert "gensupcon compare plain_0 plain_1" in page.text
    assert "loss.temperature 0.1 0.1 0.1 0.1 0.2 0.1" in page.section_text("fields")
    assert "objective" not in page.section_text("fields")
    assert "open is not finished (was last logged at step 4)" in page.section_text("runs")
    assert "plain 2 89.50 ± 0.71 %" in page.section_text("results")
    assert "plain mixup linear probe, last -8.00" in page.section_text("tests")
    assert "30 that only" not in page.section_text("images") and "20 that only plain_0" in page.section_text("images")


def test_curves_against_steps_and_epochs(folders):
    shown = charts(grouped(read_runs(folders)))
    titles = [by_axis["step"]["title"] for by_axis in shown]
    accuracy = "k-NN accuracy on validation, percent"
    assert titles == ["Training loss", accuracy, "Learning rate", "Throughput, images per second"]
    loss = shown[0]
    assert [line["color"] for line in loss["step"]["lines"]] == ["c0", "c0", "c1", "c1", "c2", "c3"]
    assert "warm goes from 4.8 at step 2 to -55 at step 600" in loss["step"]["alt"]
    assert "warm goes from 4.8 at epoch 0.5 to -55 at epoch 150" in loss["epoch"]["alt"]
    assert [group_look(place) for place in (0, 4, 5, 10, 15)] == ["c0", "c4", "c0 dashes", "c0 points", "c0"]


def test_later_rows_of_a_resumed_run_count(tmp_path):
    folder = make_run(tmp_path / "a", rows=1)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 2, "train/loss": 1.0, "train/epoch": 0.5}\n{"step": 3, "train/loss": null, "train/epoch": 1}\n'
        )
    loss = charts(grouped(read_runs([folder, make_run(tmp_path / "b")])))[0]["step"]
    assert [line["last"] for line in loss["lines"]] == ["1", "3.4"]


def test_it_makes_no_request_and_is_small(html):
    assert not re.search(r"https?:|@import|url\(|<script|<link", html)
    assert "default-src 'none'; img-src data:" in html
    assert len(html) < 500_000


def test_in_a_browser(browser, html, tmp_path):
    (tmp_path / "compare.html").write_text(html)
    assert problems_of(browser, tmp_path / "compare.html", tmp_path) == {}


def test_the_switch_of_the_curves_needs_no_script(browser, html, tmp_path):
    (tmp_path / "compare.html").write_text(html)

    def shown(page):
        before = page.locator(".by-step:visible").count(), page.locator(".by-epoch:visible").count()
        page.check("#axis-epoch")
        return before, (page.locator(".by-step:visible").count(), page.locator(".by-epoch:visible").count())

    assert browser.look(tmp_path / "compare.html", tmp_path, script=False, act=shown).answer == ((4, 0), (0, 4))


NASTY = "<img src=x onerror=alert(1)>&{{ 7 * 7 }}"


def test_names_and_values_are_escaped_and_long_ones_fit(browser, tmp_path):
    long = "a_very_long_name_" * 12
    folders = [make_run(tmp_path / NASTY, note=NASTY), make_run(tmp_path / long, note=long * 3, linear=(1,))]
    html = render_comparison(compare(read_runs(folders)), f"gensupcon compare '{NASTY}'")
    assert "<img" not in html and "49" not in html.split("</style>")[1].split("<svg")[0]
    assert html.count("&lt;img src=x") > 8
    (tmp_path / "compare.html").write_text(html)
    assert problems_of(browser, tmp_path / "compare.html", tmp_path) == {}


def test_runs_without_steps_and_results_are_a_page(tmp_path):
    folders = [make_run(tmp_path / name, finished=False, rows=0) for name in ("a", "b")]
    page = Page(render_comparison(compare(read_runs(folders)), "gensupcon compare a b"))
    assert "No run has logged a step." in page.text and "No paired test" in page.text
    assert "All 5 config fields and the data are equal." in page.text


def test_one_group_has_its_spread_in_a_sentence(tmp_path):
    folders = [make_run(tmp_path / f"a_{seed}", seed=seed, linear=range(2 * seed)) for seed in range(3)]
    (said,) = compare(read_runs(folders)).sentences
    assert (
        said
        == "Over 3 seeds, a has an accuracy of 98.00 ± 2.00 % (linear probe, last step: mean and standard deviation)."
    )


def test_the_text_for_the_terminal(found):
    lines = as_text(found).splitlines()
    assert lines[0].split() == ["field", "plain_0", "plain_1", "mixup_0", "mixup_1", "warm", "open"]
    assert "loss.temperature      0.1      0.1      0.1      0.1   0.2   0.1" in lines
    assert any(line.split()[:6] == ["plain_0", "0", "16", "4", "90.00", "%"] for line in lines)
    assert any(line.startswith("plain      2      89.50 ± 0.71 %") for line in lines)
    assert lines[-1].startswith("mixup is more accurate than warm by 27.00 points")
