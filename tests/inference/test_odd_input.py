"""Odd file names, odd files of features, and odd images: each is read, or named in one line."""

import errno
import io
import os
import shutil
import sys
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference import evaluate
from gensupcon_jax.inference.embed_files import About, FeatureTable, read_features, write_features
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.inference.images import find_images
from gensupcon_jax.inference.pixels import channels_note
from tests.running import told
from tests.tiny import tiny_dataset

IMAGES = tiny_dataset().test.images
ODD_NAMES = ("two\nlines.png", "red\x1b[31m.png", "broken\udcff.png", "日本.png")


@pytest.fixture(scope="module")
def encoder(trained):
    return Encoder.load(trained)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of 4 images with odd names, one cut in the middle, and a link that leads to itself."""
    folder = tmp_path_factory.mktemp("odd")
    for number, name in enumerate(ODD_NAMES):
        Image.fromarray(IMAGES[number][..., 0]).save(folder / name)
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)).save(whole, "png")
    (folder / "cut\nhere.png").write_bytes(whole.getvalue()[:2000])
    (folder / "self.png").symlink_to("self.png")
    return folder


def test_each_image_is_one_line_whatever_its_name(trained, odd, tmp_path, capfd):
    status, printed, said = told(capfd, "predict", trained, odd)
    assert status == 0
    names = [line.split()[0] for line in printed.splitlines()[1:5]]
    assert names == [r"broken\udcff.png", r"red\x1b[31m.png", r"two\nlines.png", "日本.png"]
    assert said.splitlines() == [
        "cannot be decoded: self.png: the file cannot be read (Too many levels of symbolic links)",
        next(line for line in said.splitlines() if line.startswith(r"cannot be decoded: cut\nhere.png: ")),
        "2 images were left out",
    ]
    assert told(capfd, "embed", trained, odd, "--output", tmp_path / "x.npz")[0] == 0
    assert len((tmp_path / "x.npz.damaged.txt").read_text().splitlines()) == 2
    status, printed, _ = told(capfd, "neighbors", trained, odd / ODD_NAMES[0], "--in", tmp_path / "x.npz")
    assert status == 0 and len(printed.splitlines()) == 2 + 3
    assert read_features(tmp_path / "x.npz").names == sorted(ODD_NAMES)


def test_names_that_the_terminal_cannot_show_are_escapes(monkeypatch):
    for encoding, shown in (("ascii", rb"\u65e5 \udcff"), ("utf-8", "日 ".encode() + rb"\udcff")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        command_line.print_any_text()
        print("日 \udcff", end="", flush=True)
        assert stream.buffer.getvalue() == shown


def test_what_the_system_refuses_is_one_line(monkeypatch, capfd, trained, tmp_path):
    long = "x" * 300
    status, printed, said = told(capfd, "embed", long, tmp_path, "--output", tmp_path / "x.npz")
    assert (status, printed, said) == (1, "", f"error: {long}: File name too long\n")
    with pytest.raises(SystemExit, match=r"^error: standard output: No space left on device$"):
        command_line.end(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OSError, match="a bug"):
        command_line.end(OSError("a bug"))


@pytest.mark.parametrize("command", ["embed", "predict"])
def test_a_source_that_cannot_predict_is_refused_before_the_images_are_read(trained, odd, tmp_path, capfd, command):
    file = tmp_path / "encoder.safetensors"
    told(capfd, "export", trained, "--output", file)
    flags = ["--predict", "--output", tmp_path / "x.csv"] if command == "embed" else []
    status, printed, said = told(capfd, command, file, odd, *flags)
    assert (status, printed) == (1, "")
    assert said.startswith(f"error: {file} has no classifier") and said.count("\n") == 1


def test_the_names_beside_an_npy_are_kept_too(trained, odd, tmp_path, capfd):
    (tmp_path / "x.names.csv").write_text("mine")
    status, _, said = told(capfd, "embed", trained, odd / ODD_NAMES[0], "--output", tmp_path / "x.npy")
    assert status == 1 and f"whose names belong into {tmp_path / 'x.names.csv'}, which exists and is kept" in said
    assert (tmp_path / "x.names.csv").read_text() == "mine" and not (tmp_path / "x.npy").exists()


def test_the_only_image_of_a_set_has_no_neighbors(trained, tmp_path, capfd):
    Image.fromarray(IMAGES[0][..., 0]).save(tmp_path / "only.png")
    status, printed, _ = told(capfd, "neighbors", trained, tmp_path / "only.png", "--in", tmp_path)
    only = tmp_path / "only.png"
    assert (status, printed) == (0, f"{only} (its own file is in the set, and left out): there is no other image\n")
    status, _, said = told(capfd, "neighbors", trained, only, "--in", only)
    assert (status, said) == (
        1,
        f"error: --in is {only}, which is a file; allowed: a folder, a list (.csv, .parquet), or an .npz of gensupcon embed\n",
    )


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"name": np.array(["a"])}, r"names of shape \[1\] and features of shape \[2, 3\]"),
        ({"features": np.zeros(2, np.float32)}, r"features of shape \[2\]"),
        ({"features": np.zeros((2, 0), np.float32)}, r"features of shape \[2, 0\]"),
        ({"features": np.full((2, 3), np.nan, np.float32)}, "are not all finite"),
        ({"features": np.zeros((2, 3), complex)}, "are complex128"),
        ({"features": np.full((2, 3), "x")}, "are <U1"),
    ],
)
def test_features_that_do_not_fit_together_are_refused(tmp_path, changes, found):
    path = tmp_path / "x.npz"
    write_features(path, FeatureTable(["a", "b"], np.ones((2, 3), np.float32), About("run", "1", "0" * 16, "/photos")))
    with np.load(path) as file:
        content = dict(file) | changes
    np.savez(path, **content)
    with pytest.raises(UserError, match=rf"{found}.*; allowed: an .npz that gensupcon embed has written"):
        read_features(path)


def test_images_of_several_kinds_and_iterators_are_embedded(encoder, odd):
    path, pil = odd / ODD_NAMES[1], Image.fromarray(IMAGES[2][..., 0])
    expected = encoder.embed(IMAGES[:3])
    np.testing.assert_allclose(encoder.embed([IMAGES[0], path, pil]), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.embed(image for image in IMAGES[:3]), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.embed(np.array([str(path), str(path)])), expected[[1, 1]], atol=1e-6)
    np.testing.assert_allclose(encoder.embed(odd.glob("red*.png")), expected[[1]], atol=1e-6)


def test_images_that_cannot_be_embedded_are_named(encoder, odd):
    cut = odd / "cut\nhere.png"
    named = r"1 image cannot be decoded: .*cut\\nhere.png \(.*; repair or remove what is damaged, or use `outputs"
    for images in ([odd / ODD_NAMES[0], cut], [cut, IMAGES[0]]):
        with pytest.raises(UserError, match=named):
            encoder.embed(images)
    with pytest.raises(UserError, match=named):
        encoder.preprocess(cut)
    wrong = [
        ([Image.open(cut)], "the PIL image .* cannot be decoded"),
        ([Image.new("L", (0, 3))], "a PIL image of 0 x 3 pixels; allowed: "),
        ([Image.new("F", (3, 3))], r"a PIL image with floats \(mode F\); allowed: "),
        ([Image.new("La", (3, 3))], "the PIL image of mode La cannot be decoded"),
        (Image.new("L", (3, 3)), r"one PIL image; pass \[image\]"),
        ([[[1, 2], [3]]], "cannot be read as an array"),
        (np.full((1, 8, 8, 1), np.nan), "NaN or infinite"),
    ]
    for images, found in wrong:
        with pytest.raises(UserError, match=found):
            encoder.embed(images)
    with pytest.raises(UserError, match=r"features have shape \(2, 3\); allowed: \[image, 16\]"):
        encoder.classify(np.zeros((2, 3), np.float32))
    assert [name for name, _ in find_images(odd).damaged] == ["self.png"]


def test_color_is_said_in_the_right_number():
    assert channels_note(0, 1, 1) == "the image is in color and becomes gray (luma), as the encoder takes gray images"
    assert str(channels_note(1, 2, 1)).startswith("1 of 2 images is in color and becomes gray")
    assert str(channels_note(1, 3, 1)).startswith("2 of 3 images are in color and become gray")
    assert str(channels_note(1, 1, 3)).startswith("the image is gray and is repeated in 3 channels")
    assert channels_note(0, 0, 3) is None


def test_evaluate_pads_no_batch_beyond_the_images(encoder):
    dataset = tiny_dataset()
    fields = SimpleNamespace(neighbors=(1,), knn_temperature=0.1, probe_penalties=(0.1,))
    options = Namespace(config=SimpleNamespace(evaluate=fields), batch_size=10**9)
    settings = evaluate._settings(encoder, dataset, options)
    assert dataset.train.num_images == 96
    assert (
        96 <= settings.extraction["batch_size"] < 2 * 16 * 8
    )  # the billion is halved until a half would be below 16 per device


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("config.json", "[1]", "config.json cannot be read (it contains list, not a JSON object)"),
        ("config.json", '{"model": 3}', "config.json: model is 3; allowed: an object with its fields"),
        ("dataset.json", "{}", "dataset.json is not that of a run: it has no image_shape"),
        ("dataset.json", "no JSON", "dataset.json cannot be read"),
    ],
)
def test_files_of_another_program_are_not_a_run(trained, tmp_path, capfd, name, content, found):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "run" / name).write_text(content)
    status, printed, said = told(capfd, "weights", "show", tmp_path / "run")
    assert (status, printed) == (1, "") and found in said and said.count("\n") == 1
