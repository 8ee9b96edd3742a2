"""The probe kept in a workdir: literal values, scikit-learn's probabilities, damaged files."""

import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.kept_probe import FittedProbe, read_probe, write_probe
from gensupcon_jax.evaluation.probe import evaluate_linear, folded
from gensupcon_jax.store.kept_arrays import write_kept

LOG3 = np.log(3.0)
# Of features (a, b), the logits are a + b + log 3 for class 0 and a - b for class 5.
LITERAL = FittedProbe(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([LOG3, 0.0]), np.array([0, 5]), step=7)


def blobs(num_classes, seed=0, num=90, dim=6):
    """Clusters far from the origin, with one constant feature: what a standardization must handle."""
    rng = np.random.default_rng(seed)
    classes = np.arange(num) % num_classes
    values = 50 + rng.standard_normal((num_classes, dim))[classes] + rng.standard_normal((num, dim))
    values[:, 0] = 3
    return Features(values.astype(np.float32), classes)


def fitted_by_scikit_learn(train, penalty=0.01):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    solver = LogisticRegression(C=1 / (penalty * len(train.classes)), max_iter=2000)
    return make_pipeline(StandardScaler(), solver).fit(train.values, train.classes)


def test_literal_probabilities():
    features = np.array([[0, 0], [100, 0], [2, LOG3 / 2]], np.float32)
    expected = [[3 / 4, 1 / 4], [3 / 4, 1 / 4], [9 / 10, 1 / 10]]
    np.testing.assert_allclose(LITERAL.probabilities(features), expected, atol=1e-7)


def test_a_class_without_training_images_has_probability_0():
    found = LITERAL.class_probabilities(np.zeros((1, 2), np.float32), 7)
    np.testing.assert_allclose(found, [[3 / 4, 0, 0, 0, 0, 1 / 4, 0]])


def test_a_kept_probe_is_read_back_bit_for_bit(tmp_path):
    other = LITERAL._replace(bias=np.array([1.5, -2.0]), step=9)
    assert write_probe(tmp_path, [LITERAL, other]) is None
    for kept in (LITERAL, other):
        found = read_probe(tmp_path, kept.step)
        assert found.step == kept.step
        for ours, theirs in zip(found[:3], kept[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert read_probe(tmp_path, 8) is None
    assert read_probe(tmp_path / "nowhere", 7) is None


@pytest.mark.parametrize("classes", [(0, 1, 2, 3), (0, 1), (1, 4), (0, 2, 5)])
def test_the_probabilities_are_those_of_scikit_learn(classes):
    train = blobs(len(classes))
    train = train._replace(classes=np.array(classes)[train.classes])
    pipeline = fitted_by_scikit_learn(train)
    probe = folded(pipeline, step=3)
    assert probe.class_numbers.tolist() == list(classes)
    queries = blobs(4, seed=1).values
    np.testing.assert_allclose(probe.probabilities(queries), pipeline.predict_proba(queries), atol=1e-6)


def test_the_probe_of_an_evaluation_predicts_what_the_evaluation_counted():
    features = {name: blobs(3, seed) for seed, name in enumerate(("train", "validation", "test"))}
    outcome, probe = evaluate_linear(features, penalties=(1e-3, 0.1), step=12)
    predicted = probe.probabilities(features["test"].values).argmax(1)
    assert predicted.tolist() == outcome.test_predictions.tolist()
    assert probe.step == 12


def test_training_images_of_one_class_only():
    train = blobs(2)
    one = Features(train.values, np.full(len(train.classes), 4))
    outcome, probe = evaluate_linear({"train": one, "validation": train, "test": one}, penalties=(0.1, 1.0))
    assert (outcome.setting, outcome.validation_score) == (1.0, 0.0)
    assert set(outcome.test_predictions.tolist()) == {4}
    np.testing.assert_array_equal(probe.class_probabilities(train.values[:2], 5), [[0, 0, 0, 0, 1]] * 2)


def error_of(folder):
    with pytest.raises(UserError) as error:
        read_probe(folder, 7)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{folder / 'probe.npz'} is not the 'linear probe 1' that a run has kept")
    return str(error.value)


def test_every_damage_is_one_line(tmp_path):
    write_probe(tmp_path, [LITERAL])
    path = tmp_path / "probe.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    error_of(tmp_path)
    path.write_bytes(b"")
    error_of(tmp_path)
    at = whole.index(LITERAL.weight.tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    error_of(tmp_path)


@pytest.mark.parametrize("bit", [1, 0x80])
def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(tmp_path, bit):
    write_probe(tmp_path, [LITERAL])
    path = tmp_path / "probe.npz"
    whole = path.read_bytes()
    harmless = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            found = read_probe(tmp_path, 7)
        except UserError:
            continue
        harmless += 1  # a date in the archive
        np.testing.assert_array_equal(found.weight, LITERAL.weight)
        np.testing.assert_array_equal(found.bias, LITERAL.bias)
    assert harmless < len(whole) / 2


def test_a_foreign_file_is_one_line(tmp_path):
    path = tmp_path / "probe.npz"
    np.savez(path, weight=np.zeros(3))
    error_of(tmp_path)
    np.savez(path, weight=np.array([{}], dtype=object))  # pickled: never read
    error_of(tmp_path)
    path.unlink()
    write_kept(path, "something else 1", {"a": np.zeros(2)})
    assert "it holds 'something else 1'" in error_of(tmp_path)
    content = dict(np.load(path)) | {"kind": np.array("linear probe 1"), "a": np.ones(2)}
    np.savez(path, **content)
    assert "its content differs from what was saved" in error_of(tmp_path)


def test_nothing_is_overwritten_in_silence(tmp_path):
    write_probe(tmp_path, [LITERAL])
    assert write_probe(tmp_path, [LITERAL]) is None  # the same
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]
    other = LITERAL._replace(step=8)
    assert write_probe(tmp_path, [other]) == tmp_path / "probe_earlier.npz"
    assert write_probe(tmp_path, [LITERAL]) == tmp_path / "probe_earlier_again.npz"
    assert read_probe(tmp_path, 7) is not None
    (tmp_path / "probe_earlier.npz").rename(tmp_path / "probe.npz")
    assert read_probe(tmp_path, 7) is not None
