"""A teacher predicts exactly what its network predicts; an incompatible one is refused in one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors.numpy import save_file

from gensupcon_jax.cluster import sharding
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import DTYPES, Classifier, build_backbone
from gensupcon_jax.store.checkpoint import Checkpoints
from gensupcon_jax.value_bins import ValueBins
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights import teachers
from gensupcon_jax.weights.variables import named_tensors
from tests.tiny import tiny_config, tiny_dataset

SIZE, CLASSES = 8, 4
DATASET = tiny_dataset()  # gray, 4 classes
DESCRIPTION = DATASET.description()
STUDENT = {"student_mean": np.float32(DESCRIPTION["mean"]), "student_std": np.float32(DESCRIPTION["std"])}
COLOR = tiny_dataset(channels=3).description()
PIXELS = np.random.default_rng(0).random((16, SIZE, SIZE, 1)).astype(np.float32)
IMAGES = normalize(PIXELS, **{name.removeprefix("student_"): value for name, value in STUDENT.items()})


def network(num_channels=1, num_classes=CLASSES, seed=0, stem="cifar"):
    """A tiny network of our own, written down apart from teachers.py: its variables and its logits."""
    backbone = build_backbone(name="resnet_small", image_size=SIZE, width=4, stem=stem)
    classifier = Classifier(num_classes)
    images = jnp.asarray(np.random.default_rng(seed).random((1, SIZE, SIZE, num_channels)), jnp.float32)
    first = backbone.init(jax.random.key(seed), images, train=False)
    second = classifier.init(jax.random.key(seed + 1), jnp.zeros((1, backbone.feature_dim)))
    rng = np.random.default_rng(seed)  # running statistics that matter
    moved = jax.tree.map(lambda leaf: np.float32(leaf + 0.3 * rng.random(leaf.shape)), first["batch_stats"])
    variables = {
        "params": {"backbone": first["params"], "classifier": second["params"]},
        "batch_stats": {"backbone": moved},
    }

    def logits(images):
        features = backbone.apply({"params": first["params"], "batch_stats": moved}, images, train=False)
        return classifier.apply(second, features)

    return variables, logits


def load(kind, description=DESCRIPTION, **fields):
    return teachers.load_teacher(kind=kind, dataset_description=description, **fields)


def exported(path, function, shape, dtype=jnp.float32, **settings):
    """The file of an exported function; `b` in the shape is symbolic."""
    shape = jax.export.symbolic_shape(", ".join(map(str, shape)))
    path.write_bytes(jax.export.export(jax.jit(function), **settings)(jax.ShapeDtypeStruct(shape, dtype)).serialize())
    return path


def assert_equal_logits(teacher, logits_fn, images=IMAGES, tolerance=1e-6):
    found = jax.jit(teacher.logits_fn)(teacher.variables, images)
    np.testing.assert_allclose(found, jax.jit(logits_fn)(images), rtol=tolerance, atol=tolerance)


# The kinds


def test_no_teacher():
    assert load("none") is None


def test_callable_has_the_functions_logits():
    _, logits = network()
    teacher = load("callable", function=logits)
    assert_equal_logits(teacher, logits)
    assert (teacher.image_size, teacher.num_channels) == (SIZE, 1)
    np.testing.assert_allclose(teacher.mean, DESCRIPTION["mean"], rtol=1e-6)


@pytest.mark.parametrize("batch", ["b", 16, 5, 1], ids=["symbolic", "exact", "padded", "in a loop"])
def test_stablehlo_has_the_exported_functions_logits(tmp_path, batch):
    _, logits = network()
    teacher = load("stablehlo", path=exported(tmp_path / "teacher", logits, (batch, SIZE, SIZE, 1)))
    assert_equal_logits(teacher, logits)
    assert teacher.image_size == SIZE


def test_stablehlo_with_channels_first_bfloat16_and_a_nested_signature(tmp_path):
    _, logits = network(num_channels=3)

    def function(inputs):
        return {"logits": logits(inputs["images"].transpose(0, 2, 3, 1)).astype(jnp.bfloat16)}

    (batch,) = jax.export.symbolic_shape("b")
    inputs = {"images": jax.ShapeDtypeStruct((batch, 3, SIZE, SIZE), jnp.float32)}
    (tmp_path / "teacher").write_bytes(jax.export.export(jax.jit(function))(inputs).serialize())
    teacher = load("stablehlo", path=tmp_path / "teacher")
    color = jnp.asarray(np.random.default_rng(1).standard_normal((4, SIZE, SIZE, 3)), jnp.float32)
    assert_equal_logits(teacher, logits, color, tolerance=0.02)
    assert teacher.num_channels == 3


def test_stablehlo_of_any_size_takes_the_field_or_the_datas(tmp_path):
    path = exported(tmp_path / "teacher", lambda images: images.mean((1, 2)) @ jnp.ones((1, 4)), ("b", "s", "s", 1))
    assert load("stablehlo", path=path).image_size == SIZE
    assert load("stablehlo", path=path, image_size=12).image_size == 12


def write_run(folder, variables, *, earlier=None, **description):
    """A cross-entropy run of the tiny network, as far as a teacher needs one; earlier: the variables of its step 2, the best."""
    folder.mkdir()
    config = tiny_config(objective="cross_entropy")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "dataset.json").write_text(json.dumps(DESCRIPTION | description))
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    others, record = {"opt_state": {"trace": np.zeros(2, np.float32)}}, {"best": earlier and {"step": 2}}
    for step, saved in ((2, earlier), (3, variables)):
        if saved is not None:
            checkpoints.save(step, {"step": np.int32(step), **others, **saved}, record)
    checkpoints.close()
    return folder


def test_workdir_has_the_runs_logits_and_its_own_statistics(tmp_path):
    variables, logits = network()
    teacher = load("workdir", path=write_run(tmp_path / "run", variables, mean=[0.25], std=[0.5]))
    assert_equal_logits(teacher, logits)
    assert (teacher.mean.tolist(), teacher.std.tolist(), teacher.image_size) == ([0.25], [0.5], SIZE)
    np.testing.assert_allclose(seen_by(teacher), (PIXELS - 0.25) / 0.5, atol=1e-6)
    fields = load("workdir", path=tmp_path / "run", mean=(0.5,), std=(1,), image_size=6)
    assert (fields.mean.tolist(), fields.std.tolist(), fields.image_size) == ([0.5], [1], 6)


def test_a_step_of_a_workdir_teaches(tmp_path):
    (last, last_logits), (best, best_logits) = network(seed=0), network(seed=1)
    path = write_run(tmp_path / "run", last, earlier=best)
    for weights_step, step, logits in ((None, 3, last_logits), ("best", 2, best_logits), (2, 2, best_logits)):
        teacher = load("workdir", path=path, weights_step=weights_step)
        assert teacher.step == step
        assert_equal_logits(teacher, logits)
    with pytest.raises(UserError, match=r"^teacher.path: .*no checkpoint of step 5; .*steps 2 \(best\), 3$"):
        load("workdir", path=path, weights_step=5)


def test_workdir_keeps_only_what_it_needs(tmp_path):
    variables, logits = network()
    params = variables["params"] | {"head": {"output": {"bias": np.zeros(3, np.float32)}}}
    teacher = load("workdir", path=write_run(tmp_path / "run", variables | {"params": params}))
    assert_equal_logits(teacher, logits)
    assert set(teacher.variables["params"]) == {"backbone", "classifier"}
    jax.tree.map(np.testing.assert_array_equal, teacher.variables, variables)


def write_weights(path, variables, without=()):
    """A file in the names of timm; that these are right is shown against timm's own network in test_weights.py."""
    save_file({name: value for name, value in named_tensors(variables).items() if name not in without}, path)
    return path


@pytest.mark.parametrize(("num_channels", "stem"), [(3, "cifar"), (1, "cifar"), (3, "imagenet")])
def test_weights_have_the_logits_of_the_network_that_they_name(tmp_path, num_channels, stem):
    variables, logits = network(num_channels, stem=stem)
    path = write_weights(tmp_path / "teacher.safetensors", variables)
    teacher = load("weights", path=path, architecture="resnet_small")
    images = jnp.asarray(np.random.default_rng(1).standard_normal((4, SIZE, SIZE, num_channels)), jnp.float32)
    assert_equal_logits(teacher, logits, images)
    assert teacher.num_channels == num_channels
    np.testing.assert_allclose(teacher.mean, DESCRIPTION["mean"] * num_channels, rtol=1e-6)


def test_a_file_of_ours_says_its_mean_and_std(tmp_path):
    from gensupcon_jax.weights.export import export

    variables, _ = network()
    export(write_run(tmp_path / "run", variables, mean=[0.25], std=[0.5]), tmp_path / "teacher.safetensors")
    teacher = load("weights", path=tmp_path / "teacher.safetensors", architecture="resnet_small")
    assert (teacher.mean.tolist(), teacher.std.tolist()) == ([0.25], [0.5])


def test_weights_compute_in_the_given_dtype(tmp_path):
    variables, _ = network(3)
    path = write_weights(tmp_path / "teacher.safetensors", variables)
    images = jnp.asarray(np.random.default_rng(1).standard_normal((4, SIZE, SIZE, 3)), jnp.float32)
    exact, rough = (load("weights", path=path, architecture="resnet_small", dtype=name) for name in DTYPES)
    expected = np.asarray(exact.logits_fn(exact.variables, images))
    error = np.abs(np.asarray(rough.logits_fn(rough.variables, images)) - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.05  # bfloat16 has 8 digits of two
    assert exact.fingerprint == rough.fingerprint


# Inside the step: shard_map with its bookkeeping (check_vma), as train_step.py has it


def student_gradient(teacher, num_devices):
    """Probabilities of a batch over the devices, and the gradient of a replicated parameter that they weigh."""
    mesh = sharding.make_mesh(jax.devices()[:num_devices])

    def step(variables, parameters, images):
        def loss_fn(parameters):
            probabilities = teachers.teacher_probabilities(
                teacher._replace(variables=None), variables, images, **STUDENT, temperature=2.0
            )
            loss = jnp.mean(jnp.sum(probabilities * parameters, axis=1) ** 2)
            return jax.lax.pmean(loss, sharding.DATA_AXIS), probabilities

        gradient, probabilities = jax.grad(loss_fn, has_aux=True)(parameters)
        return probabilities, gradient

    specs = {
        "in_specs": (PartitionSpec(), PartitionSpec(), sharding.BATCH),
        "out_specs": (sharding.BATCH, PartitionSpec()),
    }
    sharded = jax.jit(jax.shard_map(step, mesh=mesh, **specs))
    return jax.device_get(sharded(teacher.variables, jnp.arange(1.0, CLASSES + 1), IMAGES))


@pytest.mark.parametrize("kind", ["symbolic", "fixed", "loop", "callable", "exported callable"])
def test_probabilities_and_the_students_gradient_are_the_same_on_1_2_and_8_devices(tmp_path, kind):
    _, logits = network()
    expected = np.asarray(jax.nn.softmax(logits(IMAGES) / 2))
    weights = np.arange(1.0, CLASSES + 1)
    gradient = 2 * np.mean((expected @ weights)[:, None] * expected, axis=0)
    if kind == "callable":
        teacher = load("callable", function=logits)
    elif kind == "exported callable":  # as a library user may pass it
        spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"b, {SIZE}, {SIZE}, 1"), jnp.float32)
        teacher = load("callable", function=jax.export.export(jax.jit(logits))(spec).call)
    else:
        batch = {"symbolic": "b", "fixed": 4, "loop": 1}[kind]
        teacher = load("stablehlo", path=exported(tmp_path / "teacher", logits, (batch, SIZE, SIZE, 1)))
    for num_devices in (1, 2, 8):
        found = student_gradient(teacher, num_devices)
        np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[1], gradient, rtol=1e-4)


# Preprocessing


def probabilities_of(teacher, images=IMAGES, temperature=1.0, **student):
    student = STUDENT | student
    return teachers.teacher_probabilities(teacher, teacher.variables, images, **student, temperature=temperature)


def seen_by(teacher, images=IMAGES, **student):
    return np.asarray(teachers.teacher_images(teacher, images, **(STUDENT | student)))


def flat(num_channels=1):
    return lambda images: images.reshape(images.shape[0], -1)[:, :CLASSES]


def test_the_teacher_sees_the_pixels_under_its_own_mean_and_std():
    teacher = load("callable", function=flat(), mean=(0.25,), std=(0.5,))
    np.testing.assert_allclose(seen_by(teacher), (PIXELS - 0.25) / 0.5, atol=1e-6)


def test_the_teacher_sees_images_of_its_own_size():
    teacher = load("callable", function=flat(), mean=(0.0,), std=(1.0,), image_size=4)
    halved = PIXELS.reshape(16, 4, 2, 4, 2, 1).mean((2, 4))
    seen = seen_by(teacher)
    assert seen.shape == (16, 4, 4, 1)
    assert np.abs(seen - halved).max() < 0.25  # a tent over four pixels each way, not the mean of two
    np.testing.assert_allclose(seen, jax.image.resize(PIXELS, seen.shape, "bilinear", antialias=True), atol=1e-6)
    larger = load("callable", function=flat(), image_size=16)
    assert seen_by(larger).shape == (16, 16, 16, 1)
    assert probabilities_of(larger).shape == (16, CLASSES)


def test_gray_images_are_repeated_for_a_color_teacher():
    teacher = load("callable", function=flat(), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    expected = (np.repeat(PIXELS, 3, axis=3) - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(seen_by(teacher), expected, atol=1e-6)


def test_color_images_become_gray_for_a_gray_teacher():
    pixels = np.random.default_rng(2).random((3, SIZE, SIZE, 3)).astype(np.float32)
    student = {"student_mean": np.float32([0.4, 0.5, 0.6]), "student_std": np.float32([0.2, 0.3, 0.4])}
    images = normalize(pixels, student["student_mean"], student["student_std"])
    teacher = load("callable", COLOR, function=flat(), mean=(0.5,), std=(0.25,))
    gray = pixels @ np.float32([0.2989, 0.5870, 0.1140])
    np.testing.assert_allclose(seen_by(teacher, images, **student)[..., 0], (gray - 0.5) / 0.25, atol=1e-5)


def test_statistics_of_gray_data_serve_all_channels_of_a_color_teacher(tmp_path):
    _, logits = network(num_channels=3)
    path = exported(tmp_path / "teacher", logits, ("b", SIZE, SIZE, 3))
    np.testing.assert_allclose(load("stablehlo", path=path).mean, DESCRIPTION["mean"] * 3, rtol=1e-6)
    assert load("stablehlo", path=path, std=(0.5,)).std.tolist() == [0.5, 0.5, 0.5]


def test_the_temperature_divides_the_logits():
    _, logits = network()
    teacher = load("callable", function=logits)
    for temperature in (0.5, 1, 4.0):
        expected = jax.nn.softmax(logits(IMAGES) / temperature)
        np.testing.assert_allclose(probabilities_of(teacher, temperature=temperature), expected, rtol=1e-4, atol=1e-6)


def test_probabilities_are_float32_sum_to_1_and_carry_no_gradient():
    _, logits = network()
    teacher = load("callable", function=lambda images: 100 * logits(images).astype(jnp.bfloat16))
    found = probabilities_of(teacher)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)

    scaled = teacher._replace(variables=jnp.ones(CLASSES), logits_fn=lambda scale, images: logits(images) * scale)

    def total(scale, images):
        return jnp.sum(teachers.teacher_probabilities(scaled, scale, images, **STUDENT, temperature=1.0) ** 2)

    for gradient in jax.grad(total, argnums=(0, 1))(scaled.variables, IMAGES):
        assert not np.any(gradient)


def test_a_function_without_a_derivative_can_teach():
    def function(images):
        return jax.pure_callback(
            lambda x: np.asarray(x).mean((1, 2)) * np.arange(4, dtype=np.float32), shape(images), images
        )

    def shape(images):
        return jax.ShapeDtypeStruct((images.shape[0], CLASSES), jnp.float32)

    teacher = load("callable", function=function)
    gradient = jax.grad(lambda scale: probabilities_of(teacher, IMAGES * scale).sum())(1.0)
    assert gradient == 0


# Checks against the data


def test_another_number_of_classes_is_an_error_before_anything_compiles():
    _, logits = network(num_classes=5)
    teacher = load("callable", function=logits)
    with pytest.raises(UserError, match=r"logits predicts 5 classes, the data has 4; .*teacher\.path"):
        teachers.check_classes(teacher, DATASET.validation.num_classes)


def brightest_quarter(images):
    """Knows the tiny data set: its classes are the bright quarters."""
    quarters = images.reshape(-1, 2, SIZE // 2, 2, SIZE // 2).mean((2, 4))
    return 10.0 * quarters.reshape(-1, CLASSES)


def test_a_teacher_of_numbers_is_checked_by_the_variance_that_it_explains():
    bins = ValueBins(0.0, 100.0, CLASSES, 25.0)
    settings = {"batch_size": 24, "sharding": sharding.batch_sharding(sharding.make_mesh(jax.devices()[:1]))}
    classes = DATASET.validation.classes
    values = bins.centers[classes]
    split = DATASET.validation._replace(values=values)
    knowing = load("callable", function=lambda images: 100 * brightest_quarter(images))
    predictions = teachers.teacher_predictions(knowing, split, **STUDENT, **settings)
    assert teachers.teacher_explained_variance(predictions, split, bins) == pytest.approx(100)
    assert teachers.check_values(62.5, False, "validation images") == (
        "teacher: 62.50 % of the variance explained (R²) on the validation images (the mean value: 0 %)"
    )
    with pytest.raises(
        UserError, match=r"teacher: -3\.00 % .*; allowed: above 0 %.*other bins \(dataset\.value_range"
    ) as error:
        teachers.check_values(-3.0, False, "validation images")
    assert "\n" not in str(error.value)
    assert "continues because teacher.allow_poor is True" in teachers.check_values(-3.0, True, "validation images")


@pytest.mark.parametrize("num_devices", [1, 8])
def test_accuracy_counts_every_validation_image_once(num_devices):
    settings = {"batch_size": 24, "sharding": sharding.batch_sharding(sharding.make_mesh(jax.devices()[:num_devices]))}
    split = DATASET.validation
    assert len(split.images) % 24
    knowing = load("callable", function=brightest_quarter)
    predictions = teachers.teacher_predictions(knowing, split, **STUDENT, **settings)
    assert teachers.teacher_accuracy(predictions, split) == 100
    first_wrong = split.labels.copy()
    first_wrong[0] = np.roll(first_wrong[0], 1)
    found = teachers.teacher_accuracy(predictions, split._replace(labels=first_wrong))
    assert found == pytest.approx(100 * (1 - 1 / len(split.images)))
    shuffled = load("callable", function=lambda images: jnp.roll(brightest_quarter(images), 1, axis=1))
    assert teachers.teacher_accuracy(teachers.teacher_predictions(shuffled, split, **STUDENT, **settings), split) == 0


def test_a_teacher_below_twice_chance_stops_the_run_unless_allowed():
    assert teachers.check_accuracy(20.0, 10, False) == (
        "teacher: 20.00 % accuracy on the validation images (chance: 10 %)"
    )
    with pytest.raises(UserError) as stopped:
        teachers.check_accuracy(19.9, 10, False)
    for words in (
        "19.90 %",
        "20 % or more",
        "different order",
        "teacher.mean",
        "teacher.image_size",
        "teacher.allow_poor",
    ):
        assert words in str(stopped.value)
    assert "teacher.allow_poor is True" in teachers.check_accuracy(19.9, 10, True)


def test_with_two_classes_three_quarters_accuracy_are_enough():
    teachers.check_accuracy(75.0, 2, False)
    with pytest.raises(UserError, match="75 % or more"):
        teachers.check_accuracy(74.9, 2, False)


# Fingerprint


@pytest.mark.parametrize("kind", ["workdir", "stablehlo", "weights", "callable"])
def test_the_fingerprint_is_that_of_the_weights(tmp_path, kind):
    def fingerprint(name, seed):
        variables, logits = network(seed=seed)
        path = tmp_path / name
        if kind == "callable":
            return load(kind, function=logits).fingerprint
        if kind == "workdir":
            write_run(path, variables)
        elif kind == "stablehlo":
            exported(path, logits, ("b", SIZE, SIZE, 1))
        else:
            path = write_weights(path.with_suffix(".safetensors"), variables)
        return load(kind, path=path, architecture="resnet_small").fingerprint

    first = fingerprint("first", seed=0)
    assert len(first) == 16
    assert fingerprint("other", seed=1) != first
    if kind != "stablehlo":  # two exports of one function need not be the same bytes
        assert fingerprint("same", seed=0) == first


# Mistakes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "weights", "path": "x", "weights_step": 3},
            "teacher.weights_step is 3; allowed with teacher.kind 'weights': None",
        ),
        ({"kind": "oracle"}, "teacher.kind is 'oracle'; allowed: none, workdir, stablehlo, weights, callable"),
        ({"kind": "none", "function": flat()}, "teacher.kind is 'none'; set teacher.kind to 'callable'"),
        ({"kind": "callable"}, "teacher.kind is 'callable' but the teacher function is None"),
        ({"kind": "stablehlo"}, "teacher.path is None"),
        ({"kind": "stablehlo", "path": "nowhere"}, "teacher.path nowhere does not exist"),
        ({"kind": "weights", "path": "."}, "teacher.path . is a folder"),
        ({"kind": "callable", "function": flat(), "std": (0.0,)}, "teacher.std is .0.0.; allowed: numbers above 0"),
        ({"kind": "callable", "function": flat(), "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0)}, "allowed: 3 number"),
        ({"kind": "callable", "function": lambda images: float(images[0])}, "cannot be called by jax"),
        ({"kind": "callable", "function": lambda images: images}, r"returns float32\[2, 8, 8, 1\]"),
        ({"kind": "callable", "function": lambda images: images[:, 0, :, 0].argmax(1)}, r"returns int32\[2\]"),
        ({"kind": "callable", "function": lambda images: (images[:, 0, :, 0],) * 2}, r"returns float32\[2, 8\], float"),
    ],
)
def test_mistakes_are_one_line(fields, message):
    with pytest.raises(UserError, match=message):
        load(**fields)


def test_color_statistics_do_not_serve_a_gray_teacher(tmp_path):
    path = exported(tmp_path / "teacher", flat(), ("b", SIZE, SIZE, 1))
    with pytest.raises(UserError, match=r"teacher.mean is None and that of the data has 3; allowed: 1 number"):
        load("stablehlo", COLOR, path=path)


@pytest.mark.parametrize("cut", [0, 100, 0.5])
def test_a_damaged_artifact(tmp_path, cut):
    path = exported(tmp_path / "teacher", flat(), ("b", SIZE, SIZE, 1))
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    with pytest.raises(UserError, match=r"teacher\.path .* cannot be read .*jax\.export"):
        load("stablehlo", path=path)


def test_an_artifact_whose_program_is_damaged(tmp_path):
    path = exported(tmp_path / "teacher", flat(), ("b", SIZE, SIZE, 1))
    content = path.read_bytes()
    assert content.count(b"ML\xefR") == 1  # where the program begins
    path.write_bytes(content.replace(b"ML\xefR", b"ML\xefS"))
    with pytest.raises(UserError, match=r"teacher\.path .* cannot be read"):
        load("stablehlo", path=path)


@pytest.mark.parametrize(
    ("function", "shape", "dtype", "found"),
    [
        (lambda images: images.sum((1, 2)), ("b", 8, 8), jnp.float32, r"float32\[b, 8, 8\]"),
        (flat(), ("b", 8, 8, 1), jnp.uint8, "uint8"),
        (flat(), ("b", 8, 6, 1), jnp.float32, r"float32\[b, 8, 6, 1\]"),
        (flat(), ("b", 8, 8, 4), jnp.float32, r"float32\[b, 8, 8, 4\]"),
        (flat(), ("b", 8, 8, "c"), jnp.float32, r"float32\[b, 8, 8, c\]"),
        (lambda images: images[..., 0], ("b", 8, 8, 1), jnp.float32, r"-> float32\[b, 8, 8\]"),
        (lambda images: (images[:, 0, :, 0],) * 2, ("b", 8, 8, 1), jnp.float32, r"-> float32\[b, 8\], float32"),
    ],
)
def test_an_artifact_with_another_signature(tmp_path, function, shape, dtype, found):
    path = exported(tmp_path / "teacher", function, shape, dtype)
    with pytest.raises(UserError, match=rf"{found}.*allowed: one float32 array \[batch, size, size, channel\]"):
        load("stablehlo", path=path)


def test_an_artifact_for_other_hardware(tmp_path):
    path = exported(tmp_path / "teacher", flat(), ("b", SIZE, SIZE, 1), platforms=("tpu", "cuda"))
    with pytest.raises(UserError, match=r"exported for tpu, cuda, this machine computes on cpu; .*'cpu'"):
        load("stablehlo", path=path)


def test_an_artifact_of_another_size_than_the_field(tmp_path):
    path = exported(tmp_path / "teacher", flat(), ("b", SIZE, SIZE, 1))
    with pytest.raises(UserError, match=r"teacher.image_size is 16, but .* takes only images of 8 pixels"):
        load("stablehlo", path=path, image_size=16)


def test_weights_without_a_classifier_or_of_another_network(tmp_path):
    variables, _ = network()
    path = write_weights(tmp_path / "teacher.safetensors", variables, without=("fc.weight", "fc.bias"))
    with pytest.raises(UserError, match=r"teacher\.path .* has no 'fc.weight' among its .*timm"):
        load("weights", path=path, architecture="resnet_small")
    write_weights(path, variables)
    with pytest.raises(UserError, match=r"teacher\.path: .*missing in the file: layer1"):
        load("weights", path=path, architecture="resnet18")


def test_damaged_weights(tmp_path):
    variables, _ = network()
    path = write_weights(tmp_path / "teacher.safetensors", variables)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"teacher\.path: .* cannot be read"):
        load("weights", path=path, architecture="resnet_small")


def test_a_workdir_without_a_run_or_a_classifier(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.path"):
        load("workdir", path=tmp_path / "nowhere")
    variables, _ = network()
    params = {"backbone": variables["params"]["backbone"]}
    with pytest.raises(UserError, match=r"teacher\.path.*(holds|contains) no classifier"):
        load("workdir", path=write_run(tmp_path / "run", variables | {"params": params}))
