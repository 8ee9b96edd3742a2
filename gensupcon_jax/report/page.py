"""The page: collects the sections, renders the template, writes the file and the tables beside it."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from gensupcon_jax import paths
from gensupcon_jax.report.checks import quick_checks, sentences
from gensupcon_jax.report.classes import classes_section
from gensupcon_jax.report.comparisons import comparisons_section, luck
from gensupcon_jax.report.confusion import confusion_section
from gensupcon_jax.report.curves import curves_section, machine_section
from gensupcon_jax.report.data import PREDICTORS, ReportData, class_count, label_things
from gensupcon_jax.report.duplicates_page import DUPLICATES_FILE, duplicates_section, duplicates_table
from gensupcon_jax.report.fitted_values import fitted_values_section
from gensupcon_jax.report.labels import labels_section
from gensupcon_jax.report.last_numbers import last_numbers, measure_rows
from gensupcon_jax.report.mistakes import mistakes_section
from gensupcon_jax.report.neighbors import neighbors_section
from gensupcon_jax.report.scatter import scatter_section
from gensupcon_jax.report.scores import ruler_ticks, score_rows, verdict
from gensupcon_jax.report.sheet import sheet_section
from gensupcon_jax.report.similarity import similarity_section
from gensupcon_jax.report.suspicious_page import SUSPICIOUS_FILE, suspicious_section, suspicious_table
from gensupcon_jax.report.values import clean, duration, printable, shown, whole
from gensupcon_jax.report.wall_time import wall_time_section
from gensupcon_jax.text import flatten

# Sections in the order of the page: id, title, name in the navigation. Each has a template in sections/.
_TITLES = (
    ("curves", "Did it learn?", "Learning"),
    ("similarity", "Do the embeddings follow the labels?", "Similarity"),
    ("scatter", "Are the classes separated?", "Map"),
    ("labels", "How well is each label predicted?", "Per label"),
    ("fitted_values", "How near are the predicted values?", "Values"),
    ("confusion", "Which classes are confused?", "Confusion"),
    ("classes", "How good is each class?", "Classes"),
    ("mistakes", "Which images are predicted wrongly?", "Mistakes"),
    ("neighbors", "What does the encoder find alike?", "Neighbors"),
    ("suspicious", "Which labels look wrong?", "Labels"),
    ("duplicates", "Are images in two splits?", "Duplicates"),
    ("sheet", "Are the inputs correct?", "Inputs"),
    ("machine", "Was the machine used well?", "Machine"),
    ("wall_time", "Where did the time go?", "Time"),
    ("details", "All results and config fields", "Details"),
)


# Sections for several labels per image, and those for one class per image, which they replace.
_OF_SEVERAL = ("labels",)
_OF_VALUES = ("fitted_values",)
_OF_ONE_CLASS = ("confusion", "classes", "mistakes")
_OF_EQUAL_LABELS = ("suspicious",)  # a number is never quite that of the neighbors


def write_report(path: str | paths.Path, data: ReportData) -> None:
    """Write the page to `path`, and the tables of suspicious labels and near-duplicates beside it.

    Each is written atomically: an older one stays until the new one is complete. Without features of the training images there
    are no tables, and where labels are numbers no suspicious ones.
    """
    path = paths.as_path(path)
    write_page(path, render_report(data))
    if data.findings is not None:
        tables = {DUPLICATES_FILE: duplicates_table(data, data.findings.duplicates)}
        if data.test_values is None:
            tables[SUSPICIOUS_FILE] = suspicious_table(data, data.findings.suspicious)
        for name, content in tables.items():
            paths.write_whole(path.parent / name, content.encode("utf-8", errors="replace"))


def write_page(path: str | paths.Path, html: str) -> None:
    """Write this HTML to `path` atomically."""
    path = paths.as_path(path)
    content = html.encode("utf-8", errors="replace")
    paths.make_folder(path.parent)
    paths.write_whole(path, content)


def render_report(data: ReportData) -> str:
    """The page as HTML text."""
    sections = _sections(data)
    script = Path(__file__).with_name("script.js").read_text(encoding="utf-8")
    decision = verdict(data.results)
    key = decision["key"]
    return template("template.html").render(
        title=clean(data.title),
        facts=_facts(data),
        versions=_fields(data.results.get("versions") or {}),
        command="\n".join(printable(line) for line in data.command.splitlines()).strip(),
        numbers=last_numbers(data.metrics),
        measures=measure_rows(data.results),
        scores=score_rows(data.results),
        ticks=ruler_ticks(data.results),
        verdict=decision | {"luck": luck(data.paired[key], PREDICTORS[key]) if key in data.paired else ""},
        comparisons=comparisons_section(data),
        checks=quick_checks(data),
        sentences=sentences(data),
        config=_fields(data.config),
        results=_fields(data.results),
        titles=[title for title in _TITLES if title[0] not in _left_out(data)],
        label_names=data.label_names,
        script=_trusted(script),
        # The browser runs this script and no other, whatever a name in the data contains.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        style=_trusted(Path(__file__).with_name("style.css").read_text(encoding="utf-8")),
        **{name: None if isinstance(content, str) else content for name, content in sections.items()},
        not_shown={name: content for name, content in sections.items() if isinstance(content, str)},
    )


def _left_out(data: ReportData) -> tuple[str, ...]:
    """The sections for other kinds of labels."""
    if data.label_names:
        return (*_OF_ONE_CLASS, *_OF_VALUES)
    if data.test_values is not None:
        return (*_OF_ONE_CLASS, *_OF_SEVERAL, *_OF_EQUAL_LABELS)
    return (*_OF_SEVERAL, *_OF_VALUES)


def _sections(data: ReportData) -> dict[str, dict[str, Any] | str]:
    """Each section as a dict for its template, or the reason why it is missing."""
    found = data.findings
    among_train = found.among_train if found else {}
    asked = {name: len(nearest.queries) for name, nearest in among_train.items()}
    return {
        "curves": curves_section(data),
        "similarity": similarity_section(data),
        "scatter": scatter_section(data),
        "labels": labels_section(data),
        "fitted_values": fitted_values_section(data),
        "confusion": confusion_section(data),
        "classes": classes_section(data),
        "mistakes": mistakes_section(data),
        "neighbors": neighbors_section(data, among_train.get("test")),
        "suspicious": suspicious_section(data, found.suspicious if found else None, asked),
        "duplicates": duplicates_section(data, found.duplicates if found else None),
        "sheet": sheet_section(data),
        "machine": machine_section(data),
        "wall_time": wall_time_section(data),  # last: it counts the time of the others
    }


def template(name: str, folder: Path | None = None) -> Any:
    """The template of this name in a folder (None: this one), with autoescape; it may include and import files of this one."""
    import jinja2

    here = Path(__file__).parent
    # Names and paths are untrusted: autoescape is on, and only the page's own script and style are marked safe.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder or here, here]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _trusted(text: str) -> Any:
    """Text of this package, which the template does not escape."""
    import markupsafe

    return markupsafe.Markup(text)


def _fields(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Nested fields as (dotted name, value) rows, in their order."""
    return [(clean(name), shown(value)) for name, value in flatten(tree).items()]


def _facts(data: ReportData) -> list[tuple[str, str]]:
    """The facts under the title, without unknown ones."""
    results = data.results
    count = len(data.label_names) or class_count(data)
    facts = [
        ("dataset", clean(data.dataset)),
        (label_things(data), f"{count}" if count else ""),
        ("test images", f"{whole(results.get('num_test')):,}" if whole(results.get("num_test")) else ""),
        ("seed", shown(results["seed"]) if "seed" in results else ""),
        ("device", shown(results["device"]) if "device" in results else ""),
        ("time", duration(results.get("seconds"))),
    ]
    return [(name, value) for name, value in facts if value]
