"""A whole run on a list of images: some without a label, one damaged, one missing; and an evaluation on another list."""

import json

import numpy as np
import pytest

from tests.encoded import encode, picture
from tests.running import told

pytestmark = pytest.mark.slow


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """pets.csv: 36 training images of which 4 have no label, and 12 test images of which one has none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    lines = []
    for number in range(48):
        name = f"images/{number:02}.png"
        (tmp_path / name).write_bytes(encode(picture(number % 3, number, (16, 16)), "PNG"))
        label = "" if number in (4, 8, 12, 16, 40) else ("cat", "dog", "fox")[number % 3]
        lines.append(f"{name},{label},{'train' if number < 36 else 'test'}")
    (tmp_path / "pets.csv").write_text("\n".join(["file,label,split", *lines]))
    (tmp_path / "images" / "07.png").write_bytes(b"broken")
    (tmp_path / "images" / "11.png").unlink()
    return tmp_path


def test_a_run_on_a_list_trains_on_what_has_no_label_and_evaluates_the_rest(pets, capfd):
    small = [f"--config.{field}" for field in ("steps=2", "batch_size=8", "model.width=4", "evaluate.every_epochs=0")]
    status, _, said = told(capfd, "train", "pets.csv", *small)
    assert status == 1
    assert "error: 1 of 48 images does not exist: images/11.png (line 13); paths are relative to" in said
    skip = ("dataset.skip_damaged=True", "dataset.max_damaged_share=0.1", "dataset.validation_fraction=0.2")
    small += [f"--config.{field}" for field in skip]
    status, printed, said = told(capfd, "train", "pets.csv", *small)
    assert status == 0, said
    assert "4 images of train without a label: each is trained as a class of its own, and not evaluated" in said
    assert "1 image of test without a label: not used" in said
    assert "test accuracy on 11 images of csv:pets.csv" in printed
    data = json.loads((pets / "runs" / "pets" / "dataset.json").read_text())
    # 34 of the 36 can be decoded, 4 of those without a label; a fifth of the other 30 is cut.
    assert (data["num_train"], data["num_validation"], data["num_test"], data["num_damaged"]) == (28, 6, 11, 2)
    damaged = (pets / "runs" / "pets" / "damaged_images.txt").read_text().splitlines()
    assert [line.split(":")[0].rpartition("/")[2] for line in damaged] == ["07.png", "11.png"]
    assert np.isfinite(json.loads((pets / "runs" / "pets" / "results.json").read_text())["linear_top1"])
    (pets / "some.csv").write_text(
        (pets / "pets.csv").read_text().replace(",train", "").replace(",test", "").replace(",split", "")
    )
    fields = [
        f"--dataset.{field}" for field in ("name=csv:some.csv", *(each.removeprefix("dataset.") for each in skip))
    ]
    status, printed, said = told(capfd, "evaluate", "runs/pets", *fields, "--output", "some.json")
    assert status == 0, said
    found = json.loads((pets / "some.json").read_text())
    # 46 images can be decoded; of the 41 with a label 8 are cut twice.
    assert (found["num_train"], found["num_validation"], found["num_test"]) == (25, 8, 8)
    # The same command resumes a complete run; a list with another label is another data set.
    assert told(capfd, "train", "pets.csv", *small)[0] == 0
    (pets / "pets.csv").write_text((pets / "pets.csv").read_text().replace("images/00.png,cat", "images/00.png,dog"))
    status, _, said = told(capfd, "train", "pets.csv", *small)
    assert status == 1
    assert "fingerprint" in said
