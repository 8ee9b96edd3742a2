"""gs:// without Google: a folder of this machine that behaves as object storage does, for epath and for orbax."""

import importlib.machinery
import os
import types
from pathlib import Path

import clu.metric_writers
from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils

from gensupcon_jax import paths


class ObjectStorage(backend._OsPathBackend):
    """gs://bucket/object is the file bucket/object below `root`; an object is written whole, or not at all."""

    def __init__(self, root):
        self.root = root

    def local(self, path):
        path = os.fspath(path)
        return str(self.root / path.removeprefix("gs://")) if path.startswith("gs://") else path

    def open(self, path, mode):
        if "a" in mode or "+" in mode:
            raise OSError(95, "Operation not supported: nothing can be appended to an object")
        if "w" in mode:
            Path(self.local(path)).parent.mkdir(parents=True, exist_ok=True)  # objects have no folders
        return super().open(self.local(path), mode)

    def _refuse(self, path, *args, **kwargs):
        raise OSError(95, f"Operation not supported: {path} would be copied, object by object")

    rename = replace = copy = _refuse

    def glob(self, path):
        return [f"gs://{found[len(str(self.root)) + 1 :]}" for found in super().glob(self.local(path))]

    def walk(self, top, **options):
        for folder, folders, files in super().walk(self.local(top), **options):
            yield f"gs://{folder[len(str(self.root)) + 1 :]}", folders, files


for _name in ("exists", "isdir", "listdir", "rmtree", "makedirs", "mkdir", "remove", "stat"):

    def _local(self, path, *args, _name=_name, **options):
        return getattr(backend._OsPathBackend, _name)(self, self.local(path), *args, **options)

    setattr(ObjectStorage, _name, _local)


class Board:
    """In place of clu's SummaryWriter, which reaches gs:// through TensorFlow."""

    folders: list[str] = []  # noqa: RUF012  (each test has its own)

    def __init__(self, folder):
        self.folders.append(folder)

    def write_scalars(self, step, values): ...

    def flush(self): ...

    def close(self): ...


def install(root, monkeypatch):
    """An ObjectStorage behind gs:// for the rest of the test; its bucket "bucket" is there."""
    fake = ObjectStorage(root)
    (fake.root / "bucket").mkdir(parents=True)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", fake)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setattr(paths, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    # What orbax and tensorstore would ask Google.
    monkeypatch.setattr(gcs_utils, "get_bucket", lambda name: types.SimpleNamespace(name=name))
    monkeypatch.setattr(
        gcs_utils, "get_kvstore_for_gcs", lambda path: {"driver": "file", "path": fake.local(path).rstrip("/")}
    )
    monkeypatch.setattr(clu.metric_writers, "SummaryWriter", Board)
    monkeypatch.setattr(Board, "folders", [])
    return fake
