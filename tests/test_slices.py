"""Without TensorFlow everything works except tfds: data sets and encoded images, whose errors name the extra."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
from PIL import Image

from tests import QUICK_COMPILES, ROOT
from tests.running import command

BLOCKED = ROOT / "tests" / "without_tensorflow"
NAMED = 'pip install "gensupcon_jax[tensorflow]" installs it'


def without_tensorflow(*arguments, cwd=ROOT):
    """(status, stdout, stderr) of Python with these arguments, with the packages of the extra missing."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{BLOCKED}:{ROOT}"}
    environment["XLA_FLAGS"] = QUICK_COMPILES
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on the digits, and its output."""
    folder = tmp_path_factory.mktemp("core") / "run"
    status, stdout, said = without_tensorflow(*command(folder, {"steps": 4})[1:])
    assert status == 0, said
    return folder, stdout, said


def test_tensorflow_is_missing_in_these_tests():
    program = (
        "import importlib.metadata, importlib.util, sys\n"
        "names = ['tensorflow', 'tensorflow_datasets', 'tensorboard', 'clu', 'cv2', 'array_record']\n"
        "print([importlib.util.find_spec(name) for name in names])\n"
        "print(sorted(each.metadata['Name'] for each in importlib.metadata.distributions()\n"
        "             if each.metadata['Name'].startswith(('tensor', 'clu', 'opencv'))))"
    )
    status, stdout, said = without_tensorflow("-c", program)
    assert (status, stdout) == (0, "[None, None, None, None, None, None]\n['tensorstore']\n"), said


@pytest.mark.slow
def test_the_digits_run_to_their_report(run):
    folder, stdout, _ = run
    assert "linear probe on frozen features" in stdout
    assert "k-NN on frozen features" in stdout
    assert (folder / "report.html").stat().st_size > 30_000
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
    assert {"jax", "flax", "orbax-checkpoint"} <= set(json.loads((folder / "results.json").read_text())["versions"])


@pytest.mark.slow
def test_tensorboard_events_are_left_out_with_one_sentence(run):
    folder, _, said = run
    sentence = (
        "TensorBoard events are left out, since the extra `tensorflow` is not installed "
        '(pip install "gensupcon_jax[tensorflow]"); '
        "metrics.jsonl has every row"
    )
    assert said.splitlines().count(sentence) == 1
    assert not (folder / "tensorboard").exists()


@pytest.mark.slow
def test_a_probe_on_arrays_the_exported_weights_and_the_losses(run, tmp_path):
    status, stdout, said = without_tensorflow("-c", _FROM_PYTHON, str(run[0]), str(tmp_path))
    assert status == 0, said
    assert stdout.splitlines()[-1] == "done without TensorFlow"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "encoder.safetensors", "encoder.stablehlo", "encoder.stablehlo.json", "probe",
    ]  # fmt: skip


@pytest.mark.slow
def test_an_encoder_embeds_arrays_and_names_the_extra_for_files(run, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "gray.png")
    status, stdout, said = without_tensorflow("-c", _ENCODER, str(run[0]), str(tmp_path / "gray.png"))
    assert status == 0, said
    embedded, of_arrays, of_files = stdout.splitlines()
    assert embedded == "(2, 16) probe"
    assert of_arrays.startswith(
        "an image is 9 x 9, and the encoder takes 8 x 8, which is read with the extra `tensorflow`"
    )
    assert "gray.png is an image file, which is read with the extra `tensorflow`" in of_files
    assert of_files.count(NAMED) == 1


_ENCODER = """
import sys
import numpy as np
import gensupcon_jax as gsc

encoder = gsc.Encoder.load(sys.argv[1])
images = np.zeros((2, 8, 8), np.uint8)
print(encoder.embed(images).shape, encoder.predict(images).predictor)
for others in (np.zeros((1, 9, 9), np.uint8), sys.argv[2]):
    try:
        encoder.embed(others)
    except gsc.UserError as error:
        print(error)
"""


_FROM_PYTHON = """
import sys
from pathlib import Path
import jax, numpy as np
from gensupcon_jax.configs import digits
from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.losses import generalized_contrastive_loss
from gensupcon_jax.paths import as_path
from gensupcon_jax.run.train import train_and_evaluate
from gensupcon_jax.weights.export import export
from gensupcon_jax.weights.show import show

finished, scratch = map(Path, sys.argv[1:])
rng = np.random.default_rng(0)

features = rng.normal(size=(8, 4)).astype(np.float32)
features /= np.linalg.norm(features, axis=1, keepdims=True)
labels = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
assert np.isfinite(generalized_contrastive_loss(features, labels, temperature=0.1).loss).all()

config = digits.get_config()
fields = {
    "objective": "linear_probe", "augment.num_views": 1, "mix.kind": "none", "steps": 2, "batch_size": 16, "log_steps": 1,
    "model.width": 4, "model.embedding_dim": 8, "model.weights": str(finished), "dataset.name": "arrays",
    "evaluate.probe_penalties": (0.1,),
}
config.update_from_flattened_dict(fields)
images = rng.integers(0, 256, (120, 8, 8, 1), np.uint8)
results = train_and_evaluate(config, scratch / "probe", from_arrays(images, np.arange(120) % 3))
assert results["dataset"] == "arrays" and "classifier_top1" in results and "knn_top1" in results

for name in ("encoder.safetensors", "encoder.stablehlo"):
    export(as_path(finished), as_path(scratch / name))
print(show(as_path(scratch / "encoder.safetensors")))
found = jax.export.deserialize(bytearray((scratch / "encoder.stablehlo").read_bytes())).call(images[:4])
assert found.shape[0] == 4
ABSENT = ("tensorflow", "tensorflow_datasets", "clu", "cv2", "simplejpeg")
assert not [name for name in sys.modules if name.partition(".")[0] in ABSENT]
print("done without TensorFlow")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("module", "flag"), [("gensupcon_jax.plan", "topology"), ("gensupcon_jax.weights", "export")])
def test_the_other_commands_print_their_help(module, flag):
    _, stdout, said = without_tensorflow("-m", module, "--help")
    assert flag in stdout
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("module", ["gensupcon_jax.main", "gensupcon_jax.prepare"])
@pytest.mark.parametrize("name", ["tfds:fashion_mnist", "folder:there/is/none"])
def test_a_missing_tensorflow_is_an_error_that_names_the_extra(tmp_path, module, name):
    arguments = ["--config", "configs/digits.py", f"--config.dataset.name={name}", f"--workdir={tmp_path / 'run'}"]
    status, stdout, said = without_tensorflow("-m", module, *arguments)
    assert (status, stdout) == (1, "")
    assert said == (
        f"error: dataset.name is {name!r}, which is read with the extra `tensorflow` (tensorflow, tensorflow_datasets, "
        f"tensorboard, clu, cv2, simplejpeg not installed); {NAMED}; allowed without it: digits, arrays (from Python)\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_package_declares_what_brings_tensorflow_in_the_extra_alone():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {re.match(r"[\w-]+", line)[0] for line in declared["dependencies"]}
    extra = {re.match(r"[\w-]+", line)[0] for line in declared["optional-dependencies"]["tensorflow"]}
    brings_tensorflow = {"tensorflow", "tensorflow-cpu", "tensorflow-datasets", "tensorboard", "clu"}
    assert brings_tensorflow <= extra
    assert not brings_tensorflow & core


def test_every_extra_that_a_message_or_a_page_names_is_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [path.read_text() for place in ("gensupcon_jax", "docs", "launch") for path in files_of(ROOT / place)]
    named = re.findall(
        r"(?:gensupcon_jax|pip install \"\.)\[([\w,]+)\]", "\n".join([*texts, (ROOT / "README.md").read_text()])
    )
    named += re.findall(r"extra `(\w+)`", "\n".join(texts))
    table = (ROOT / "docs/install.md").read_text().split("| extra |")[1].split("\n\n")[0]
    listed = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert {extra for names in named for extra in names.split(",")} >= {"tensorflow", "onnx", "parquet", "plan", "gcs"}
    assert {extra for names in named for extra in names.split(",")} <= set(declared)
    assert set(listed) == set(declared) - {"gpu"}  # another name of cuda12


def files_of(folder):
    return [path for path in folder.rglob("*") if path.suffix in (".py", ".md", ".sh", ".ipynb")]


def test_requirements_txt_is_all_of_it_and_is_written_from_pyproject():
    written = subprocess.run(
        [sys.executable, ".ci/requirements.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ROOT / "requirements.txt").read_text() == written.stdout
    for fixed in ("jax", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "ml-collections", "clu"):
        assert re.search(rf"^{fixed}>=", written.stdout, re.MULTILINE), fixed
