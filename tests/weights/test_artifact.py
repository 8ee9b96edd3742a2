"""Exported functions: the JSON beside them, and all that is refused before anything of them is parsed."""

import json
import math

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights import artifact
from gensupcon_jax.weights.artifact import json_path, read_artifact, stablehlo_function, write_artifact, write_stablehlo
from gensupcon_jax.weights.description import Description
from gensupcon_jax.weights.teachers import load_teacher
from tests.tiny import tiny_dataset

DESCRIPTION = Description(
    architecture="resnet_small",
    network={"stem": "cifar", "width": 4},
    num_features=3,
    image_shape=(2, 2, 1),
    center_share=0.875,
    interpolation="bilinear",
    mean=(0.5,),
    std=(0.25,),
    class_names=("cat", "dog"),
    step=7,
    fingerprint="0123456789abcdef",
    made_by="gensupcon_jax 9.9",
    run_fingerprint="fedcba9876543210",
)


def a_function(folder):
    """A tiny exported function in a new file."""

    def sums(images):
        return jnp.stack([images.sum((1, 2, 3)).astype(jnp.float32)] * 3, axis=1)

    shape = jax.export.symbolic_shape("batch, 2, 2, 1")
    exported = jax.export.export(jax.jit(sums))(jax.ShapeDtypeStruct(shape, jnp.uint8))
    path = folder / "x.stablehlo"
    write_stablehlo(path, exported, DESCRIPTION)
    return path


def error_of(path, function=read_artifact):
    with pytest.raises(UserError) as error:
        function(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_artifact_is_read_back_with_all_that_is_needed_to_use_it(tmp_path):
    found = read_artifact(a_function(tmp_path))
    assert found.description == DESCRIPTION
    assert found.made["jax"] == jax.__version__
    assert found.made["platforms"] == ["cpu"]
    features = stablehlo_function(found).call(np.ones((3, 2, 2, 1), np.uint8))
    assert features.tolist() == [[4, 4, 4]] * 3


def test_the_json_is_this(tmp_path):
    write_artifact(tmp_path / "x.onnx", b"content", DESCRIPTION, {"onnx": "1.2", "opset": 17})
    values = json.loads((tmp_path / "x.onnx.json").read_text())
    made_at = values.pop("made_at")
    assert [len(part) for part in made_at.split("-")] == [4, 2, 2]
    assert values == {
        "version": 1,
        "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "onnx": "1.2",
        "opset": 17,
        "architecture": "resnet_small",
        "num_features": 3,
        "image_shape": [2, 2, 1],
        "center_share": 0.875,
        "interpolation": "bilinear",
        "mean": [0.5],
        "std": [0.25],
        "class_names": ["cat", "dog"],
        "step": 7,
        "fingerprint": "0123456789abcdef",
        "made_by": "gensupcon_jax 9.9",
        "label_kind": None,
        "bins": None,
        "run_fingerprint": "fedcba9876543210",
        "stem": "cifar",
        "width": 4,
    }


def test_every_flipped_bit_is_found_before_the_file_is_parsed(tmp_path, monkeypatch):
    path = a_function(tmp_path)
    content = path.read_bytes()
    monkeypatch.setattr(jax.export, "deserialize", lambda content: pytest.fail("it was parsed"))
    for position in range(0, 8 * len(content), math.ceil(8 * len(content) / 200)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert "x.stablehlo is damaged: its " in error_of(path)
    path.write_bytes(content)
    assert read_artifact(path).content == content


def test_a_truncated_an_empty_and_a_missing_file(tmp_path):
    path = a_function(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "is damaged" in error_of(path)
    path.write_bytes(b"")
    assert "is damaged: its 0 bytes do not have the checksum in x.stablehlo.json; copy both files again" in error_of(
        path
    )
    path.unlink()
    assert error_of(path) == f"{path} does not exist; give the path of a .stablehlo file"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (None, "x.stablehlo.json is missing: it has the checksum"),
        ("{", "x.stablehlo.json cannot be read"),
        ("[]", "it contains list, not a JSON object"),
        ("\udcff", "x.stablehlo.json cannot be read"),
        (
            {"version": 2},
            "is of version 2, this program reads version 1; install the version that wrote it (gensupcon_jax 9.9)",
        ),
        ({"mean": 0.5}, "mean is 0.5; allowed: 1 or 3 numbers"),
        ({"architecture": None}, "does not say architecture"),
    ],
)
def test_a_json_that_is_missing_damaged_or_of_another_version(tmp_path, change, part):
    path = a_function(tmp_path)
    values = json.loads(json_path(path).read_text())
    if change is None:
        json_path(path).unlink()
    elif isinstance(change, str):
        json_path(path).write_bytes(change.encode(errors="surrogateescape"))
    else:
        changed = {name: value for name, value in (values | change).items() if value is not None}
        json_path(path).write_text(json.dumps(changed))
    assert part in error_of(path)


def test_an_artifact_of_another_jax_is_one_line(tmp_path, monkeypatch):
    found = read_artifact(a_function(tmp_path))
    newer = found._replace(made=found.made | {"calling_convention": 99, "jax": "0.99.0", "made_at": "2031-01-02"})
    assert "x.stablehlo was made 2031-01-02 with jax 0.99.0, with calling convention 99; jax " in error_of(
        newer, stablehlo_function
    )
    later = found._replace(content=b"a format that is not known yet")
    assert f"jax {jax.__version__} cannot read it (" in error_of(later, stablehlo_function)


def test_neither_file_is_overwritten(tmp_path):
    path = a_function(tmp_path)
    before = path.read_bytes(), json_path(path).read_bytes()
    with pytest.raises(UserError, match="already exists and is kept"):
        write_artifact(path, b"new", DESCRIPTION, {})
    path.unlink()
    with pytest.raises(UserError, match=r"x.stablehlo.json already exists and is kept"):
        write_artifact(path, b"new", DESCRIPTION, {})
    assert not path.exists()
    assert json_path(path).read_bytes() == before[1]


def test_what_jax_promises_is_said():
    assert "up to 6 months after" in artifact.PROMISE
    assert "up to 3 weeks before" in artifact.PROMISE


def test_the_checksum_of_a_teacher_is_verified_where_it_has_one(tmp_path, monkeypatch):
    path = a_function(tmp_path)
    assert artifact.content_of(path) == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(jax.export, "deserialize", lambda content: pytest.fail("it was parsed"))
    with pytest.raises(UserError, match="is damaged"):
        load_teacher(kind="stablehlo", path=path, dataset_description=tiny_dataset().description())
    json_path(path).unlink()
    assert artifact.content_of(path) == path.read_bytes()
