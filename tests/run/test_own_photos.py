"""A folder of photos in place of a recipe: what is read of it, what is refused, and what is kept when a run goes on."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from gensupcon_jax import main
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import build_backbone
from gensupcon_jax.run import own_photos, recipes
from gensupcon_jax.run.choices import Machine, Photos
from gensupcon_jax.weights.variables import named_tensors
from tests.encoded import write_folder
from tests.running import told

CPU = Machine("cpu")


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """my/trees with 4 classes of 6 images, from the folder above it."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "my", splits={"trees": 6})
    return tmp_path / "my" / "trees"


def chosen(options, folder, machine=CPU):
    config, made = own_photos.choose(options.config, options.given, None, machine, folder)
    return config, {choice.field: choice for choice in made}


def test_a_folder_is_the_recipe_photos_with_its_name(trees):
    for argument in ("my/trees", "my/trees/", "./my/trees"):
        options = main.parse([argument])
        assert options.config.dataset.name == "folder:my/trees"
        assert (options.workdir, options.config.model.name) == ("runs/trees", "resnet_small")
    by_field = main.parse(["photos", "--config.dataset.name=folder:my/trees"])
    assert (by_field.workdir, by_field.config) == ("runs/trees", options.config)
    os.chdir(trees)
    assert main.parse(["."]).workdir == "runs/trees"
    assert recipes.is_of_photos("photos")
    assert not recipes.is_of_photos("digits")


def test_a_recipe_takes_precedence_over_a_folder_of_its_name(trees):
    (trees.parent.parent / "digits").mkdir()
    assert main.parse(["digits"]).config.dataset.name == "digits"
    assert main.parse(["digits/"]).config.dataset.name == "folder:digits"


def test_what_the_choices_depend_on(trees, tmp_path):
    found = own_photos.read_photos(main.parse(["my/trees"]).config)
    assert found == Photos(num_images=24, num_classes=4, side=20, lacks=("test", "validation"))
    squares = write_folder(tmp_path / "squares", sizes=((24, 24),))
    assert own_photos.read_photos(main.parse([str(squares)]).config).square == 24
    own = write_folder(tmp_path / "own", splits={"train": 4, "validation": 2})
    found = own_photos.read_photos(main.parse([str(own)]).config)
    assert (found.num_images, found.lacks) == (16, ("validation",))  # the validation folder is the test split


def test_what_is_given_wins_and_is_shown(trees, tmp_path):
    options = main.parse(["my/trees", "--config.batch_size=4", "--config.dataset.image_size=16"])
    config, made = chosen(options, tmp_path / "runs" / "trees")
    assert (config.batch_size, config.dataset.image_size) == (4, 16)
    table = own_photos.choices_table([*made.values()], "folder:my/trees", CPU).splitlines()
    assert table[0] == "chosen for folder:my/trees on 1 x cpu; --config.FIELD=VALUE takes another value:"
    assert ["batch_size", "4", "given"] in [line.split() for line in table]
    rate = next(line.split() for line in table if line.split()[0] == "optimizer.learning_rate")
    assert rate[:3] == ["optimizer.learning_rate", "0.007812", "0.5"]


def begun(folder, config):
    """The workdir of a run with this config on the 24 images of `trees`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "dataset.json").write_text(json.dumps({"num_train": 15, "num_validation": 4, "num_test": 5}))


def test_a_run_that_has_begun_keeps_its_choices_when_its_folder_changes(trees, tmp_path):
    options = main.parse(["my/trees"])
    folder = tmp_path / "runs" / "trees"
    config, _ = chosen(options, folder)
    begun(folder, config)
    for number in range(40):  # the folder grows: other choices, for a run that begins
        (trees / "ash" / f"more{number}.jpg").write_bytes((trees / "ash" / "000.jpg").read_bytes())
    again, made = chosen(options, folder)
    assert again == config
    assert made["batch_size"].why == f"as the run in {folder} began"
    assert chosen(options, tmp_path / "runs" / "new")[0] != config


def test_what_was_given_to_a_run_before_is_not_taken_over(trees, tmp_path):
    folder = tmp_path / "runs" / "trees"
    config, _ = chosen(main.parse(["my/trees", "--config.epochs=4"]), folder)
    begun(folder, config)
    again, made = chosen(main.parse(["my/trees"]), folder)
    assert (config.epochs, again.epochs, made["epochs"].value) == (
        4.0,
        200.0,
        200.0,
    )  # the check of the workdir reports it


def test_a_folder_without_class_folders_is_trained_without_labels(trees, tmp_path):
    for path in list(trees.rglob("*.*")):
        path.rename(trees / f"{path.parent.name}{path.name}")
    for path in list(trees.iterdir()):
        if path.is_dir():
            path.rmdir()
    config, made = chosen(main.parse(["my/trees"]), tmp_path)
    assert "dataset.validation_fraction" not in made and made["dataset.test_fraction"].value == 0.2
    assert own_photos.read_photos(config) == Photos(24, 1, 20, ("test",))


def test_the_recipe_with_another_source_chooses_nothing(tmp_path):
    options = main.parse(["photos", "--config.dataset.name=digits"])
    config, made = chosen(options, tmp_path)
    assert (config, made) == (options.config, {})
    assert "nothing is chosen" in own_photos.choices_table([], "digits", CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: [path.unlink() for path in root.rglob("*.*")], "my/trees contains no images (no files); allowed: .jpg"),
        (
            lambda root: [shutil.rmtree(root / name) for name in ("ash", "birch", "cedar")],
            "my/trees contains 1 class folder, date; allowed: 2 or more",
        ),
        (
            lambda root: [path.unlink() for path in root.rglob("00[3-5].*")],
            "my/trees has classes of too few images: ash has 3, birch has 3, cedar has 3, and 1 more; allowed: 4 or more per "
            "class (2 to train, 1 for test, 1 for validation); add images, or remove the class folder",
        ),
        (
            lambda root: [path.write_bytes(b"nothing") for path in root.rglob("*.*")],
            "none of the 24 images in my/trees can be decoded, first: ",
        ),
        (
            lambda root: [(root / name).write_text("{}") for name in ("config.json", "dataset.json")],
            "my/trees is the workdir of a run, not a folder of images; to resume the run, start it with its own command",
        ),
    ],
    ids=["empty", "one class", "few", "damaged", "a workdir"],
)  # fmt: skip
def test_a_folder_that_cannot_be_trained_on_is_one_line(trees, tmp_path, change, message):
    change(trees)
    with pytest.raises(UserError) as error:
        chosen(main.parse(["my/trees"]), tmp_path / "runs" / "trees")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs" / "trees").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my/forest"], "--config is my/forest, which is not a file or a folder; allowed: a folder of images, "
                        "<folder>/<class>/<image>, or a recipe, for example --config digits"),
        (["my/trees", "--config.dataset.name=digits"], "both the folder my/trees and --config.dataset.name are given; leave one "
                                                       "of them out"),
        (["my/trees", "--weights=a", "--config.model.weights=b"], "both --weights and --config.model.weights are given; leave "
                                                                  "one of them out"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(trees, capfd, arguments, message):
    assert told(capfd, "train", *arguments) == (1, "", f"error: {message}\n")


def test_the_architecture_of_given_weights(trees, tmp_path):
    backbone = build_backbone(name="resnet18", image_size=32, width=8, stem="cifar")
    variables = backbone.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    variables = {name: {"backbone": jax.tree.map(np.asarray, tree)} for name, tree in variables.items()}
    safetensors.numpy.save_file(named_tensors(variables), tmp_path / "r18.safetensors")
    start = own_photos.read_start("r18.safetensors")
    assert (start.fields, start.image_size) == ({"name": "resnet18", "stem": "cifar", "width": 8}, None)
    options = main.parse(["my/trees", "--weights", "r18.safetensors", "--config.model.width=16"])
    assert options.config.model.weights == "r18.safetensors"
    config, _ = own_photos.choose(options.config, options.given, start, CPU, tmp_path / "run")
    assert (config.model.name, config.model.stem, config.model.width) == ("resnet18", "cifar", 16)
    config, fields = own_photos.with_fields_of(main.parse(["digits"]).config, frozenset(), start)
    assert (config.model.name, config.model.width) == ("resnet18", 8)
    assert fields == {"model.name": "resnet18", "model.stem": "cifar", "model.width": 8}
    with pytest.raises(
        UserError, match=r"^--weights: nowhere.safetensors does not exist; allowed: the workdir of a run, or"
    ):
        own_photos.read_start("nowhere.safetensors")


@pytest.mark.slow
def test_photos_are_trained_on_by_one_command_that_resumes(trees, tmp_path, capfd):
    short = ["--config.steps=2", "--config.model.width=4", "--config.evaluate.probe_penalties=(0.1,)"]
    status, printed, said = told(capfd, "train", "my/trees", *short)
    assert status == 0, said
    assert "chosen for folder:my/trees on " in said
    assert "test accuracy on 5 images of folder:my/trees" in printed
    results = json.loads((tmp_path / "runs/trees/results.json").read_text())
    assert (results["num_train"], results["num_validation"], results["num_test"]) == (15, 4, 5)
    again = told(capfd, "train", "my/trees", *short)
    assert again[:2] == (0, printed)
    (trees / "ash" / "more.jpg").write_bytes((trees / "ash" / "000.jpg").read_bytes())
    status, _, said = told(capfd, "train", "my/trees", *short)
    assert status == 1
    assert "contains a run with different data: " in said
    assert "num_train (15 there, 16 now)" in said


def write_list(trees, *, unlabeled=0, split=""):
    """my/trees.csv with the 24 images; of the first ones the label is left out."""
    files = sorted(path.relative_to(trees.parent) for path in trees.rglob("*.*"))
    lines = [f"{path.as_posix()},{'' if n < unlabeled else path.parts[1]}{split}" for n, path in enumerate(files)]
    (trees.parent / "trees.csv").write_text("\n".join([f"path,label{',split' * bool(split)}", *lines]))


def test_a_list_is_the_recipe_photos_with_its_name(trees):
    write_list(trees)
    for argument, source in (("my/trees.csv", "csv:my/trees.csv"), ("csv:my/trees.csv", "csv:my/trees.csv")):
        options = main.parse([argument])
        assert (options.config.dataset.name, options.workdir) == (source, "runs/trees")
        assert recipes.is_of_photos(argument)
    with pytest.raises(
        UserError, match=r"--config is my/none.csv, which is not a file; allowed: a list of images \(.csv, "
    ):
        main.parse(["my/none.csv"])
    with pytest.raises(UserError, match=r"both the list my/trees.csv and --config.dataset.name are given"):
        main.parse(["my/trees.csv", "--config.dataset.name=digits"])


def test_what_the_choices_of_a_list_depend_on(trees, tmp_path):
    write_list(trees)
    options = main.parse(["my/trees.csv"])
    found = own_photos.read_photos(options.config)
    assert found == Photos(num_images=24, num_classes=4, side=20, lacks=("test", "validation"), place="split")
    _, made = chosen(options, tmp_path / "runs" / "trees")
    assert made["dataset.test_fraction"].why == "5 of 24 photos; no split test"
    write_list(trees, unlabeled=2)
    found = own_photos.read_photos(options.config)
    assert (found.num_images, found.num_unlabeled) == (24, 2)
    write_list(trees, unlabeled=3)
    few = r"classes of too few images: ash has 3; allowed: 4 or more per class .*, or remove the rows of the class"
    with pytest.raises(UserError, match=few):
        own_photos.read_photos(options.config)
