"""The command `gensupcon prepare`, and its messages about manual downloads."""

import shlex
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from gensupcon_jax.data import datasets, tfds_sets
from gensupcon_jax.data.datasets import Reading
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare import command, fashion_mnist, fetching, sheet
from gensupcon_jax.prepare.contents import find_copies, read_contents
from gensupcon_jax.report import write_contact_sheet
from tests import ROOT
from tests.encoded import encode, picture, records, write_folder, write_tfds
from tests.running import told


@pytest.fixture
def run(capfd, monkeypatch):
    """`gensupcon prepare` with these arguments, in this process: (status, stdout, stderr)."""

    def run(*arguments, cwd=ROOT):
        monkeypatch.chdir(cwd)
        return told(capfd, "prepare", *arguments)

    return run


def test_a_folder_with_damaged_images_exits_with_0_and_writes_a_page(tmp_path, run):
    own = write_folder(tmp_path / "trees")
    (own / "train" / "ash" / "<b>bold.png").write_bytes(encode(picture(0, 1), "PNG"))
    (own / "test" / "ash" / "empty.png").write_bytes(b"")
    status, stdout, stderr = run(
        "--config", ROOT / "configs/digits.py", f"--config.dataset.name=folder:{own}", cwd=tmp_path
    )
    assert (status, stderr) == (0, "")
    lines = stdout.splitlines()
    assert lines[0] == f"folder:{own}: 4 classes, {own}"
    assert lines[3].split() == ["train", "49", "0", "0", "20x24", "30x18", "24x24", "PNG", "25,", "JPEG", "24"]
    assert lines[-1] == "contact sheet: runs/digits_data.html"
    assert "--config.dataset.skip_damaged=True" in stdout
    html = (tmp_path / "runs" / "digits_data.html").read_text()
    assert "&lt;b&gt;bold.png" in html
    assert "<b>bold" not in html
    assert html.count('src="data:image/png') == 4 * (4 + 3 + 4)
    assert (tmp_path / "runs" / ".data_cache").is_dir()  # training reuses it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.dataset.nme=x"], "dataset.nme is not a field of the config; did you mean dataset.name?"),
        (["--config.dataset.name=arrays"], "dataset.name is 'arrays', which is for Python only; allowed here: digits, "
         "digit_pairs, rotated_digits, tfds:<name>, folder:<path>, csv:<file>, parquet:<file>, arrays:<file>"),
        (["--config.dataset.name=folder:/nowhere"], "dataset.name is 'folder:/nowhere', which is not a folder; allowed: "
         "<path>/<split>/<class>/<image>, split one of train, validation, test; or <path>/<class>/<image>"),
        (["--config.dataset.split_column=fold"], "dataset.split_column is 'fold', but dataset.name is 'digits', which is no list "
         "of images; allowed: None, or csv:<file> or parquet:<file>"),
        (["--file_format=array_record"], "--file_format is given, but dataset.name is 'digits'; allowed with tfds:<name> only"),
        (["--file_format=parquet"], "--file_format is 'parquet'; allowed: array_record, tfrecord"),
        (["--output=notes.txt"], "--output is notes.txt, which exists and is not a contact sheet; "
                                  "choose another path, or move it away"),
        (["now"], f"both the recipe now and --config {ROOT}/configs/digits.py are given; leave one of them out"),
        (["now", "then"], "unknown arguments then; allowed: --config, --workdir, --file_format, --source, "
                    "--output, --short_side, --quality, --into, --config.field=value"),
        (["--watchdog_seconds=1"], "--watchdog_seconds is not a flag of gensupcon prepare; see gensupcon prepare --help"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_and_status_1(tmp_path, run, arguments, message):
    (tmp_path / "notes.txt").write_text("mine")
    assert run("--config", ROOT / "configs/digits.py", *arguments, cwd=tmp_path) == (1, "", f"error: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_the_command_that_training_prints_converts_the_data_set(tmp_path, run):
    write_tfds(tmp_path / "data", {"train": records(30), "test": records(9, start=100)})
    folder = str(tmp_path / "data")
    before = datasets.load("tfds:leaves", folder=folder, image_size=16)
    (note,) = [note for note in before.notes if "array_record is faster to read" in note]
    command = shlex.split(note.removesuffix(" converts it").split("faster to read: ")[1])
    assert command[:2] == ["gensupcon", "prepare"]
    status, stdout, stderr = run(*command[2:], f"--output={tmp_path / 'sheet.html'}", f"--workdir={tmp_path / 'run'}")
    assert (status, stderr) == (0, "")
    place = f"{folder}/leaves/1.0.0"
    lines = stdout.splitlines()
    assert lines[0] == f"tfds:leaves is prepared in {place}, as tfrecord"
    assert lines[1].startswith(
        f"converted: TFDS now reads its array_record files in {place}. The 2 files of the old format"
    )
    assert lines[1].endswith(f"were kept and are no longer needed: {place}/leaves-*.tfrecord-*")
    assert lines[2] == f"tfds:leaves: 3 classes, {place}, as array_record"
    after = datasets.load("tfds:leaves", folder=folder, image_size=16)
    assert after.description() == before.description()
    assert not any("tfrecord" in note for note in after.notes)


def test_imagenet_first_lists_the_files_to_download(tmp_path, run):
    status, stdout, stderr = run("--config", "imagenet", f"--config.dataset.folder={tmp_path / 'data'}", cwd=tmp_path)
    assert (status, stdout) == (1, "")
    assert stderr.splitlines()[:5] == [
        "error: tfds:imagenet2012 needs files that you must download by hand:",
        "  ILSVRC2012_img_train.tar  147.9 GB",
        "  ILSVRC2012_img_val.tar  6.7 GB",
        "  from  https://image-net.org/download-images (after registration: ILSVRC 2012, tasks 1 and 2)",
        f"  into  {tmp_path / 'data'}/downloads/manual",
    ]
    assert not (tmp_path / "data").exists()


def manual_set(instructions, sizes):
    infos = {f"http://x/{name}": types.SimpleNamespace(size=size) for name, size in sizes.items()}
    return types.SimpleNamespace(name="birds", MANUAL_DOWNLOAD_INSTRUCTIONS=instructions, url_infos=infos)


def test_each_manual_download_is_checked_with_its_size(tmp_path):
    builder = manual_set("manual_dir should hold a.tar and\n   b.zip. See x.org.", {"a.tar": 5})
    messages = []
    check = lambda: fetching.check_manual_downloads(builder, "birds", epath.Path(tmp_path), messages.append)  # noqa: E731
    (tmp_path / "a.tar").write_bytes(b"123")
    with pytest.raises(UserError) as error:
        check()
    assert str(error.value).splitlines() == [
        "tfds:birds needs files that you must download by hand:",
        "  a.tar  has 3 bytes of 5: the download is incomplete",
        "  b.zip",
        f"  into  {tmp_path}",
        "  TFDS says: manual_dir should hold a.tar and b.zip. See x.org.",
        "Then run the same command again. If the files are in another folder: --source=<folder>",
    ]
    (tmp_path / "a.tar").write_bytes(b"12345")
    (tmp_path / "b.zip").write_bytes(b"")
    check()
    assert messages == [f"tfds:birds: the manual downloads are in {tmp_path}"]


def test_instructions_without_file_names_need_a_nonempty_folder(tmp_path):
    builder = manual_set("Ask the authors.", {})
    with pytest.raises(UserError, match="the folder is empty or does not exist"):
        fetching.check_manual_downloads(builder, "birds", epath.Path(tmp_path / "x"), print)


@pytest.fixture
def unprepared(monkeypatch):
    """Record calls of download_and_prepare."""
    import tensorflow_datasets as tfds

    calls = []

    def download_and_prepare(self, *, download_config=None, **_):
        calls.append((self.info.file_format.value, download_config))
        files = Path(download_config.manual_dir)
        calls.append({path.name for path in files.iterdir()} if files.is_dir() else None)
        raise OSError("no network here")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    monkeypatch.setattr(tfds_sets, "unreachable", lambda _: None)
    return calls


def test_a_new_data_set_is_array_record_and_the_error_without_a_network_names_the_package(
    tmp_path, unprepared, monkeypatch
):
    monkeypatch.setattr(fashion_mnist, "is_installed", lambda: False)
    messages = []
    with pytest.raises(
        UserError, match=r"no network here.*Without a network: apt-get install dataset-fashion-mnist"
    ) as error:
        fetching.fetch("fashion_mnist", str(tmp_path), file_format=None, source=None, log_fn=messages.append)
    assert "\n" not in str(error.value)
    assert unprepared[0][0] == "array_record"
    assert messages == [f"preparing tfds:fashion_mnist in {tmp_path}/fashion_mnist/3.0.1, as array_record"]


def test_a_source_with_other_files_is_an_error_before_tfds_starts(tmp_path, unprepared):
    arguments = {"file_format": "tfrecord", "log_fn": lambda _: None}
    with pytest.raises(UserError, match=r"--source is '.*nowhere', which is not a folder"):
        fetching.fetch("fashion_mnist", str(tmp_path), source=str(tmp_path / "nowhere"), **arguments)
    for name in fashion_mnist.FILES:
        (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(UserError, match="has other data than the original"):
        fetching.fetch("fashion_mnist", str(tmp_path / "data"), source=str(tmp_path), **arguments)
    assert unprepared == []


def test_the_source_is_the_folder_of_manual_downloads_of_tfds(tmp_path, unprepared):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="no network here"):
        fetching.fetch("cifar10", str(tmp_path / "data"), file_format=None, source=str(tmp_path), log_fn=lambda _: None)
    assert unprepared[1] == {"cifar-10-binary.tar.gz"}


def test_a_prepared_data_set_is_unchanged_unless_another_format_is_requested(tmp_path):
    builder = write_tfds(tmp_path, {"train": records(9)})
    before = {path.name: path.read_bytes() for path in builder.data_path.iterdir()}
    messages = []
    for file_format in (None, "tfrecord"):
        fetching.fetch("leaves", str(tmp_path), file_format=file_format, source=None, log_fn=messages.append)
    assert {path.name: path.read_bytes() for path in builder.data_path.iterdir()} == before
    assert messages == [f"tfds:leaves is prepared in {tmp_path}/leaves/1.0.0, as tfrecord"] * 2


def test_for_many_classes_the_extremes_and_some_between_are_shown(tmp_path):
    names = [f"class_{number:03}" for number in range(60)]
    own = write_folder(tmp_path / "many", splits={"train": 2}, classes=names)
    for number in (3, 33, 43):
        shutil.copy(own / "train" / "class_000" / "000.jpg", own / "train" / f"class_{number:03}" / "more.jpg")
    (own / "train/class_041/000.jpg").unlink()
    contents = read_contents(f"folder:{own}", Reading())
    shown = sheet.shown_classes(contents)
    assert len(shown) == len(set(shown)) == 30
    assert shown == sorted(shown)
    assert {3, 33, 43, 41} <= set(shown)
    page = sheet.contact_sheet(contents, find_copies(contents), "command")
    assert (len(page.classes), page.classes_left_out) == (30, 30)
    assert all(np.asarray(each.pixels).ndim == 3 for _, parts in page.classes for part in parts for each in part)


def test_an_older_sheet_is_replaced_and_other_files_are_not(tmp_path):
    own = write_folder(tmp_path / "trees", splits={"train": 2})
    contents = read_contents(f"folder:{own}", Reading())
    path = tmp_path / "sheet.html"
    write_contact_sheet(path, sheet.contact_sheet(contents, find_copies(contents), "first"))
    command.check_output(path)
    path.write_text("<html>mine</html>")
    with pytest.raises(UserError, match="exists and is not a contact sheet"):
        command.check_output(path)


def test_an_unknown_data_set_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"'tfds:nothing_like_it', which TFDS cannot load") as error:
        fetching.fetch("nothing_like_it", str(tmp_path), file_format=None, source=None, log_fn=lambda _: None)
    assert "\n" not in str(error.value)
    assert tfds_sets.conversion_command("a b", None).endswith(
        "'--config.dataset.name=tfds:a b' --file_format=array_record"
    )
