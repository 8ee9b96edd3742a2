"""Images without a label: in each mode the naive sum over rows with a column per image, on 1, 2 and 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax import losses
from gensupcon_jax.cluster import sharding
from gensupcon_jax.errors import UserError
from gensupcon_jax.instances import Instances, unlabeled_places
from gensupcon_jax.method import objectives
from gensupcon_jax.method.classification import softmax_cross_entropy
from gensupcon_jax.method.denominators import class_balanced_weights
from gensupcon_jax.method.diagnostics import Labeled, batch_chance_loss, batch_diagnostics
from gensupcon_jax.method.objectives import MixedBatch, TeacherLabels
from gensupcon_jax.method.prototypes import Prototypes
from gensupcon_jax.method.train_step import build_view_fn
from gensupcon_jax.models import Classifier
from gensupcon_jax.similarities import of_classes, of_two_rows
from gensupcon_jax.views.mixing import build_mix_fn
from tests.method.flat import (
    BATCH_SIZE,
    DIM,
    MODES,
    NUM_CLASSES,
    NUM_VIEWS,
    SLOTS,
    TEMPERATURE,
    assert_same,
    build,
    encoded,
    on_devices,
    problem,
    program,
    soft,
)

BLOCK = 2  # of images that are mixed; 8 devices have one block each
NUM_QUEUED = SLOTS * BATCH_SIZE


def rows_without_labels():
    """Labels of 16 images, of which 7 have none, and rows with a column for each of these images beside the classes."""
    labels = soft(np.random.default_rng(5), BATCH_SIZE)
    labels[[0, 3, 4, 5, 9, 14, 15]] = 0
    return labels, np.concatenate([labels, np.diag(1.0 - labels.any(axis=1))], axis=1).astype(np.float32)


def mixed_rows():
    """The rows of all views, mixed with the other image of their block by a share of their own: [image, view, class + image]."""
    _, rows = rows_without_labels()
    share = np.random.default_rng(6).uniform(size=(BATCH_SIZE, NUM_VIEWS, 1)).astype(np.float32)
    share[:2] = 1.0  # not mixed: an image without a label, and its neighbor
    partners = rows.reshape(-1, BLOCK, rows.shape[1])[:, ::-1].reshape(rows.shape)
    return share * rows[:, None] + (1 - share) * partners[:, None]


def places_of(rows):
    """[image, view, place] of rows [image, view, class + image]."""
    own = rows[..., NUM_CLASSES:].reshape(BATCH_SIZE, NUM_VIEWS, -1, BLOCK)
    return np.stack([own[image, :, image // BLOCK] for image in range(BATCH_SIZE)])


def partly_labeled(objective, mode):
    """-> state, batch, and the wide rows [image, view, class + image] and [key, class + image] of batch and queue."""
    state, batch = problem(objective, mode)
    rows, num_queued = mixed_rows(), NUM_QUEUED if mode == "momentum" else 0
    rng = np.random.default_rng(7)
    shares = rng.uniform(size=(num_queued, 1)) * (rng.uniform(size=(num_queued, 1)) < 0.7)
    queued_labels = (1 - shares) * soft(rng, num_queued)
    queued_places = shares * np.eye(BLOCK)[rng.integers(0, BLOCK, num_queued)]
    wide = np.pad(rows, [(0, 0), (0, 0), (0, num_queued)])
    queued = np.concatenate([queued_labels, np.zeros((num_queued, BATCH_SIZE)), np.diag(shares[:, 0])], axis=1)
    if mode == "momentum":
        in_slots = {"labels": queued_labels, "instances": queued_places}
        in_slots = {name: jnp.float32(each.reshape(SLOTS, BATCH_SIZE, -1)) for name, each in in_slots.items()}
        state = state.replace(queue=state.queue | in_slots)
    batch = MixedBatch(batch.images, jnp.asarray(rows[..., :NUM_CLASSES]), jnp.asarray(places_of(rows)))
    return state, batch, (np.float32(wide), np.float32(queued))


def naive_loss(params, state, batch, rows, mode, symmetric, *, similarity="cosine", weights_fn=None, prototypes=None):
    """Sums over all pairs of rows, the queue's with columns of their own."""
    network = {name: part for name, part in params.items() if name != "classifier"}
    embeddings, wide = encoded(network, batch.images), rows[0]
    keys = jax.lax.stop_gradient(encoded(state.ema_params, batch.images)) if mode == "momentum" else embeddings
    total, views = 0.0, [0, 1] if symmetric else [0]
    for view in views:
        if mode == "all":
            anchors = contrasts = embeddings.reshape(-1, DIM)
            labels = others = wide.reshape(-1, wide.shape[-1])
            allowed = ~np.eye(len(labels), dtype=bool)
            present = np.ones(len(labels), bool)
        else:
            anchors, contrasts, labels, others = (
                embeddings[:, view],
                keys[:, 1 - view],
                wide[:, view],
                wide[:, 1 - view],
            )
            present = np.ones(BATCH_SIZE, bool)
            if mode == "momentum":
                contrasts = jnp.concatenate([contrasts, state.queue["embeddings"].reshape(-1, DIM)])
                others = np.concatenate([others, rows[1]])
                present = np.append(present, np.asarray(state.queue["filled"]).ravel() > 0)
            allowed = np.tile(present, (BATCH_SIZE, 1))
        attraction = np.asarray(losses.label_similarity(labels, others, name=similarity)) * allowed
        repulsion = allowed * (1.0 if weights_fn is None else weights_fn(others, present))
        logits = anchors @ contrasts.T / TEMPERATURE
        if prototypes is not None:
            centers = Classifier(NUM_CLASSES).apply({"params": params["classifier"]}, features_of(network, batch, mode))
            logits = jnp.concatenate([logits, centers], axis=1)
            attraction = np.concatenate(
                [prototypes.alpha * attraction, prototypes.beta * labels[:, :NUM_CLASSES]], axis=1
            )
            repulsion = np.concatenate([repulsion, np.ones(centers.shape)], axis=1)
        log_sum = jnp.log(jnp.sum(repulsion * jnp.exp(logits), axis=1, keepdims=True))
        mass = attraction.sum(axis=1)
        loss = -jnp.sum(attraction * (logits - log_sum), axis=1) / np.where(mass > 0, mass, 1.0)
        total += jnp.sum(loss) / (mass > 0).sum() / len(views)
    return total


def features_of(params, batch, mode):
    images = batch.images.reshape(-1, *batch.images.shape[2:]) if mode == "all" else batch.images[:, 0]
    kernel, bias = params["backbone"]["kernel"], params["backbone"]["bias"]
    return jnp.tanh(images.reshape(len(images), -1) @ kernel + bias)


def assert_naive(mode, symmetric, all_devices, *, naive=None, **settings):
    objective = build(mode, symmetric, num_places=BLOCK, **settings)
    state, batch, rows = partly_labeled(objective, mode)
    arguments = (state, batch, rows, mode, symmetric)
    value, gradient = jax.value_and_grad(lambda params: naive_loss(params, *arguments, **(naive or {})))(state.params)
    for num_devices in all_devices:
        found, found_gradient = on_devices(num_devices, objective, state, batch)
        assert float(found) == pytest.approx(float(value), rel=1e-5)
        assert_same(found_gradient, gradient)


@pytest.mark.parametrize(("mode", "symmetric"), MODES)
def test_each_mode_is_the_naive_sum_on_1_2_and_8_devices(mode, symmetric):
    assert_naive(mode, symmetric, (1, 2, 8))


CLOSE = np.float32(0.3 + 0.7 * np.eye(NUM_CLASSES))


def of_wide_classes(mode):
    num_others = BATCH_SIZE + (NUM_QUEUED if mode == "momentum" else 0)
    wide = np.eye(NUM_CLASSES + num_others, dtype=np.float32)
    wide[:NUM_CLASSES, :NUM_CLASSES] = CLOSE
    return of_classes(wide)


@pytest.mark.parametrize("mode", ["all", "momentum"])
@pytest.mark.parametrize("name", ["dot", "bhattacharyya", "jaccard", "matrix", "function"])
def test_each_similarity_is_that_of_rows_with_a_column_per_image(mode, name):
    overlap = of_two_rows(lambda left, right: jnp.minimum(left, right).sum())
    own, wide = {"matrix": (of_classes(CLOSE), of_wide_classes(mode)), "function": (overlap, overlap)}.get(
        name, (name, name)
    )
    assert_naive(mode, False, (2,), label_similarity=own, naive={"similarity": wide})


def test_a_similarity_that_cannot_take_further_columns_is_refused():
    vectors = np.ones((NUM_CLASSES, 3), np.float32)
    with pytest.raises(UserError, match="does not map each column of the labels to a feature"):
        assert_naive("all", False, (1,), label_similarity=lambda labels: labels @ vectors)
    with pytest.raises(UserError, match=r"change loss\.label_similarity to cosine, or label all images"):
        assert_naive("all", False, (1,), label_similarity=lambda labels: labels[:, :2])


def balanced(rows, present):
    """1 / the number of contrasts of a class; what has no label has the mean weight of what has one."""
    shares = rows[:, :NUM_CLASSES] / rows.sum(axis=1, keepdims=True) * present[:, None]
    weights = (shares / shares.sum(axis=0)).sum(axis=1)
    return present * (weights + (1 - shares.sum(axis=1)) * weights.sum() / shares.sum())


@pytest.mark.parametrize("mode", ["all", "momentum"])
def test_balanced_denominators_give_unlabeled_contrasts_the_mean_weight(mode):
    assert_naive(mode, False, (2,), denominator="balanced", naive={"weights_fn": balanced})


@pytest.mark.parametrize("mode", ["all", "momentum"])
def test_an_unlabeled_image_has_no_prototype(mode):
    prototypes = Prototypes(alpha=0.5, beta=2.0)
    settings = {"prototypes": prototypes, "classifier": Classifier(NUM_CLASSES)}
    assert_naive(mode, False, (2,), **settings, naive={"prototypes": prototypes})


def test_weights_of_unlabeled_contrasts_by_hand():
    labels = np.float32([[1, 0], [1, 0], [0, 1], [0, 0]])
    found = class_balanced_weights(labels, unlabeled=np.float32([0, 0, 0, 1]))
    np.testing.assert_allclose(found, [1 / 2, 1 / 2, 1, 2 / 3], rtol=1e-6)
    allowed = np.array([True, True, True, False])
    np.testing.assert_allclose(
        class_balanced_weights(labels, allowed, unlabeled=np.float32([0, 0, 0, 1])), [1 / 2, 1 / 2, 1, 0]
    )
    nothing = class_balanced_weights(np.zeros((3, 2), np.float32), unlabeled=np.ones(3, np.float32))
    assert nothing.tolist() == [1, 1, 1]


@pytest.mark.parametrize("normalizer", ["similarity", "count"])
def test_all_unlabeled_is_simclr_where_every_image_is_a_class(normalizer):
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(12, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    every_image = np.eye(6, dtype=np.float32).repeat(2, axis=0)
    instances = Instances(np.ones((12, 1), np.float32), None, num_images=6, num_in_blocks=12)
    settings = {"temperature": 0.2, "normalizer": normalizer}

    def simclr(points):
        return losses.generalized_contrastive_loss(points, every_image, **settings).mean()

    def unlabeled(points):
        labels = np.zeros((12, 3), np.float32)
        return losses.generalized_contrastive_loss(points, labels, instances=instances, **settings).mean()

    (expected, gradient), (found, found_gradient) = (
        jax.value_and_grad(each)(embeddings) for each in (simclr, unlabeled)
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(found_gradient, gradient, atol=1e-6)


def test_a_single_view_without_a_label_is_no_anchor():
    embeddings, labels = np.eye(3, dtype=np.float32), np.float32([[1, 0], [1, 0], [0, 0]])
    instances = Instances(unlabeled_places(labels, 1), None, num_images=3, num_in_blocks=3)
    loss, valid = losses.generalized_contrastive_loss(embeddings, labels, temperature=1.0, instances=instances)
    assert valid.tolist() == [True, True, False] and float(loss[2]) == 0.0


@pytest.mark.parametrize(
    ("changed", "problem_text"),
    [
        ({"num_images": 4}, "num_images is 4; allowed: a multiple of the 1 places"),
        ({"num_in_blocks": 0}, "num_in_blocks is 0; allowed: a multiple of the 3 images up to 6"),
        ({"anchors": np.ones((5, 1), np.float32)}, r"instances.anchors is of shape \[5, 1\]; allowed: \[6, 1\]"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(changed, problem_text):
    instances = Instances(np.ones((6, 1), np.float32), None, num_images=3, num_in_blocks=6)._replace(**changed)
    with pytest.raises(UserError, match=problem_text):
        losses.generalized_contrastive_loss(
            np.ones((6, 2), np.float32), np.zeros((6, 2), np.float32), temperature=1.0, instances=instances
        )


@pytest.mark.parametrize("kind", ["none", "mixup"])
def test_views_are_mixed_like_further_classes(kind):
    labels, rows = rows_without_labels()
    images = jnp.asarray(np.random.default_rng(2).integers(0, 255, (BATCH_SIZE, NUM_VIEWS, 2, 2, 1), np.uint8))
    block = 1 if kind == "none" else BLOCK
    mix_fn = build_mix_fn(kind=kind, alpha=1.0, per="image", views="independent", block=BLOCK)

    def view_fn(places):
        return build_view_fn(lambda keys, views: views / 255, mix_fn, places)

    expected = view_fn(None)(jax.random.key(3), images, jnp.asarray(rows), 0)
    found = view_fn(block)(jax.random.key(3), images, jnp.asarray(labels), 0)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels[..., :NUM_CLASSES])
    own = np.asarray(expected.labels)[..., NUM_CLASSES:]
    places = np.stack([own[i, :, i // block * block : (i // block + 1) * block] for i in range(BATCH_SIZE)])
    np.testing.assert_array_equal(found.instances, places)


@pytest.mark.parametrize("mode", ["all", "one"])
def test_local_views_of_an_unlabeled_image_are_similar_to_its_views(mode):
    rows, rng, num_local = mixed_rows(), np.random.default_rng(11), 3
    local_rows = rows[:, np.arange(num_local) % NUM_VIEWS]
    values = {"embeddings": unit(rng, BATCH_SIZE, NUM_VIEWS, DIM), "labels": jnp.asarray(rows[..., :NUM_CLASSES])}
    values["instances"] = jnp.asarray(places_of(rows))
    local = {name: value[:, np.arange(num_local) % NUM_VIEWS] for name, value in values.items()}
    local["embeddings"] = unit(rng, BATCH_SIZE, num_local, DIM)
    *_, pair = objectives._pairs(values, {}, mode=mode, symmetric=False, local=local)
    found = losses.generalized_contrastive_loss(
        pair.anchors["embeddings"],
        pair.anchors["labels"],
        pair.contrasts["embeddings"],
        pair.contrasts["labels"],
        temperature=TEMPERATURE,
        instances=pair.instances("labels"),
    )
    contrasts = slice(None) if mode == "all" else slice(1, None)  # of `one`, those of its only query
    others = rows[:, contrasts].reshape(-1, rows.shape[-1])
    similarity = losses.label_similarity(local_rows.reshape(-1, rows.shape[-1]), others)
    embeddings = values["embeddings"][:, contrasts].reshape(-1, DIM)
    logits = losses.latent_similarity(local["embeddings"].reshape(-1, DIM), embeddings, temperature=TEMPERATURE)
    expected = losses.dense_contrastive_loss(similarity, logits)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)
    assert found.valid.all()


def test_a_teacher_gives_unlabeled_images_their_labels():
    taught = soft(np.random.default_rng(9), BATCH_SIZE, NUM_VIEWS)
    teacher = TeacherLabels(lambda _, images: jnp.asarray(taught.reshape(-1, NUM_CLASSES)), 0.5)
    objective = build("all", teacher=teacher, num_places=BLOCK)
    state, batch, (rows, _) = partly_labeled(build("all"), "all")
    found, _ = on_devices(1, objective, state, batch)
    filled = rows[..., :NUM_CLASSES] + rows[..., NUM_CLASSES:].sum(axis=-1, keepdims=True) * taught
    expected = naive_loss(state.params, state, batch, (filled, None), "all", False)
    expected += 0.5 * naive_loss(state.params, state, batch, (taught, None), "all", False)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_classifier_learns_from_labeled_images_alone():
    logits = jnp.asarray(np.random.default_rng(4).normal(size=(3, 2)), jnp.float32)
    labels = jnp.float32([[1, 0], [0, 0], [0, 1]])
    found = softmax_cross_entropy(logits, labels, 0.1, None, labels)
    expected = softmax_cross_entropy(logits[::2], labels[::2], 0.1, None)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    nothing = softmax_cross_entropy(logits, jnp.zeros((3, 2)), 0.1, None, jnp.zeros((3, 2)))
    assert [float(each) for each in nothing] == [0.0, 0.0]


@pytest.mark.parametrize("mode", ["all", "momentum"])
def test_labels_for_all_cost_nothing(monkeypatch, mode):
    monkeypatch.setattr(losses, "_instance_sums", lambda *arguments: 1 / 0)
    without = program(build(mode), mode)
    assert "place" not in without and without == program(build(mode, num_places=None), mode)


@pytest.mark.parametrize("mode", ["all", "one", "momentum"])
def test_diagnostics_count_the_own_views_of_an_unlabeled_image(mode):
    state, batch, (wide, queued) = partly_labeled(build(mode, num_places=BLOCK), mode)
    rng = np.random.default_rng(8)
    every = {"embeddings": unit(rng, BATCH_SIZE, NUM_VIEWS, DIM), "labels": batch.labels, "instances": batch.instances}
    in_queue = {}
    if mode == "momentum":
        every["keys"] = every["embeddings"][:, 1:]
        in_queue = {name: state.queue[name].reshape(NUM_QUEUED, -1) for name in ("labels", "instances", "embeddings")}
    (pair,) = objectives._pairs(every, in_queue, mode=mode, symmetric=False)

    def diagnosed(anchors, contrasts, num_devices):
        def local(anchors, contrasts):
            instances = None
            if "instances" in anchors:
                of_device = objectives.Pair(
                    anchors, contrasts, pair.num_images // num_devices, pair.num_in_batch // num_devices
                )
                instances = of_device.instances("labels")
            others = contrasts and Labeled(contrasts["embeddings"], contrasts["labels"])
            found = batch_diagnostics(
                Labeled(anchors["embeddings"], anchors["labels"], instances), others, axis_name="data", num_anchors=12
            )
            chance = batch_chance_loss(
                anchors["labels"], others and others.labels, instances=instances, axis_name="data", normalizer="count"
            )
            return found | {"chance": chance}

        rows = PartitionSpec("data")
        mesh = sharding.make_mesh(jax.devices()[:num_devices])
        mapped = jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=PartitionSpec())
        return {name: float(value) for name, value in jax.jit(mapped)(anchors, contrasts).items()}

    if mode == "all":
        oracle = (
            {"embeddings": pair.anchors["embeddings"], "labels": jnp.asarray(wide.reshape(-1, wide.shape[-1]))},
            None,
        )
    else:
        others = np.concatenate([wide[:, 1], queued])
        oracle = (
            {"embeddings": pair.anchors["embeddings"], "labels": jnp.asarray(wide[:, 0])},
            {"embeddings": pair.contrasts["embeddings"], "labels": jnp.asarray(others)},
        )
    expected = diagnosed(*oracle, 1)
    for num_devices in (1,) if mode == "momentum" else (1, 8):  # the queue is sharded by its batch axis, not by rows
        assert diagnosed(pair.anchors, pair.contrasts, num_devices) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return jnp.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def test_chance_level_is_the_loss_of_equal_embeddings():
    rows = mixed_rows()
    labels, places = jnp.asarray(rows[..., :NUM_CLASSES]), jnp.asarray(places_of(rows))
    batch = MixedBatch(None, labels, places)
    found = objectives.contrastive_chance_loss(batch, mode="all", temperature=0.1)
    assert found == pytest.approx(np.log(BATCH_SIZE * NUM_VIEWS - 1), rel=1e-6)
    queued = objectives.contrastive_chance_loss(
        MixedBatch(None, labels, places), mode="momentum", temperature=0.1, queue_size=NUM_QUEUED
    )
    assert queued == pytest.approx(np.log(BATCH_SIZE + NUM_QUEUED), rel=1e-6)
    only_unlabeled = objectives.contrastive_chance_loss(
        MixedBatch(None, jnp.zeros((4, 2, 3)), jnp.ones((4, 2, 1))), mode="all", temperature=0.1
    )
    assert only_unlabeled == pytest.approx(np.log(7), rel=1e-6)
