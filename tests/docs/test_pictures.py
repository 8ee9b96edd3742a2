"""The pictures of docs/method.md are drawn from a run: what they show is what the mixing and the encoder give."""

import matplotlib.image
import numpy as np
import pytest

from benchmarks import pictures
from gensupcon_jax.data.datasets import digits
from gensupcon_jax.store.saved_runs import read_run
from tests import ROOT
from tests.store.test_saved_runs import make_run


@pytest.mark.slow
def test_the_pictures_are_drawn_from_a_run(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["pictures", "--workdir", str(folder), "--output", str(tmp_path / "drawn")])
    pictures.main()
    drawn = {path.name: matplotlib.image.imread(path)[..., :3] for path in (tmp_path / "drawn").iterdir()}
    assert set(drawn) == {"mixing.png", "similarity.png", "anchor.png"}
    assert all(picture.std() > 0.05 for picture in drawn.values())  # none is blank
    # The committed ones have the same size: they were drawn by this program, of another run.
    for name, picture in drawn.items():
        assert matplotlib.image.imread(ROOT / "docs/pictures" / name).shape[:2] == picture.shape[:2]


def test_what_is_drawn(tmp_path):
    embedded = pictures.embed(read_run(make_run(tmp_path / "run")), digits().test)
    assert embedded.images.shape == (40, 8, 8, 1)
    np.testing.assert_allclose(embedded.labels.sum(axis=1), 1.0, atol=1e-6)
    assert (np.diff(embedded.labels.argmax(axis=1)) >= 0).all()  # sorted by main class
    for embeddings in (embedded.before, embedded.after):
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    assert np.abs(embedded.before - embedded.after).max() > 0.1


def test_the_label_of_an_image_in_words():
    assert pictures.label_text(np.array([0.0, 0.251, 0.0, 0.749])) == "75 % 3\n25 % 1"
    assert pictures.label_text(np.array([0.0, 1.0, 0.0])) == "100 % 1"
