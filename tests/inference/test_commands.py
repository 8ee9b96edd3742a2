"""embed, predict and neighbors as a user types them: files, tables, damaged images, and every mistake in one line."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gensupcon_jax import __main__
from gensupcon_jax.inference.encoder import Encoder
from tests import ROOT
from tests.encoded import encode
from tests.forking import Forked
from tests.running import ended, told, wait_for
from tests.tiny import tiny_dataset

DATASET = tiny_dataset()


def write_png(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DATASET.test.images[number][..., 0]).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Test images in folders that are their classes, one that is damaged by its header and one by its content."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    for number in range(12):
        write_png(folder / str(DATASET.test.classes[number]) / f"{number:02}.png", number)
    (folder / "0" / "broken.png").write_bytes(b"broken")
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
    whole = encode(Image.fromarray(noise))
    (folder / "1" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


def names_in_order(photos):
    return sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png") if path.name != "broken.png")


def rows_of(path):
    return list(csv.reader(path.open(newline="")))


def test_embed_writes_the_features_of_all_images_that_can_be_decoded(trained, photos, tmp_path, capfd):
    output = tmp_path / "new" / "x.npz"
    status, printed, said = told(capfd, "embed", trained, photos, "--output", output, "--predict")
    assert (status, printed) == (0, f"12 images, 16 features each: {output}\n")
    damaged = (tmp_path / "new" / "x.npz.damaged.txt").read_text()
    assert [line.split(":")[0] for line in damaged.splitlines()] == ["0/broken.png", "1/cut.jpg"]
    for line in damaged.splitlines():
        assert f"cannot be decoded: {line}\n" in said
    assert said.endswith(f"2 images were left out; see {tmp_path / 'new' / 'x.npz.damaged.txt'}\n")
    with np.load(output) as file:
        assert file["name"].tolist() == names_in_order(photos)
        encoder = Encoder.load(trained)
        assert str(file["fingerprint"]) == encoder.fingerprint
        paths = [photos / name for name in file["name"]]
        np.testing.assert_allclose(file["features"], encoder.embed(paths), atol=1e-5)
        predictions = encoder.predict(paths)
        assert file["prediction"].tolist() == predictions.names
        np.testing.assert_allclose(file["probability"], predictions.probabilities.max(1), atol=1e-5)
    assert not (tmp_path / "new" / "x.npz.parts").exists()


def test_an_output_that_exists_is_kept_unless_it_may_be_overwritten(trained, photos, tmp_path, capfd):
    output = tmp_path / "x.csv"
    output.write_text("mine")
    status, printed, said = told(capfd, "embed", trained, photos / names_in_order(photos)[0], "--output", output)
    assert (status, printed) == (1, "")
    assert said == (
        f"error: --output is {output}, which exists and is kept; choose another file, or replace it with --overwrite\n"
    )
    assert output.read_text() == "mine"
    assert told(capfd, "embed", trained, photos / names_in_order(photos)[0], "--output", output, "--overwrite")[0] == 0
    header, row = rows_of(output)
    assert header[:2] == ["name", "feature_0"] and row[0] == str(photos / names_in_order(photos)[0])


def test_strict_ends_with_an_error_and_writes_nothing(trained, photos, tmp_path, capfd):
    only_cut = tmp_path / "cut"
    only_cut.mkdir()
    shutil.copy(photos / "1" / "cut.jpg", only_cut)
    write_png(only_cut / "whole.png", 0)
    for folder in (photos, only_cut):  # by its header, before the encoder is read; by its content
        status, printed, said = told(capfd, "embed", trained, folder, "--output", tmp_path / "x.npz", "--strict")
        assert (status, printed) == (1, "")
        assert said.splitlines()[-1].startswith("error: 1 image cannot be decoded: ")
        assert said.endswith("; repair or remove what is damaged, or leave --strict out\n")
    assert not (tmp_path / "x.npz").exists()
    status, _, said = told(capfd, "embed", trained, only_cut / "cut.jpg", "--output", tmp_path / "x.npz")
    assert status == 1 and "error: the only image cannot be decoded: " in said


def test_predict_writes_classes_and_scores_folders(trained, photos, tmp_path, capfd):
    status, printed, _ = told(capfd, "predict", trained, photos, "--output", tmp_path / "x.csv", "--top", 2)
    assert status == 0
    header, *rows = rows_of(tmp_path / "x.csv")
    assert header == ["name", "class", "probability", "class_2", "probability_2", "folder"]
    predictions = Encoder.load(trained).predict([photos / row[0] for row in rows])
    assert [row[1] for row in rows] == predictions.names
    assert [float(row[2]) for row in rows] == pytest.approx(predictions.probabilities.max(1), abs=1e-4)
    assert all(float(row[2]) >= float(row[4]) for row in rows)
    assert [row[-1] for row in rows] == [row[0].split("/")[0] for row in rows]
    accuracy = 100 * np.mean([row[1] == row[-1] for row in rows])
    assert (
        f"12 images, classes by the probe: {tmp_path / 'x.csv'}\n\naccuracy {accuracy:.1f} % of 12 images\n" in printed
    )
    assert "class              images  precision  recall     F1\n0 " in printed


def test_predict_and_embed_take_a_list_and_score_its_labels(trained, photos, tmp_path, capfd):
    listed = [photos / name for name in names_in_order(photos)]
    lines = [f"{os.path.relpath(path, tmp_path)},{path.parent.name}" for path in reversed(listed)]
    (tmp_path / "some.csv").write_text("\n".join(["file,label", *lines]))
    status, printed, _ = told(
        capfd, "predict", trained, tmp_path / "some.csv", "--output", tmp_path / "x.csv", "--top", 1
    )
    assert status == 0
    header, *rows = rows_of(tmp_path / "x.csv")
    assert header == ["name", "class", "probability", "label"]
    assert [[row[0], row[3]] for row in rows] == [line.split(",") for line in lines]
    accuracy = 100 * np.mean([row[1] == row[3] for row in rows])
    assert f"accuracy {accuracy:.1f} % of 12 images\n" in printed
    status, _, said = told(capfd, "embed", trained, tmp_path / "some.csv", "--output", tmp_path / "x.npz")
    assert (status, said) == (0, "")
    with np.load(tmp_path / "x.npz") as file:
        assert file["name"].tolist() == [line.split(",")[0] for line in lines]
        assert str(file["folder"]) == str(tmp_path)
        np.testing.assert_allclose(file["features"], Encoder.load(trained).embed(listed[::-1]), atol=1e-5)
    status, printed, _ = told(
        capfd, "neighbors", trained, listed[3], "--in", tmp_path / "some.csv", "--num_neighbors", 1
    )
    assert status == 0
    # The query is in the list, by another path, and is not its own neighbor.
    assert printed.splitlines()[-1].rpartition("/")[2] in {path.name for path in listed} - {listed[3].name}
    (tmp_path / "bad.csv").write_text("file\nnone.png\n")
    status, _, said = told(capfd, "embed", trained, tmp_path / "bad.csv", "--output", tmp_path / "y.npz")
    assert status == 1
    assert said.startswith("error: 1 of 1 image does not exist: none.png (line 2); paths are relative to")


def test_predict_without_an_output_prints_the_table(trained, photos, tmp_path, capfd):
    for number in range(2):
        write_png(tmp_path / "elephants" / f"{number}.png", number)
    status, printed, said = told(capfd, "predict", trained, tmp_path)
    assert status == 0
    lines = printed.splitlines()
    assert lines[0].split() == ["name", "class", "probability", "class_2", "probability_2", "class_3", "probability_3"]
    assert [line.split()[0] for line in lines[1:]] == ["elephants/0.png", "elephants/1.png"]
    assert said.endswith(
        "warning: 1 folder is not a class of the source: elephants; 2 images are not scored (its classes: 0, 1, 2, 3)\n"
    )


def test_a_file_of_weights_is_a_source_too(trained, photos, tmp_path, capfd):
    told(capfd, "weights", "export", "--workdir", trained, "--output", tmp_path / "encoder.safetensors")
    files = sorted(photos.glob("2/*.png"))
    for source, name in ((trained, "run.npz"), (tmp_path / "encoder.safetensors", "file.npz")):
        assert told(capfd, "embed", source, *files, "--output", tmp_path / name)[0] == 0
    with np.load(tmp_path / "run.npz") as run, np.load(tmp_path / "file.npz") as file:
        np.testing.assert_allclose(file["features"], run["features"], atol=1e-5)
        assert str(file["source"]) == str(tmp_path / "encoder.safetensors")


@pytest.fixture(scope="module")
def features_file(trained, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "photos.npz"
    __main__.main(["embed", str(trained), str(photos), "--output", str(path)])
    return path


def test_neighbors_of_a_folder_and_of_a_file_of_features_are_the_same(trained, photos, features_file, tmp_path, capfd):
    query = photos / names_in_order(photos)[0]
    arguments = ("neighbors", trained, query, "--num_neighbors", 3)
    status, from_folder, said = told(capfd, *arguments, "--in", photos)
    assert status == 0 and "2 images were left out\n" in said
    status, from_file, said = told(capfd, *arguments, "--in", features_file, "--output", tmp_path / "n.html")
    assert (status, said) == (0, "")
    assert from_file == f"{from_folder}\ngallery: {tmp_path / 'n.html'}\n"
    head, columns, *rows = from_folder.splitlines()
    assert head == f"{query} (its own file is in the set, and left out)"
    assert columns.split() == ["rank", "cosine", "file"] and len(rows) == 3
    names = names_in_order(photos)
    features = Encoder.load(trained).embed([photos / name for name in names])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit[names.index(str(query.relative_to(photos)))]
    expected = [place for place in np.argsort(-cosines) if names[place] != str(query.relative_to(photos))][:3]
    assert [row.split()[2] for row in rows] == [str(photos / names[place]) for place in expected]
    assert [float(row.split()[1]) for row in rows] == pytest.approx(cosines[expected], abs=6e-4)
    assert (tmp_path / "n.html").read_text().count("data:image/png;base64,") == 4


def test_features_of_another_step_are_refused(trained, photos, features_file, capfd):
    status, printed, said = told(capfd, "neighbors", trained, photos / "2", "--in", features_file, "--step", 3)
    assert (status, printed) == (1, "")
    assert said.startswith(
        f"error: --in is {features_file}, whose features are of another encoder ({trained}, step 6) "
    )
    assert f"than SOURCE ({trained}, step 3); give that SOURCE and --step, or write it again: gensupcon embed" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["embed"], ("SOURCE", "embed --help")),
        (["embed", "RUN", "PHOTOS"], ("--output", "embed --help")),
        (["embed", "nowhere", "PHOTOS", "--output", "x.npz"], ("SOURCE is nowhere, which does not exist", "workdir")),
        (["embed", "PHOTOS", "PHOTOS", "--output", "x.npz"], ("contains no config.json", "workdir")),
        (["embed", "RUN", "nowhere", "--output", "x.npz"], ("nowhere does not exist", "folder with images")),
        (["embed", "RUN", "EMPTY", "--output", "x.npz"], ("contains no images",)),
        (["embed", "RUN", "PHOTOS", "--output", "x.txt"], ("--output is 'x.txt'", ".npz, .csv, .parquet, .npy")),
        (["embed", "RUN", "PHOTOS", "--output", "EMPTY.npz/x.npz"], ("cannot be written",)),
        (
            ["embed", "RUN", "PHOTOS", "--output", "x.npz", "--step", "4"],
            ("no checkpoint of step 4", "saved steps 3", "6"),
        ),
        (["embed", "RUN", "PHOTOS", "--output", "x.npz", "--step", "newest"], ("is 'newest'", "best, last")),
        (["embed", "RUN", "PHOTOS", "--output", "x.npz", "--batch_size", "0"], ("--batch_size", "from 1")),
        (["embed", "RUN", "PHOTOS", "--output", "x.npz", "--bach_size", "2"], ("did you mean --batch_size?",)),
        (
            ["embed", "RUN", "PHOTOS", "--output", "x.npz", "--image_size", "32"],
            ("says its own image_size",),
        ),
        (
            ["embed", "RUN", "PHOTOS", "--output", "x.npz", "--mean", "gray"],
            ("--mean is 'gray'", "numbers with commas"),
        ),
        (["predict", "RUN", "PHOTOS", "--output", "x.npz"], ("allowed: a file that ends with .csv",)),
        (["predict", "RUN", "EMPTY"], ("contains no images",)),
        (["predict", "RUN", "PHOTOS", "--output="], ("--output is ''", "ends with .csv")),
        (["neighbors", "RUN", "QUERY"], ("--in",)),
        (["neighbors", "RUN", "PHOTOS/0/broken.png", "--in", "PHOTOS"], ("the query", "broken.png cannot be decoded")),
        (["neighbors", "RUN", "PHOTOS/1/cut.jpg", "--in", "PHOTOS"], ("the query", "cut.jpg cannot be decoded")),
        (["neighbors", "RUN", "QUERY", "--in", "nowhere"], ("--in is nowhere, which does not exist",)),
        (["neighbors", "RUN", "QUERY", "--in", "nowhere.npz"], ("nowhere.npz, which does not exist",)),
        (["neighbors", "RUN", "QUERY", "--in", "EMPTY.npz"], ("EMPTY.npz cannot be read", "gensupcon embed")),
        (["neighbors", "RUN", "QUERY", "--in", "PHOTOS", "--output", "x.png"], ("ends with .html",)),
    ],
)
def test_every_mistake_is_one_line(trained, photos, tmp_path, monkeypatch, capfd, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "EMPTY.npz").write_bytes(b"nothing")
    (tmp_path / "RUN").symlink_to(trained)
    (tmp_path / "PHOTOS").symlink_to(photos)
    shutil.copy(photos / names_in_order(photos)[0], tmp_path / "QUERY")
    status, printed, said = told(capfd, *arguments)
    assert (status, printed) == (1, "")
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert [part for part in parts if part not in said] == []
    assert not list(tmp_path.glob("x.*"))


def test_color_images_for_an_encoder_of_gray_images_are_one_line(trained, tmp_path, capfd):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8) + np.array([200, 0, 0], np.uint8)).save(tmp_path / "red.png")
    status, _, said = told(capfd, "embed", trained, tmp_path, "--output", tmp_path / "x.npz")
    assert status == 0
    assert said.count("\n") == 1 and "the image is in color and becomes gray (luma)" in said


def embed(arguments):
    __main__.main(arguments)


def test_a_killed_embed_resumes_to_the_same_file(trained, photos, tmp_path, capfd):
    folder = tmp_path / "many"
    for number in range(120):
        write_png(folder / f"{number:03}.png", number % 32)
    shutil.copy(photos / "1" / "cut.jpg", folder / "100.jpg")
    arguments = ["embed", str(trained), str(folder), "--part_limit", "16", "--predict", "--output"]
    whole, killed = tmp_path / "whole.npz", tmp_path / "killed.npz"
    assert told(capfd, *arguments, whole)[0] == 0
    environment = {"XLA_FLAGS": os.environ["XLA_FLAGS"]}  # the same program as in this process
    process = Forked(embed, [*arguments, str(killed)], environment=environment)
    parts = tmp_path / "killed.npz.parts"
    wait_for(lambda: len(list(parts.glob("[0-9]*.npz"))) >= 3)
    process.kill()
    ((status, *_),) = ended([process])
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.npz")}
    assert status == -9 and 3 <= len(kept) < 16 and not killed.exists()
    (parts / "000000000.npz").write_bytes(b"damaged on disk")  # that part alone is computed again
    status, printed, said = told(capfd, *arguments, killed)
    assert status == 0 and printed == f"120 images, 16 features each: {killed}\n"
    assert f"resumes from {len(kept)} parts of 8 images in {parts}\n" in said
    assert not parts.exists()
    with np.load(whole) as first, np.load(killed) as second:
        assert sorted(first) == sorted(second)
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert (tmp_path / "killed.npz.damaged.txt").read_text() == (tmp_path / "whole.npz.damaged.txt").read_text()


def test_parts_of_other_images_are_not_taken_over(trained, tmp_path, capfd):
    parts = tmp_path / "x.npz.parts"
    parts.mkdir()
    (parts / "about.json").write_text('{"fingerprint": "of something else"}')
    (parts / "000000000.npz").write_bytes(b"of something else")
    for number in range(3):
        write_png(tmp_path / "few" / f"{number}.png", number)
    status, _, said = told(capfd, "embed", trained, tmp_path / "few", "--output", tmp_path / "x.npz", "--part_limit", 2)
    assert status == 0
    assert said == (
        f"the parts in {parts} were of another encoder, other images or another --batch_size: starts anew\n"
    )
    with np.load(tmp_path / "x.npz") as file:
        assert len(file["features"]) == 3


@pytest.mark.parametrize("buffering", ["", "1"])
def test_nobody_reads_what_is_printed(buffering):
    program = f"{sys.executable} -m gensupcon_jax"
    done = subprocess.run(
        ["bash", "-c", f"(sleep 0.2; {program} help; {program} embed --help) | true"],
        cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONUNBUFFERED": buffering},
    )  # fmt: skip
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["embed", "predict", "neighbors"])
def test_help_shows_an_example(capfd, command):
    status, printed, said = told(capfd, command, "--help")
    assert (status, said) == (0, "")
    assert f"gensupcon {command} runs/photos " in printed
