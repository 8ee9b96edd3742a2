"""Originals restored from Debian's Fashion-MNIST files: name and time in the gzip header, verified by sha256."""

import gzip
import hashlib
import io
import struct

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare import fashion_mnist

SECONDS = 1504176606
NAMES = ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
FILES = dict.fromkeys(NAMES, SECONDS)


def idx(num):
    """Images of 2 x 2 pixels in the format of MNIST."""
    return struct.pack(">IIII", 2051, num, 2, 2) + bytes(range(4 * num))


def original(name, content):
    """As `gzip name` writes it: with name and time."""
    stream = io.BytesIO()
    with gzip.GzipFile(name.removesuffix(".gz"), "wb", 9, stream, mtime=SECONDS) as file:
        file.write(content)
    packed = bytearray(stream.getvalue())
    packed[8] = 0  # Python writes 2 for level 9, and gzip -6 writes 0
    packed[9] = 3
    return bytes(packed)


def stripped(packed, name):
    """As in Debian's package: without a name, with another time."""
    start = 10 + len(name.removesuffix(".gz")) + 1
    return packed[:3] + b"\x00" + b"\x00\x00\x00\x00" + packed[8:10] + packed[start:]


@pytest.fixture
def folders(tmp_path):
    """(folder of stripped files, empty folder, originals, their checksums)."""
    originals = {name: original(name, idx(3 + number)) for number, name in enumerate(NAMES)}
    source = tmp_path / "debian"
    source.mkdir()
    for name, packed in originals.items():
        (source / name).write_bytes(stripped(packed, name))
    checksums = {name: hashlib.sha256(packed).hexdigest() for name, packed in originals.items()}
    return source, tmp_path / "target", originals, checksums


def test_the_originals_are_restored_byte_for_byte(folders):
    source, target, originals, checksums = folders
    fashion_mnist.restore_files(source, target, checksums, FILES)
    for name, packed in originals.items():
        assert (source / name).read_bytes() != packed
        assert (target / name).read_bytes() == packed
        assert gzip.decompress((source / name).read_bytes()) == gzip.decompress(packed)


def test_originals_are_unchanged(folders):
    source, target, originals, checksums = folders
    for name, packed in originals.items():
        (source / name).write_bytes(packed)
    fashion_mnist.restore_files(source, target, checksums, FILES)
    assert {name: (target / name).read_bytes() for name in NAMES} == originals


def test_other_data_is_an_error_with_both_checksums(folders):
    source, target, _, checksums = folders
    other = stripped(original(NAMES[0], idx(9)), NAMES[0])
    (source / NAMES[0]).write_bytes(other)
    with pytest.raises(
        UserError,
        match=rf"{NAMES[0]} has other data .*{checksums[NAMES[0]]}, this one {hashlib.sha256(other).hexdigest()}\)",
    ):
        fashion_mnist.restore_files(source, target, checksums, FILES)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-6], lambda packed: b"", lambda packed: b"hello"])
def test_a_file_that_cannot_be_decompressed_is_an_error(folders, damage):
    source, target, _, checksums = folders
    (source / NAMES[1]).write_bytes(damage((source / NAMES[1]).read_bytes()))
    with pytest.raises(UserError, match=f"{NAMES[1]} has other data"):
        fashion_mnist.restore_files(source, target, checksums, FILES)


def test_missing_files_are_named(folders, tmp_path):
    source, target, _, checksums = folders
    (source / NAMES[0]).unlink()
    with pytest.raises(
        UserError, match=rf"--source is .*does not contain {NAMES[0]}; .*apt-get install dataset-fashion-mnist"
    ):
        fashion_mnist.restore_files(source, target, checksums, FILES)
    assert not fashion_mnist.is_installed(source)


def test_the_four_files_are_those_of_tfds():
    import tensorflow_datasets as tfds

    infos = tfds.image_classification.FashionMNIST.url_infos
    assert {info.filename for info in infos.values()} == set(fashion_mnist.FILES)
