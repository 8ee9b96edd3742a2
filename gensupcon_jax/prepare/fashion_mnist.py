"""Fashion-MNIST from the Debian package dataset-fashion-mnist: the four original files, byte for byte, offline."""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import make_folder, write_whole

NAME = "fashion_mnist"
PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
# Time at which the authors compressed each file (seconds since 1970), found by a search for TFDS's checksums.
_PACKED = {"train": 1504176606, "t10k": 1504176627}
FILES = {
    f"{part}-{kind}-ubyte.gz": packed for part, packed in _PACKED.items() for kind in ("images-idx3", "labels-idx1")
}
_MAGIC, _DEFLATE, _HAS_NAME = b"\x1f\x8b", 8, 8
_HEADER = 10  # magic, method, flags, time [4], extra flags, system
_SYSTEM = b"\x00\x03"  # no extra flags, Unix


def is_installed(folder: Path = DEBIAN_FOLDER) -> bool:
    """Whether all four files are in the folder."""
    return all((folder / name).is_file() for name in FILES)


def restore_files(source: Path, target: Path, checksums: dict[str, str], files: dict[str, int] | None = None) -> None:
    """Write the four original files into the folder target, from the originals or from Debian's files.

    checksums: sha256 of each original, by file name.  files: time of compression, by file name; None: `FILES`.
    Raises UserError for missing files, and for files with other data.
    """
    files = FILES if files is None else files
    missing = [name for name in files if not (source / name).is_file()]
    if missing:
        raise UserError(
            f"--source is {source}, which does not contain {', '.join(missing)}; allowed: the folder of the four files, "
            f"such as {DEBIAN_FOLDER} after apt-get install {PACKAGE}"
        )
    make_folder(target)
    for name, packed in files.items():
        found = (source / name).read_bytes()
        original = next(
            (
                each
                for each in (found, with_header(found, name.removesuffix(".gz"), packed))
                if _sha(each) == checksums[name]
            ),
            None,
        )
        if original is None:
            raise UserError(
                f"{source / name} has other data than the original (sha256 {checksums[name]}, "
                f"this one {_sha(found)}{_damage(found)}); use the file of {PACKAGE}, or download it again"
            )
        write_whole(target / name, original)


def with_header(packed: bytes, name: str, seconds: int) -> bytes:
    """The gzip file with the name and time that Debian's build strips from its header; other files unchanged."""
    stripped = packed[:2] == _MAGIC and packed[2:4] == bytes((_DEFLATE, 0)) and packed[8:_HEADER] == _SYSTEM
    if not stripped:
        return packed
    start = _MAGIC + bytes((_DEFLATE, _HAS_NAME)) + struct.pack("<I", seconds) + _SYSTEM
    return start + name.encode() + b"\0" + packed[_HEADER:]


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _damage(content: bytes) -> str:
    try:
        gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        return f", and it cannot be decompressed: {error}"
    return ""
