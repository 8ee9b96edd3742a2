"""What comes from others is data: no pickle is loaded, no archive unpacked, nothing in a report runs."""

import ast
import pickle

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.store.checkpoint import read_newest
from gensupcon_jax.weights import teachers
from gensupcon_jax.weights.files import read_file
from tests import ROOT
from tests.tiny import tiny_dataset

PACKAGE = ROOT / "gensupcon_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPACKS = ("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_room_loads_pickles_or_unpacks_archives(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {name.name.split(".")[0] for name in node.names} & RUNS_CODE
        elif isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] not in RUNS_CODE
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in ("eval", "exec", *UNPACKS)
            assert not called.endswith(("extractall", "extract_all"))
            assert given.get("allow_pickle", "False") == "False"
            if called == "torch.load":
                assert given["weights_only"] == "True"


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.pt"])
def test_a_pickle_given_as_weights_is_refused_and_not_run(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(UserError):
        read_file(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_given_as_a_teachers_program_is_refused_and_not_run(tmp_path):
    (tmp_path / "teacher").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(UserError, match="cannot be read"):
        teachers.load_teacher(
            kind="stablehlo", path=tmp_path / "teacher", dataset_description=tiny_dataset().description()
        )
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_a_checkpoint_is_damage_and_not_run(tmp_path):
    record = tmp_path / "checkpoints" / "3" / "record"
    record.mkdir(parents=True)
    (record / "metadata").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used"):
        read_newest(tmp_path / "checkpoints", ("params",))
    assert not (tmp_path / "ran").exists()
