"""The page: collects the sections, renders the template, writes the file."""

from pathlib import Path
from typing import Any

from gensupcon_jax import paths
from gensupcon_jax.report.checks import quick_checks, sentences
from gensupcon_jax.report.confusion import confusion_section
from gensupcon_jax.report.curves import curves_section
from gensupcon_jax.report.data import ReportData, class_count
from gensupcon_jax.report.drawing import picture_style
from gensupcon_jax.report.last_numbers import last_numbers, measure_rows
from gensupcon_jax.report.scatter import scatter_section
from gensupcon_jax.report.scores import ruler_ticks, score_rows, verdict
from gensupcon_jax.report.sheet import sheet_section
from gensupcon_jax.report.similarity import similarity_section
from gensupcon_jax.report.values import clean, duration, printable, shown, whole
from gensupcon_jax.text import flatten


def write_report(path: str | paths.Path, data: ReportData) -> None:
    """Write the page to `path` atomically: an older report stays until the new one is complete."""
    write_page(path, render_report(data))


def write_page(path: str | paths.Path, html: str) -> None:
    """Write this HTML to `path` atomically."""
    path = paths.as_path(path)
    content = html.encode("utf-8", errors="replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    paths.write_whole(path, content)


def render_report(data: ReportData) -> str:
    """The page as HTML text."""
    with picture_style():
        # A section is a dict for the template, or the reason why it is missing.
        sections = {
            "curves": curves_section(data),
            "similarity": similarity_section(data),
            "scatter": scatter_section(data),
            "confusion": confusion_section(data),
            "sheet": sheet_section(data),
        }
    return template("template.html").render(
        title=clean(data.title),
        facts=_facts(data),
        versions=_fields(data.results.get("versions") or {}),
        command="\n".join(printable(line) for line in data.command.splitlines()).strip(),
        numbers=last_numbers(data.metrics),
        measures=measure_rows(data.results),
        scores=score_rows(data.results),
        ticks=ruler_ticks(data.results),
        verdict=verdict(data.results),
        checks=quick_checks(data),
        sentences=sentences(data),
        config=_fields(data.config),
        results=_fields(data.results),
        **{name: None if isinstance(content, str) else content for name, content in sections.items()},
        not_shown={name: content for name, content in sections.items() if isinstance(content, str)},
    )


def template(name: str, folder: Path | None = None) -> Any:
    """The template of this name in a folder (None: this one), with autoescape; it may include and import files of this one."""
    import jinja2

    here = Path(__file__).parent
    # Names and paths are untrusted: autoescape is on, and the template marks nothing as safe.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder or here, here]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _fields(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Nested fields as (dotted name, value) rows, in their order."""
    return [(clean(name), shown(value)) for name, value in flatten(tree).items()]


def _facts(data: ReportData) -> list[tuple[str, str]]:
    """The facts under the title, without unknown ones."""
    results = data.results
    classes = class_count(data)
    facts = [
        ("dataset", clean(data.dataset)),
        ("classes", f"{classes}" if classes else ""),
        ("test images", f"{whole(results.get('num_test')):,}" if whole(results.get("num_test")) else ""),
        ("seed", shown(results["seed"]) if "seed" in results else ""),
        ("device", shown(results["device"]) if "device" in results else ""),
        ("time", duration(results.get("seconds"))),
    ]
    return [(name, value) for name, value in facts if value]
