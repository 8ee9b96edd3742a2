"""Each piece of advice: reported once, with its number and field, and none in a healthy run."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax import losses, verdicts
from gensupcon_jax.method.diagnostics import Labeled, batch_chance_loss, batch_diagnostics
from gensupcon_jax.run.advice import Advisor

CHANCE = 8.9091

HEALTHY = {
    "loss": 8.2,
    "valid_anchors": 1.0,
    "contrastive_accuracy": 0.8,
    "similar_contrasts": 70.0,
    "similarity_mass": 73.0,
    "embedding_spread": 0.2,
    "effective_rank": 4.8,
    "label_entropy": 0.42,
    "learning_rate": 0.48,
    "gradient_norm": 0.35,
}


def advisor(**changes):
    facts = {
        "objective": "contrastive",
        "chance_loss": CHANCE,
        "num_classes": 10,
        "normalizer": "similarity",
        "learning_rate": 0.5,
        "mode": "all",
        "batch_size": 256,
        "queue_size": 0,
        "has_teacher": False,
        "parameter_norm": 29.3,
    }
    return Advisor(**facts | changes)


def row(**changes):
    return {f"train/{name}": value for name, value in (HEALTHY | changes).items()}


def said_by(run, rows=None, steps=(50, 60, 70, 80), **changes):
    """The advice on several equal rows."""
    return [sentence for step in steps for sentence in run.sentences(step, rows or row(**changes))]


def names(sentences):
    return [sentence.split(":")[0] for sentence in sentences]


# ---- no advice


def test_a_healthy_run_gets_no_advice():
    assert said_by(advisor(), steps=range(0, 500, 10)) == []


def test_the_measured_digits_recipe_gets_no_advice():
    # Loss, gradient norm, rate, spread and rank of configs/digits.py at steps 1, 5, 10, 20, ... 100.
    measured = """
        1 9.0561 2.0867 0.010 0.1844 12.12
        5 8.8668 0.3633 0.108 0.0494 10.63
        10 8.8393 0.2384 0.230 0.0235 1.95
        20 8.6976 0.2986 0.475 0.0834 1.48
        40 8.5321 0.3140 0.498 0.1430 2.61
        60 8.4006 0.3212 0.491 0.1665 3.83
        80 8.1742 0.3518 0.480 0.2154 4.60
        100 8.1888 0.3858 0.465 0.2409 4.81
    """
    columns = ("loss", "gradient_norm", "learning_rate", "embedding_spread", "effective_rank")
    run = advisor()
    for line in measured.strip().splitlines():
        step, *values = line.split()
        assert run.sentences(int(step), row(**dict(zip(columns, map(float, values), strict=True)))) == []


def test_rows_without_training_numbers_and_other_objectives_get_no_advice():
    assert advisor().sentences(60, {"knn/top1": 90.0}) == []
    other = {
        "train/loss": 1.2,
        "train/classifier_accuracy": 0.6,
        "train/learning_rate": 0.1,
        "train/gradient_norm": 1.0,
    }
    assert said_by(advisor(objective="cross_entropy", chance_loss=None, parameter_norm=None), other) == []


# ---- loss at chance level


def test_loss_at_chance_level_is_reported_once_with_the_chance_level():
    (sentence,) = said_by(advisor(), loss=8.9)
    assert sentence.startswith("loss at chance level: 8.9000 at step 70")
    assert "8.9091 (scale x ln of the number of contrasts)" in sentence
    assert "too small" in sentence
    assert "optimizer.learning_rate (now 0.5)" in sentence


@pytest.mark.parametrize(("loss", "number"), [(9.5, 1), (0.991 * CHANCE, 1), (0.98 * CHANCE, 0)])
def test_chance_level_is_within_one_percent_or_worse(loss, number):
    assert len(said_by(advisor(), loss=loss)) == number


def test_chance_level_before_the_network_could_learn_is_not_reported():
    assert said_by(advisor(), steps=(1, 10, 20, 30, 40), loss=CHANCE) == []
    # A long warm-up; then the rate reaches half of its peak, and going down later changes nothing.
    run = advisor()
    assert said_by(run, steps=range(50, 1000, 50), loss=CHANCE, learning_rate=0.2) == []
    assert said_by(run, steps=(1000,), loss=CHANCE, learning_rate=0.25) == []
    assert names(said_by(run, steps=(1050, 1100), loss=CHANCE, learning_rate=0.1)) == ["loss at chance level"]


def test_one_batch_at_chance_level_is_not_enough():
    run = advisor()
    for step in range(50, 200, 10):
        assert run.sentences(step, row(loss=CHANCE if step % 30 == 20 else 8.4)) == []


def test_the_chance_level_of_the_batch_counts_where_the_row_has_it():
    assert said_by(advisor(chance_loss=1.2955, normalizer="count"), loss=1.28, chance_loss=1.40) == []
    (sentence,) = said_by(advisor(chance_loss=1.2955, normalizer="count"), loss=1.25, chance_loss=1.26)
    assert "1.2600" in sentence


def test_with_a_teacher_the_part_of_the_labels_is_compared():
    run = {"has_teacher": True}
    assert said_by(advisor(**run), loss=16.0, label_loss=8.0, teacher_loss=8.0, teacher_entropy=0.5) == []
    (sentence,) = said_by(advisor(**run), loss=17.0, label_loss=8.9, teacher_loss=8.1, teacher_entropy=0.5)
    assert sentence.startswith("loss at chance level: 8.9000")


def test_with_the_teacher_alone_its_part_is_compared():
    values = {"loss": 8.0, "label_loss": 8.9, "teacher_loss": 8.0, "teacher_entropy": 0.5}
    assert said_by(advisor(has_teacher=True), **values) == []


def test_chance_level_of_a_classifier_is_explained_by_its_classes():
    run = advisor(objective="cross_entropy", chance_loss=math.log(10))
    (sentence,) = said_by(run, {"train/loss": 2.30, "train/learning_rate": 0.5})
    assert "2.3026 (entropy of the class shares)" in sentence
    assert "raise optimizer.learning_rate" in sentence


def test_a_classifier_whose_loss_is_above_that_of_equal_probabilities_needs_a_smaller_rate():
    run = advisor(objective="linear_probe", chance_loss=math.log(10))
    (sentence,) = said_by(run, {"train/loss": 7.0, "train/learning_rate": 0.5})
    assert "lower optimizer.learning_rate" in sentence


# ---- collapse


@pytest.mark.parametrize("changes", [{"embedding_spread": 0.001}, {"effective_rank": 1.02}], ids=["a point", "a line"])
def test_collapsed_embeddings(changes):
    of_ten_equal_classes = verdicts.separable_share(math.log(10), 511)
    run = advisor(learning_rate=50.0, separable=of_ten_equal_classes)
    (sentence,) = said_by(run, learning_rate=50.0, gradient_norm=0.001, **changes)
    assert sentence.startswith("collapsed embeddings: spread ")
    assert "lower optimizer.learning_rate (now 50)" in sentence


def test_chance_level_by_collapse_is_explained_and_advises_no_higher_rate():
    sentences = said_by(advisor(), loss=CHANCE, embedding_spread=0.0, effective_rank=0.0, gradient_norm=1e-7)
    assert names(sentences) == ["loss at chance level", "collapsed embeddings"]
    assert "collapsed" in sentences[0]
    assert not any("raise optimizer.learning_rate" in sentence for sentence in sentences)


def test_two_classes_on_a_line_are_not_collapsed():
    assert said_by(advisor(num_classes=2), effective_rank=1.0, embedding_spread=0.9) == []


def separated(shares, num=1000, dim=8):
    """Training numbers of perfectly separated classes with these shares, as far apart as so many can be."""
    counts = np.round(np.array(shares) * num).astype(int)
    classes = np.repeat(np.arange(len(counts)), counts)
    corners = np.eye(len(counts)) - 1 / len(counts)  # of a simplex
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    embeddings = np.pad(corners, ((0, 0), (0, dim - len(counts))))[classes]
    labeled = Labeled(jnp.asarray(embeddings, jnp.float32), jnp.eye(len(counts))[classes])
    numbers = {name: float(value) for name, value in batch_diagnostics(labeled).items()}
    loss = losses.generalized_contrastive_loss(*labeled, temperature=0.1, base_temperature=None).mean()
    numbers |= {"loss": float(loss), "chance_loss": float(batch_chance_loss(labeled.labels)), "valid_anchors": 1.0}
    return {f"train/{name}": value for name, value in numbers.items()}, verdicts.separable_share(
        verdicts.entropy(shares), num - 1
    )


@pytest.mark.parametrize(
    "shares", [(0.6, 0.39, 0.01), (0.8, 0.19, 0.01), (0.7, 0.28, 0.01, 0.01), (0.75, 0.2, 0.02, 0.01, 0.01, 0.01)]
)
def test_separated_classes_of_which_few_are_frequent_are_not_collapsed(shares):
    values, separable = separated(shares)
    assert values["train/effective_rank"] < 1.5
    assert values["train/embedding_spread"] > 0.4
    assert values["train/loss"] < 0.93 * values["train/chance_loss"]
    facts = {"chance_loss": values["train/chance_loss"], "num_classes": len(shares)}
    assert said_by(advisor(**facts, separable=separable), values) == []
    assert said_by(advisor(**facts), values) == []


def test_one_class_in_a_hundred_is_learned_although_the_loss_hardly_falls():
    values, separable = separated((0.99, 0.01))
    assert values["train/loss"] > 0.99 * values["train/chance_loss"]
    facts = {"chance_loss": values["train/chance_loss"], "num_classes": 2, "separable": separable}
    assert said_by(advisor(**facts), values) == []
    at_chance = values | {"train/loss": values["train/chance_loss"]}
    assert names(said_by(advisor(**facts), at_chance)) == ["loss at chance level"]


def test_a_teacher_that_attracts_images_of_other_classes():
    (sentence,) = said_by(advisor(has_teacher=True), teacher_entropy=0.5, unrelated_attraction=0.19)
    assert sentence.startswith(
        "teacher attracts other classes: 19% of the attraction by its predictions belongs to images without"
    )
    assert "Train the teacher without label smoothing" in sentence
    assert said_by(advisor(has_teacher=True), teacher_entropy=0.5, unrelated_attraction=0.05) == []
    assert said_by(advisor(has_teacher=False), unrelated_attraction=0.5) == []


# ---- similar contrasts


def test_most_anchors_without_a_similar_contrast():
    (sentence,) = said_by(advisor(num_classes=1000, batch_size=64), steps=(1, 10), valid_anchors=0.4)
    assert sentence.startswith("most anchors without a similar contrast: 60% of the anchors")
    assert "batch_size 64 is likely too small for 1000 classes: raise batch_size" in sentence
    assert "loss.mode" in sentence


def test_numbers_are_made_alike_by_a_wider_label():
    (sentence,) = said_by(advisor(num_classes=64, label_kind="value"), steps=(1, 10), valid_anchors=0.4)
    assert "batch_size 256 is likely too small for 64 bins of values: raise batch_size" in sentence
    assert sentence.endswith("; a larger dataset.value_width makes more numbers alike")


def test_the_number_of_labels_says_nothing_about_the_normalizer_where_they_are_alike_by_degrees():
    facts = {"label_kind": "several", "parameter_norm": 1.0}
    (sentence,) = said_by(advisor(**facts))
    assert sentence.startswith("learning rate too large") and "count" not in sentence
    assert "count is about 10 times" in said_by(advisor(parameter_norm=1.0))[0]


def test_several_labels_between_their_shares_and_one_half_need_another_rate():
    facts = {"objective": "cross_entropy", "label_kind": "several", "num_classes": 20, "chance_loss": 3.0}
    (sentence,) = said_by(advisor(**facts), loss=10.0, similar_contrasts=math.nan)
    assert sentence.startswith("loss at chance level: 10.0000")
    assert sentence.endswith(
        "too small or too large: change optimizer.learning_rate (now 0.5), to a third or three times as much"
    )
    assert "raise optimizer.learning_rate" in said_by(advisor(**facts), loss=3.0, similar_contrasts=math.nan)[0]
    assert "lower optimizer.learning_rate" in said_by(advisor(**facts), loss=20.0, similar_contrasts=math.nan)[0]


def test_soft_labels_hide_that_anchors_have_no_similar_contrast():
    (sentence,) = said_by(advisor(), steps=(1, 10), valid_anchors=1.0, similar_contrasts=0.25)
    assert sentence.startswith("most anchors without a similar contrast: 0.25 contrasts per anchor")


def test_a_queue_is_checked_once_it_is_full():
    run = advisor(mode="momentum", queue_size=2560, num_classes=1000)
    assert said_by(run, steps=(1, 5, 9), valid_anchors=0.1) == []
    (sentence,) = said_by(run, steps=(10, 11), valid_anchors=0.1)
    assert "batch_size 256 and queue_size 2560 are likely too small" in sentence
    assert sentence.endswith("raise momentum_encoder.queue_size")


# ---- teacher


def test_teacher_nearly_uniform():
    (sentence,) = said_by(advisor(has_teacher=True), teacher_entropy=0.98 * math.log(10))
    assert sentence.startswith("teacher nearly uniform: its predictions have an entropy of 2.257 nats")
    assert "2.303 (ln of 10 classes)" in sentence
    assert "teacher.temperature" in sentence


def test_teacher_nearly_one_hot():
    (sentence,) = said_by(advisor(has_teacher=True), teacher_entropy=0.004)
    assert sentence.startswith("teacher nearly one-hot: its predictions have an entropy of 0.0040 nats")
    assert "teacher.temperature" in sentence


@pytest.mark.parametrize("entropy", [0.02, 0.5, 0.9 * math.log(10)])
def test_a_good_teacher_is_not_mentioned(entropy):
    assert said_by(advisor(has_teacher=True), teacher_entropy=entropy) == []


# ---- learning rate


def test_a_rate_too_small_for_the_normalizer():
    # Measured on digits: normalizer count with 0.005.
    run = advisor(normalizer="count", chance_loss=1.2955, learning_rate=0.005)
    changes = {"chance_loss": 1.36, "loss": 1.3348, "gradient_norm": 0.0783, "learning_rate": 0.005}
    (sentence,) = said_by(run, **changes)
    assert sentence.startswith("learning rate too small: at step 70 an update is 1e-05 of the norm")
    assert "about 10 times (the classes) smaller" in sentence
    assert "raise optimizer.learning_rate (now 0.005)" in sentence
    assert ". Gradients with loss.normalizer count" in sentence


def test_a_rate_too_small_for_anything():
    (sentence,) = said_by(advisor(learning_rate=1e-4), loss=8.7, learning_rate=1e-4)
    assert sentence.startswith("learning rate too small")
    assert "normalizer" not in sentence


def test_small_updates_of_a_network_that_learns_are_not_mentioned():
    assert said_by(advisor(), loss=7.9, gradient_norm=1e-4) == []


def test_a_rate_too_large_for_the_normalizer():
    # Measured on digits: normalizer similarity with 50.
    run = advisor(learning_rate=50.0)
    (sentence,) = said_by(run, loss=8.75, learning_rate=49.8, gradient_norm=0.0276, effective_rank=2.0)
    assert sentence.startswith("learning rate too large: at step 70 an update is 5% of the norm")
    assert "Lower optimizer.learning_rate (now 50)" in sentence
    assert "a rate chosen for loss.normalizer count is about 10 times" in sentence


def test_the_end_of_a_schedule_is_no_small_rate():
    run = advisor()
    assert said_by(run, loss=8.7, learning_rate=0.48) == []
    assert said_by(run, steps=(900, 950, 999), loss=8.7, learning_rate=0.001) == []


def test_a_field_is_not_to_be_raised_and_lowered_in_one_run():
    run = advisor()
    raised = said_by(run, loss=CHANCE, gradient_norm=0.01)
    assert names(raised) == ["loss at chance level"]
    assert "raise optimizer.learning_rate" in raised[0]
    (neutral,) = said_by(run, steps=(90, 100, 110), gradient_norm=5.0)
    assert neutral.startswith("learning rate too large: at step 100")
    assert neutral.endswith(
        "Earlier steps of this run indicated to raise optimizer.learning_rate, these to lower it: it is not the only cause. "
        "Leave it, and check that the labels belong to the images (gensupcon prepare)"
    )
    run = advisor(has_teacher=True)
    assert "Lower teacher.temperature" in said_by(run, steps=(1,), teacher_entropy=2.3)[0]
    assert "Raise teacher.temperature" not in said_by(run, steps=(2,), teacher_entropy=0.001)[0]


def test_large_updates_at_chance_level_agree_on_the_direction():
    sentences = said_by(advisor(), loss=CHANCE, gradient_norm=5.0)
    assert names(sentences) == ["loss at chance level", "learning rate too large"]
    assert all("ower optimizer.learning_rate" in sentence for sentence in sentences)
    assert not any("aise optimizer.learning_rate" in sentence for sentence in sentences)


@pytest.mark.parametrize("changes", [{"optimizer": "lars"}, {"parameter_norm": None}, {"objective": "linear_probe"}])
def test_updates_that_were_not_measured_are_not_checked(changes):
    assert said_by(advisor(**changes), gradient_norm=50.0) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf, None], ids=["nan", "inf", "null in the file"])
def test_a_loss_that_is_not_finite(loss):
    (sentence,) = said_by(advisor(), steps=(3, 10, 60), loss=loss, gradient_norm=None)
    assert sentence.startswith("loss not finite: ")
    assert "step 3" in sentence
    assert "lower optimizer.learning_rate" in sentence


# ---- several problems


def test_several_problems_are_reported_in_one_row_and_each_only_once():
    changes = {"loss": CHANCE, "valid_anchors": 0.2, "teacher_entropy": 2.3, "embedding_spread": 0.0}
    run = advisor(has_teacher=True)
    sentences = said_by(run, steps=range(10, 300, 10), **changes)
    assert names(sentences) == [
        "most anchors without a similar contrast",
        "teacher nearly uniform",
        "loss at chance level",
        "collapsed embeddings",
    ]
    assert all("\n" not in sentence and len(sentence) < 330 for sentence in sentences)


def test_a_resumed_run_does_not_repeat_its_advice():
    first = advisor()
    rows = [(step, row(loss=CHANCE)) for step in range(10, 90, 10)]
    assert sum(len(first.sentences(step, values)) for step, values in rows) == 1
    second = advisor()
    for step, values in rows:
        second.sentences(step, values)
    assert said_by(second, steps=(90, 100), loss=CHANCE) == []


@pytest.mark.parametrize("collapsed", [True, False])
def test_from_embeddings_to_words(collapsed):
    labels = jnp.eye(4)[jnp.arange(32) % 4]
    noise = np.random.default_rng(0).normal(size=(32, 8))
    embeddings = (np.ones(8) if collapsed else np.asarray(labels) @ np.eye(4, 8)) + 0.01 * noise
    embeddings = jnp.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), jnp.float32)
    metrics = jax.jit(batch_diagnostics)(Labeled(embeddings, labels))
    chance = float(batch_chance_loss(labels))
    values = {f"train/{name}": float(value) for name, value in metrics.items()}
    values |= {"train/loss": chance if collapsed else 0.7 * chance, "train/valid_anchors": 1.0}
    expected = ["loss at chance level", "collapsed embeddings"] if collapsed else []
    assert names(said_by(advisor(chance_loss=chance, num_classes=4), values)) == expected


# ---- waiting for images


def test_a_run_that_waits_for_its_images_gets_advice():
    run = advisor(decoding_threads=8, input_bound_share=0.1)
    assert said_by(run, steps=(1, 2, 3), input_wait=0.5) == []  # the first step waits for the first batch
    (sentence,) = said_by(run, steps=(4, 5, 6), input_wait=0.5)
    assert sentence == (
        "input-bound: the devices waited 50% of the time for images, up to step 4. 8 threads decode images: raise "
        "dataset.num_threads where the host has more cores, use a host with more cores, or store smaller images "
        "(JPEGs near twice dataset.image_size)"
    )
    assert said_by(advisor(input_bound_share=0.6), steps=range(2, 9), input_wait=0.5) == []
    assert "The images are in memory" in said_by(advisor(), steps=(2, 3, 4), input_wait=0.5)[0]
