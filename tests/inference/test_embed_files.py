"""Files of features: every format holds the same, is written whole, and an .npz is read again."""

import csv
import importlib.util

import numpy as np
import pyarrow.parquet as parquet
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.inference import embed_files
from gensupcon_jax.inference.embed_files import (
    About,
    FeatureTable,
    check_format,
    names_file,
    read_features,
    write_features,
)

FEATURES = np.array([[0.1, -2.5e-8], [3.0, np.float32(1) / 3], [0.0, 7.25]], np.float32)
NAMES = ["a/1.png", 'b/"two", 2.jpg', "c/bytes_\udcff.jpg"]  # the last: a byte that is not UTF-8
ABOUT = About("runs/x", "6", "0123456789abcdef", "/photos")
PLAIN = FeatureTable(NAMES, FEATURES, ABOUT)
PREDICTED = PLAIN._replace(predictions=["cat", "dog", "cat"], probabilities=np.array([0.5, 0.25, 1.0], np.float32))


def rows_of(path):
    return list(csv.reader(path.open(newline="", encoding="utf-8", errors="surrogateescape")))


def test_an_npz_is_read_again(tmp_path):
    write_features(tmp_path / "x.npz", PLAIN)
    found = read_features(tmp_path / "x.npz")
    assert (found.names, found.about) == (NAMES, ABOUT)
    np.testing.assert_array_equal(found.features, FEATURES)
    with np.load(tmp_path / "x.npz") as file:
        assert sorted(file) == ["features", "fingerprint", "folder", "name", "source", "step"]
    write_features(tmp_path / "x.npz", PREDICTED)
    with np.load(tmp_path / "x.npz") as file:
        assert (file["prediction"].tolist(), file["probability"].tolist()) == (["cat", "dog", "cat"], [0.5, 0.25, 1.0])


def test_a_csv_has_the_same_float32_numbers(tmp_path):
    write_features(tmp_path / "x.csv", PREDICTED)
    header, *rows = rows_of(tmp_path / "x.csv")
    assert header == ["name", "prediction", "probability", "feature_0", "feature_1"]
    assert [row[0] for row in rows] == NAMES
    assert rows[0] == ["a/1.png", "cat", "0.5", "0.1", "-2.5e-08"]
    np.testing.assert_array_equal(np.array([row[3:] for row in rows], np.float32), FEATURES)


def test_a_parquet_has_one_column_of_features(tmp_path):
    write_features(tmp_path / "x.parquet", PREDICTED)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["name", "prediction", "probability", "features"]
    assert table["name"].to_pylist() == [*NAMES[:2], "c/bytes_\\xff.jpg"]
    np.testing.assert_array_equal(np.stack(table["features"].to_numpy()), FEATURES)
    assert table.schema.metadata[b"fingerprint"] == b"0123456789abcdef"


def test_an_npy_has_its_names_in_a_file_beside_it(tmp_path):
    write_features(tmp_path / "x.npy", PREDICTED)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), FEATURES)
    assert names_file(tmp_path / "x.npy") == tmp_path / "x.names.csv"
    header, *rows = rows_of(tmp_path / "x.names.csv")
    assert header == ["name", "prediction", "probability"]
    assert rows == [[NAMES[0], "cat", "0.5"], [NAMES[1], "dog", "0.25"], [NAMES[2], "cat", "1.0"]]


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet", ".npy"])
def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"x{suffix}"
    write_features(path, PLAIN)
    before = path.read_bytes()
    write_whole_fn = embed_files._WRITERS[suffix]

    def write_on_a_full_disk(unfinished, table):
        write_whole_fn(unfinished, table)
        unfinished.write_bytes(unfinished.read_bytes()[:10])
        raise OSError("no space left on device")

    monkeypatch.setitem(embed_files._WRITERS, suffix, write_on_a_full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_features(path, PREDICTED)
    assert path.read_bytes() == before
    assert not [each.name for each in tmp_path.iterdir() if each.name.endswith(".unfinished")]


def test_what_is_no_npz_of_ours_is_one_line(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(
        UserError, match=r"other.npz has no array \w+; allowed: an .npz that gensupcon embed has written"
    ):
        read_features(tmp_path / "other.npz")
    for content in (b"", b"text", b"PK\x03\x04 a cut archive"):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"cut.npz cannot be read \(.*\); allowed: an .npz that gensupcon embed"):
            read_features(tmp_path / "cut.npz")
    with (tmp_path / "list.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"list.npz cannot be read"):
        read_features(tmp_path / "list.npz")


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    check_format(".parquet")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_format(".csv")
    with pytest.raises(UserError, match=r'needs pyarrow; install it with: pip install "gensupcon_jax\[parquet\]"'):
        check_format(".parquet")
