"""The pages name only what is there: files, tests, tables, make targets; their links lead somewhere, their examples run."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import yaml

import gensupcon_jax
from docs import ledger
from gensupcon_jax import __main__, losses
from gensupcon_jax.configs import fields
from gensupcon_jax.data import datasets
from gensupcon_jax.evaluation import measures
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.method import optimizer
from gensupcon_jax.method.optimizer import OptimizerFields
from gensupcon_jax.store import writers
from tests import ROOT
from tests.test_house import wings
from tests.tiny import tiny_config

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAKE_TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
LARGEST_PICTURE = 150 * 1024


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def prose(path):
    """Without code."""
    return re.sub(r"```.*?```|`[^`\n]*`|^    .*?$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_links_and_pictures_lead_to_files_that_are_there():
    links = [(path, link) for path in PAGES for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose(path))]
    inside = [(path, link) for path, link in links if not link.startswith("https://")]
    assert len(inside) > 30
    assert [(path.name, link) for path, link in inside if not (path.parent / link).exists()] == []


def test_files_that_are_named_are_there():
    pattern = r"`((?:gensupcon_jax|tests|configs|docs|launch|benchmarks|\.github)/[\w./-]+)`"
    named = {(path.name, name) for path in PAGES for name in re.findall(pattern, path.read_text())}
    assert len(named) >= 20
    assert sorted(pair for pair in named if not (ROOT / pair[1]).exists()) == []


def test_every_page_stands_in_the_navigation():
    class Loader(yaml.SafeLoader):
        pass

    navigation = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]
    entries = [entry for section in navigation for entries in section.values() for entry in entries]
    listed = {next(iter(entry.values())) if isinstance(entry, dict) else entry for entry in entries}
    assert listed == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


def test_pictures_are_small():
    pictures = [*(ROOT / "docs").rglob("*.png")]
    assert len(pictures) >= 4
    assert [path.name for path in pictures if path.stat().st_size > LARGEST_PICTURE] == []


def test_make_targets_that_are_named_exist():
    named = {(path.name, target) for path in PAGES for target in re.findall(r"`make ([a-z][a-z-]+)`", path.read_text())}
    assert len(named) >= 8
    assert sorted(name for name in named if name[1] not in MAKE_TARGETS) == []


def test_the_commands_on_the_page_are_those_that_help_prints(capsys):
    __main__.main(["--help"])
    printed = capsys.readouterr().out
    assert (
        "".join(f"    {line}".rstrip() + "\n" for line in printed.splitlines())
        in (ROOT / "docs/install.md").read_text()
    )


def test_every_public_name_stands_in_the_api_reference():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs/api").glob("*.md"))
    names = [name for name in gensupcon_jax.__all__ if not name.startswith("__")]
    assert len(names) >= 6
    assert [name for name in names if f"`gsc.{name}`" not in pages] == []


def test_the_api_reference_documents_what_is_there():
    for path in (ROOT / "docs/api").glob("*.md"):
        for identifier in re.findall(r"^::: ([\w.]+)$", path.read_text(), re.MULTILINE):
            module, _, name = identifier.rpartition(".")
            file = ROOT / (module.replace(".", "/") + ".py")
            if not file.exists():  # the identifier is a module itself
                assert (ROOT / identifier.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / identifier.replace(".", "/") / "__init__.py"
                ).exists(), identifier
                continue
            assert name in defined_names(file), identifier


def defined_names(file):
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_contributing_names_tables_that_are_there():
    tables = re.findall(r"Table: `(\w+)` in `([\w./]+)`", CONTRIBUTING)
    assert len(tables) >= 3
    assert [table for table, path in tables if table not in defined_names(ROOT / path)] == []


def test_contributing_shows_every_folder_of_the_package_and_the_order_of_imports():
    folders = {path.parent.name for path in (ROOT / "gensupcon_jax").glob("*/__init__.py")} - {"configs"}
    assert folders == set(re.findall(r"^      (\w+)/ ", CONTRIBUTING, re.MULTILINE))
    (block,) = re.findall(r"never from above:\n\n((?:    .+\n)+)", CONTRIBUTING)
    level = {name: number for number, line in enumerate(block.splitlines()) for name in re.findall(r"\w+", line)}
    assert folders <= set(level)
    upward = [
        (name, below)
        for name, imported in wings().items()
        for below in imported
        if name in level and below in level and level[below] <= level[name]
    ]
    assert upward == []


def test_an_encoder_as_contributing_adds_it(monkeypatch):
    from gensupcon_jax import models

    monkeypatch.setattr(models, "ENCODERS", models.ENCODERS)
    monkeypatch.setitem(models.ENCODERS, "two_layers", None)  # taken out again afterwards
    exec(block_with("ENCODERS["), {})
    model = models.build_model(name="two_layers", image_size=8, width=5, embedding_dim=3)
    images = jnp.ones((2, 8, 8, 1))
    output = model.apply(model.init(jax.random.key(0), images, train=False), images, train=False)
    assert output.features.shape == (2, 5)
    np.testing.assert_allclose(jnp.linalg.norm(output.embeddings, axis=1), 1.0, rtol=1e-6)


def test_a_config_field_as_contributing_adds_it(monkeypatch):
    monkeypatch.setitem(fields.FIELDS, "loss.margin", None)  # taken out again afterwards
    exec(block_with("FIELDS["), {})
    added = fields.FIELDS["loss.margin"]
    assert added.allowed.allows(0.1)
    assert not added.allowed.allows(-1.0)
    assert (
        "| `loss.margin` | `0.1` | a number above 0 | distance that different classes keep |" in ledger.field_tables()
    )


def test_an_evaluation_as_contributing_adds_it(monkeypatch):
    monkeypatch.setitem(measures.MEASURES, "feature_norm", None)  # taken out again afterwards
    exec(block_with("MEASURES["), {})
    features = Features(np.array([[3.0, 4.0], [0.0, 1.0]], np.float32), np.array([0, 1]))
    assert measures.measured(("feature_norm",), features) == {"feature_norm": 3.0}


def test_a_metrics_writer_as_contributing_adds_it(monkeypatch, tmp_path):
    monkeypatch.setitem(writers.WRITERS, "loss_file", None)  # taken out again afterwards
    exec(block_with("WRITERS["), {})
    writer = writers.WRITERS["loss_file"](writers.WriterSettings(tmp_path, {}, ()))
    writer.write(1, {"train/loss": 2.5, "train/accuracy": 0.5})
    writer.write(2, {"knn/top1": 99.0})
    writer.close()
    assert (tmp_path / "loss.txt").read_text() == "1 2.5\n"


def test_an_optimizer_as_contributing_adds_it(monkeypatch):
    monkeypatch.setitem(optimizer.OPTIMIZERS, "lion", None)  # taken out again afterwards
    exec(block_with("OPTIMIZERS["), {})
    fields = {name: value for name, value in tiny_config().optimizer.items() if name in OptimizerFields._fields}
    tx = optimizer.build_optimizer(optax.constant_schedule(0.5), name="lion", **fields | {"weight_decay": 0.0})
    parameters = {"weight": jnp.array([1.0, 1.0])}
    updates, _ = tx.update({"weight": jnp.array([3.0, -4.0])}, tx.init(parameters), parameters)
    np.testing.assert_array_equal(updates["weight"], [-0.5, 0.5])  # the sign of the gradient, times the rate


def test_a_source_as_contributing_adds_it(monkeypatch):
    monkeypatch.setitem(datasets.SOURCES, "stripes:<classes>", None)
    exec(block_with("SOURCES["), {})
    dataset = datasets.load("stripes:2")
    assert (dataset.name, dataset.num_classes, dataset.train.images.shape[1:]) == ("stripes", 2, (8, 8, 1))


def test_a_similarity_of_labels_as_contributing_adds_it(monkeypatch):
    monkeypatch.setitem(losses.LABEL_SIMILARITIES, "overlap", None)
    exec(block_with("LABEL_SIMILARITIES["), {})
    found = losses.label_similarity(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.5, 0.5]]), name="overlap")
    np.testing.assert_allclose(found, [[0.5], [0.5]])


def block_with(text):
    (block,) = [block for block in python_blocks(CONTRIBUTING) if text in block]
    return block


def test_the_training_loop_around_the_loss():
    names = {}
    (block,) = [block for block in python_blocks((ROOT / "docs/api/losses.md").read_text()) if "optax" in block]
    exec(block, names)
    assert names["optax"] is optax
    first = names["loss_fn"](0.1 * np.ones((20, 8), np.float32), names["images"], names["labels"])
    assert float(names["loss"]) < float(first) - 0.5


def test_no_placeholder_is_left():
    words = r"\b(TODO|FIXME|XXX|[A-Z]+_(?:HELP|OUTPUT|TIME|ORDER)|OUTPUT|SPREAD)\b"
    assert [(path.name, found) for path in PAGES for found in re.findall(words, prose(path))] == []


def test_the_rows_of_plan_have_the_names_that_plan_prints():
    table = (ROOT / "docs/plan.md").read_text().split("verdict")[1].split("compiled (gpu")[0]
    labels = [re.split(r"  +", line.strip())[0] for line in table.splitlines()[1:] if line.startswith("    ")]
    source = "".join(path.read_text() for path in (ROOT / "gensupcon_jax/plan").glob("*.py"))
    assert len(labels) >= 14
    named = [label for label in labels if not re.match(r"all-|HBM: |compute: |interconnect: |by the", label)]
    assert [label for label in named if label not in source] == []


def test_the_citation_has_what_a_citation_needs():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version", "license"} <= set(citation)
    assert citation["version"] == gensupcon_jax.__version__
    paper = citation["preferred-citation"]
    assert paper["title"] == "Generalized Supervised Contrastive Learning"
    assert paper["doi"] == "10.48550/arXiv.2206.00384"
    assert [author["family-names"] for author in paper["authors"]] == ["Kim", "Lee", "Chang", "Park"]


def test_ci_and_pre_commit_call_make_targets_that_exist():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    commands += [hook["entry"] for hook in repository["hooks"]]
    called = [command.removeprefix("make ") for command in commands]
    assert set(called) == {"lint", "docs", "test", "quick", "test-timm", "browser"}
    assert set(called) <= set(MAKE_TARGETS)


def test_the_changelog_has_the_version():
    versions = re.findall(r"^## (\d+\.\d+\.\d+)( \(unreleased\)| - \d{4}-\d\d-\d\d)?$", changelog(), re.MULTILINE)
    assert gensupcon_jax.__version__ in [version for version, _ in versions]
    assert versions[0][0] > gensupcon_jax.__version__ or versions[0][1] != " (unreleased)"


def changelog():
    return (ROOT / "CHANGELOG.md").read_text()
