"""The fields that differ: equal ones are left out, missing ones are absent."""

from gensupcon_jax.compare.fields import differences, new_fields, num_equal_fields
from gensupcon_jax.compare.runs import read_runs
from tests.compare.workdirs import TEST, make_run


def test_fields_that_differ(tmp_path):
    runs = read_runs([
        make_run(tmp_path / "a", augment={"crop_scale": [0.2, 1.0]}),
        make_run(tmp_path / "b", augment={"crop_scale": [0.5, 1.0]}, loss={"temperature": 0.25}, note=None),
        make_run(tmp_path / "c", loss={"temperature": 1e-7}),
    ])  # fmt: skip
    assert [tuple(row) for row in differences(runs)] == [
        ("loss.temperature", ("0.1", "0.25", "1e-07")),
        ("augment.crop_scale", ("(0.2, 1)", "(0.5, 1)", "absent")),
        ("note", ("absent", "none", "absent")),
    ]
    assert num_equal_fields(runs) == 4  # seed, objective, epochs, mix.kind


def test_equal_runs_have_no_rows(tmp_path):
    runs = read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b")])
    assert differences(runs) == [] and num_equal_fields(runs) == 5


def test_data_that_differ(tmp_path):
    other = TEST._replace(images=TEST.images + 1)
    runs = read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", test=other)])
    assert [row.field for row in differences(runs)] == ["data: fingerprint"]


def test_an_absent_field_counts_as_its_default(tmp_path):
    runs = read_runs(
        [
            make_run(tmp_path / "a"),
            make_run(tmp_path / "b", batch_size=1024, seed=1),
            make_run(tmp_path / "c", batch_size=64),
        ]
    )
    assert [tuple(row) for row in differences(runs[:2])] == [("seed", ("0", "1"))]
    assert new_fields(runs[:2]) == ["batch_size"]
    assert [tuple(row) for row in differences(runs)] == [
        ("seed", ("0", "1", "0")),
        ("batch_size", ("absent", "1024", "64")),
    ]
    assert new_fields(runs) == []
