"""Files of features: .npz, .csv, .parquet and .npy, each written whole; an .npz is read again."""

import csv
import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference.command_flags import names_file
from gensupcon_jax.numpy_files import load_arrays
from gensupcon_jax.paths import LocalPath, Path, failures, whole_file
from gensupcon_jax.text import one_line


class About(NamedTuple):
    """Where features come from: the encoder's source, step (empty: it has none) and fingerprint, and the folder of the images."""

    source: str
    step: str
    fingerprint: str
    folder: str


class FeatureTable(NamedTuple):
    """The features of images, in order; predictions and probabilities: the most likely class of each, where requested."""

    names: list[str]
    features: Float32[np.ndarray, "image feature"]
    about: About
    predictions: list[str] | None = None
    probabilities: Float[np.ndarray, "image"] | None = None

    def columns(self) -> dict[str, Any]:
        """What stands beside the features: names, and predictions with their probabilities."""
        if self.predictions is None or self.probabilities is None:
            return {"name": self.names}
        return {"name": self.names, "prediction": self.predictions, "probability": self.probabilities}


def write_features(path: Path, table: FeatureTable) -> None:
    """Write the features in the format of the suffix, atomically; those of an .npy have their names in a file beside it."""
    if path.suffix == ".npy":
        write_rows(names_file(path), table.columns(), zip(*table.columns().values(), strict=True))
    with whole_file(path) as unfinished:
        _WRITERS[path.suffix](unfinished, table)


def write_rows(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file atomically; names that are not UTF-8 keep their bytes."""
    with whole_file(path) as unfinished:
        _write_rows(unfinished, header, rows)


def _write_rows(path: LocalPath, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_npz(path: LocalPath, table: FeatureTable) -> None:
    content: dict[str, Any] = table.columns() | table.about._asdict() | {"features": table.features}
    with path.open("wb") as file:  # given a path, NumPy would append .npz to the name of the unfinished file
        np.savez(file, **content)


def _write_csv(path: LocalPath, table: FeatureTable) -> None:
    columns = table.columns()
    header = [*columns, *(f"feature_{number}" for number in range(table.features.shape[1]))]
    rows = ((*start, *features) for *start, features in zip(*columns.values(), _texts(table.features), strict=True))
    _write_rows(path, header, rows)


def _texts(features: Float32[np.ndarray, "image feature"]) -> Iterator[list[str]]:
    """Each row as the shortest texts that are read back as the same float32."""
    for row in features:
        yield row.astype(str).tolist()


def _write_parquet(path: LocalPath, table: FeatureTable) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns: dict[str, Any] = dict(table.columns())
    columns["name"] = [name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in table.names]
    flat = pa.array(np.ascontiguousarray(table.features).reshape(-1))
    columns["features"] = pa.FixedSizeListArray.from_arrays(flat, table.features.shape[1])
    parquet.write_table(pa.table(columns).replace_schema_metadata(table.about._asdict()), path)


def _write_npy(path: LocalPath, table: FeatureTable) -> None:
    with path.open("wb") as file:
        np.save(file, table.features)


_WRITERS: dict[str, Callable[[LocalPath, FeatureTable], None]] = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".npy": _write_npy,
}


def check_format(suffix: str) -> None:
    """UserError if the packages of the format are not installed."""
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            "--output ends with .parquet, which needs pyarrow; install it with: "
            'pip install "gensupcon_jax[parquet]"; allowed without it: .npz, .csv, .npy'
        )


def read_features(path: Path) -> FeatureTable:
    """The features in an .npz of `gensupcon embed`; UserError where it is not one."""
    allowed = "allowed: an .npz that gensupcon embed has written"
    try:
        opened = io.BytesIO(path.read_bytes())
        if not zipfile.is_zipfile(opened):
            raise UserError(f"{path} cannot be read (it is damaged, or no .npz); {allowed}")
        found: Any = load_arrays(opened)
        about = About(*(str(found[name]) for name in About._fields))
        names, features = found["name"], found["features"]
    except KeyError as error:
        raise UserError(f"{path} has no array {one_line(error.args[0]).split()[0]}; {allowed}") from error
    except (*failures(), ValueError) as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read ({one_line(error)}); {allowed}") from error
    if names.ndim != 1 or features.ndim != 2 or len(names) != len(features) or not features.size:
        raise UserError(
            f"{path} has names of shape {list(names.shape)} and features of shape {list(features.shape)}, instead of [image] "
            f"and [image, feature]; {allowed}"
        )
    if features.dtype != np.float32 or not np.isfinite(features).all():
        found = f"are {features.dtype}" if features.dtype != np.float32 else "are not all finite"
        raise UserError(f"the features in {path} {found}; {allowed}, with finite float32 features")
    return FeatureTable(names.astype(str).tolist(), features, about)
