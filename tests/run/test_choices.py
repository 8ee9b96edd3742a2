"""What is chosen for a folder of photos: by the photos, the kind of device, and what is given."""

import pytest

from gensupcon_jax.configs import common, photos
from gensupcon_jax.run.choices import GIVEN, Machine, Photos, StartingWeights, choices
from gensupcon_jax.run.config_check import check_combinations, check_config

CPU, GPU = Machine("cpu"), Machine("gpu")
THREE_HUNDRED = Photos(num_images=300, num_classes=10, side=372)
FILE = StartingWeights("r50.safetensors", {"name": "resnet50", "stem": "imagenet", "width": 64}, None)


def values(found=THREE_HUNDRED, machine=CPU, given=None, start=None):
    return {choice.field: choice.value for choice in choices(found, machine, given or {}, start)}


def reasons(found=THREE_HUNDRED, machine=CPU, given=None, start=None):
    return {choice.field: choice.why for choice in choices(found, machine, given or {}, start)}


def test_three_hundred_photos_on_a_cpu():
    assert values() == {
        "dataset.validation_fraction": 0.1,
        "dataset.test_fraction": 0.2,
        "dataset.image_size": 64,
        "model.name": "resnet_small",
        "model.width": 32,
        "model.stem": "imagenet",
        "batch_size": 64,
        "mix.kind": "none",
        "optimizer.learning_rate": 0.125,
        "epochs": 80.0,
        "optimizer.warmup_epochs": 5.0,
        "evaluate.every_epochs": 20.0,
        "checkpoint.every_epochs": 20.0,
    }
    assert reasons()["dataset.image_size"] == "as much as a CPU trains in minutes; half of the photos have 372 or more"
    assert reasons()["optimizer.learning_rate"] == "0.5 x batch / 256"


def test_they_are_the_values_of_the_recipe():
    recipe = {name: value for name, (value, _) in photos.changes().items()}
    chosen = values()
    assert {name: value for name, value in chosen.items() if recipe.get(name, value) != value} == {}


def test_an_accelerator_gets_resnet50_and_larger_images():
    found = values(Photos(20_000, 30, 500), GPU)
    assert (found["model.name"], found["model.stem"], found["model.width"]) == ("resnet50", "imagenet", None)
    assert (found["dataset.image_size"], found["model.dtype"]) == (224, "bfloat16")
    assert (found["batch_size"], found["optimizer.learning_rate"], found["epochs"]) == (256, 0.125, 100.0)
    assert (found["mix.kind"], found["mix.block"]) == ("mixup_cutmix", 32)


@pytest.mark.parametrize(
    ("side", "size", "stem"), [(20, 32, "cifar"), (63, 32, "cifar"), (64, 64, "imagenet"), (4000, 64, "imagenet")]
)
def test_no_map_on_a_cpu_is_smaller_than_four_pixels(side, size, stem):
    found = values(Photos(300, 10, side))  # of several shapes
    assert (found["dataset.image_size"], found["model.stem"]) == (size, stem)
    assert size / {"cifar": 1, "imagenet": 4}[stem] / 4 >= 4  # three stages: the last halves twice


@pytest.mark.parametrize(
    ("num_images", "batch", "epochs"),
    [(12, 2, 200.0), (60, 8, 200.0), (300, 64, 80.0), (1000, 64, 24.0), (9000, 64, 20.0)],
)
def test_batch_and_length_follow_from_the_number_of_photos(num_images, batch, epochs):
    found = values(Photos(num_images, 2, 300))
    assert (found["batch_size"], found["epochs"]) == (batch, epochs)
    assert values(Photos(num_images, 2, 300), given={"mix.kind": "cutmix"})["mix.block"] == min(32, batch)
    assert found["optimizer.learning_rate"] == pytest.approx(0.5 * batch / 256, rel=1e-3)


def test_a_few_photos_of_many_classes_are_cut_so_that_each_class_is_evaluated():
    found = values(Photos(24, 4, 300))
    assert round(24 * found["dataset.validation_fraction"]) == 4
    assert round(24 * found["dataset.test_fraction"]) == 5
    own = values(Photos(24, 4, 300, lacks=()))
    assert not any(name.endswith("_fraction") for name in own)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("num_images", [60, 300, 5000])
def test_every_choice_passes_the_checks(num_images, devices):
    for kind in ("cpu", "tpu"):
        machine = Machine(kind, devices)
        config = common.changed(photos.changes())
        with config.ignore_type():
            config.update_from_flattened_dict(values(Photos(num_images, 3, 300), machine))
        check_config(config)
        check_combinations(config, num_train_images=round(0.7 * num_images), num_devices=devices)
    assert values(Photos(24, 4, 20), Machine("cpu", 8))["batch_size"] == 8
    assert values(Photos(24, 4, 20), Machine("tpu", 8))["mix.kind"] == "none"


def test_what_is_given_is_used_and_decides_the_rest():
    given = {"batch_size": 24, "epochs": 8.0, "model.name": "resnet18", "dataset.image_size": 128}
    found, why = values(given=given), reasons(given=given)
    assert {name: found[name] for name in given} == given
    assert all(why[name] == GIVEN for name in given)
    assert found["optimizer.learning_rate"] == pytest.approx(0.5 * 24 / 256, rel=1e-3)
    assert values(given=given | {"mix.kind": "mixup"})["mix.block"] == 24
    assert (found["mix.kind"], found["optimizer.warmup_epochs"], found["evaluate.every_epochs"]) == ("none", 0.5, 2.0)
    assert (found["model.width"], found["model.stem"]) == (None, "auto")  # not those of the small network
    assert values(given={"optimizer.learning_rate": 3.0})["optimizer.learning_rate"] == 3.0


def test_a_warm_up_starts_below_its_peak():
    assert "optimizer.warmup_learning_rate" not in values()
    assert values(given={"optimizer.learning_rate": 0.02})["optimizer.warmup_learning_rate"] == 0.002
    assert (
        values(Photos(12, 2, 300))["optimizer.warmup_learning_rate"]
        < values(Photos(12, 2, 300))["optimizer.learning_rate"]
    )


def test_a_length_in_steps_or_images_takes_the_place_of_epochs():
    for unit in ("steps", "images"):
        assert not [name for name in values(given={unit: 100}) if "epochs" in name]
    assert "optimizer.warmup_epochs" not in values(given={"optimizer.warmup_steps": 3})
    assert "evaluate.every_epochs" not in values(given={"evaluate.every_images": 300})


def test_given_weights_decide_the_network_and_move_slowly():
    found = values(start=FILE)
    assert (found["model.name"], found["model.stem"], found["model.width"]) == ("resnet50", "imagenet", 64)
    assert (found["dataset.image_size"], found["optimizer.learning_rate"], found["epochs"]) == (64, 0.0125, 20.0)
    assert reasons(start=FILE)["model.name"] == "that of r50.safetensors"
    of_run = StartingWeights("runs/a", {"name": "resnet_small", "stem": "cifar", "width": 8, "pool": "class"}, 48)
    assert values(start=of_run)["dataset.image_size"] == 48


def test_the_same_folder_gives_the_same_choices():
    assert choices(THREE_HUNDRED, CPU, {}) == choices(THREE_HUNDRED, CPU, {})


@pytest.mark.parametrize(("square", "size"), [(8, 8), (28, 28), (48, 48), (64, 64), (96, 64), (7, 32), (None, 32)])
def test_squares_of_one_size_keep_it_so_that_all_of_each_is_seen(square, size):
    photos = Photos(300, 10, square or 48, square=square)
    assert values(photos)["dataset.image_size"] == size
    assert values(photos._replace(square=200), GPU)["dataset.image_size"] == 200
