"""Files of arrays: the same values back, mapped rather than read, and any other byte is noticed."""

import numpy as np
import pytest

from gensupcon_jax.data.mapped_arrays import DamagedArrays, MappedArrays, read_mapped, write_mapped

ARRAYS = {
    "images": np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1),
    "classes": np.array([7, -1], np.int64),
    "names": np.array(["", "Ärger"], str),
    "nothing": np.zeros((0, 2), np.int32),
    "half": np.array([[0.5, 0.25]], np.float32)[:, ::-1],
    "flag": np.array([True, False]),
}
FACTS = {"class_names": ["ash", "Süd"], "splits": ["train"]}


@pytest.fixture
def path(tmp_path):
    write_mapped(tmp_path / "some.arrays", MappedArrays(ARRAYS, FACTS))
    return tmp_path / "some.arrays"


def test_arrays_and_facts_come_back(path):
    kept = read_mapped(path)
    assert kept.facts == FACTS
    assert list(kept.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (kept.arrays[name].dtype, kept.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(kept.arrays[name], array)


def test_a_local_file_is_mapped_and_not_written_to(path):
    images = read_mapped(path).arrays["images"]
    bases = [images]
    while isinstance(getattr(bases[-1], "base", None), np.ndarray):
        bases.append(bases[-1].base)
    assert any(isinstance(base, np.memmap) for base in bases)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 1


def test_a_mapped_file_may_be_replaced(path):
    images = read_mapped(path).arrays["images"]
    write_mapped(path, MappedArrays({"images": ARRAYS["images"] + 1}, {}))
    np.testing.assert_array_equal(images, ARRAYS["images"])
    np.testing.assert_array_equal(read_mapped(path).arrays["images"], ARRAYS["images"] + 1)


def test_every_byte_counts(path):
    whole = path.read_bytes()
    for place in range(len(whole)):
        for changed in (whole[place] ^ 1, whole[place] ^ 0x80):
            path.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
            with pytest.raises(DamagedArrays):
                read_mapped(path)


def test_a_file_that_is_cut_off_or_longer_is_damaged(path):
    whole = path.read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0", b"\0" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(DamagedArrays):
            read_mapped(path)
