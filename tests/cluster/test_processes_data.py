"""Several processes read a folder of images: each its share, the same batches, every image evaluated once."""

import numpy as np
import pytest

from tests.encoded import write_folder
from tests.running import ended, results_of, rows_of, start, start_several


@pytest.mark.slow
def test_two_processes_train_on_a_folder_like_one(tmp_path):
    # 13 test and 9 validation images are not divisible by the batch.
    trees = write_folder(
        tmp_path / "trees", splits={"train": 10, "validation": 3, "test": 4}, classes=("ash", "birch", "cedar")
    )
    (trees / "test" / "ash" / "more.png").write_bytes((trees / "test" / "ash" / "001.png").read_bytes())
    changes = {
        "dataset.name": f"folder:{trees}",
        "dataset.image_size": 16,
        "batch_size": 16,
        "mix.block": 4,
        "steps": 6,
    }
    changes |= {"evaluate.batch_size": 8, "evaluate.every_steps": 3, "evaluate.neighbors": "(1, 3)"}
    (alone,) = ended([start(tmp_path / "one", changes, devices=4)])
    assert alone[0] == 0, alone[2]
    outcomes = ended(start_several(tmp_path / "two", changes, num=2, devices=2))
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    np.testing.assert_allclose([row["train/loss"] for row in two], [row["train/loss"] for row in one], rtol=1e-5)
    expected, found = results_of(tmp_path / "one"), results_of(tmp_path / "two")
    assert (found["num_test"], found["num_validation"]) == (13, 9)
    assert found["raw_pixel_knn_top1"] == expected["raw_pixel_knn_top1"]
    assert found["knn_top1"] == pytest.approx(
        expected["knn_top1"], abs=100 / 13 + 1e-6
    )  # at most one image, by rounding
