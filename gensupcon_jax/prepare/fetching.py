"""Preparation of TFDS data sets: downloads, manual downloads, and Fashion-MNIST without a network."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath

from gensupcon_jax.data.tfds_sets import Keys, open_builder, prepare, tfds_reasons
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare import fashion_mnist
from gensupcon_jax.prepare.conversion import convert

_ARCHIVE = r"[\w.-]*\w\.(?:tar\.gz|tgz|tar|zip|7z|rar|mat|csv)\b"
# Pages for the manual download of the files that the instructions of TFDS name.
_PAGES = {"imagenet2012": "https://image-net.org/download-images (after registration: ILSVRC 2012, tasks 1 and 2)"}


def fetch(
    name: str,
    folder: str | None,
    *,
    file_format: str | None,
    source: str | None,
    log_fn: Callable[[str], None],
    label_kind: str = "class",
) -> tuple[Any, Keys]:
    """The builder of `tfds:<name>`, prepared in this folder and file format if necessary.

    folder: a path or gs://...; None: TFDS's default.  file_format: None keeps the existing format; for new data sets it is
    array_record, or tfrecord on object stores.  source: the folder of manual downloads; None: below the folder.  label_kind: as
    for `open_builder`.
    Raises UserError for missing manual downloads, and with TFDS's reason where it fails.
    """
    builder, keys = open_builder(name, folder, label_kind=label_kind)
    place = os.fspath(builder.data_path)
    if not is_prepared(builder):
        wanted = file_format or ("tfrecord" if "://" in place else "array_record")
        _prepare_new(builder, name, folder, wanted, source, log_fn, label_kind)
        return open_builder(name, folder, label_kind=label_kind)
    found = builder.info.file_format.value
    log_fn(f"tfds:{name} is prepared in {place}, as {found}")
    if file_format is None or file_format == found:
        return builder, keys
    _convert(builder, name, file_format, log_fn)
    return open_builder(name, folder, label_kind=label_kind)


def is_prepared(builder: Any) -> bool:
    """Whether TFDS can read the data set without a download."""
    return (epath.Path(builder.data_path) / "dataset_info.json").exists()


def _convert(builder: Any, name: str, file_format: str, log_fn: Callable[[str], None]) -> None:
    old = convert(builder, name, file_format)
    mebibytes = sum(epath.Path(path).stat().length for path in old) / 2**20
    pattern = re.sub(r"-[a-z_0-9]+\.(\w+)-\d+-of-\d+$", r"-*.\1-*", old[0])
    log_fn(
        f"converted: TFDS now reads its {file_format} files in {builder.data_path}. The {len(old)} files of the old format "
        f"({mebibytes:,.0f} MiB) were kept and are no longer needed: {pattern}"
    )


def _prepare_new(
    builder: Any,
    name: str,
    folder: str | None,
    file_format: str,
    source: str | None,
    log_fn: Callable[[str], None],
    label_kind: str,
) -> None:
    files = epath.Path(source).expanduser() if source else epath.Path(builder.data_dir_root) / "downloads" / "manual"
    if source and not files.is_dir():
        raise UserError(
            f"--source is {source!r}, which is not a folder; allowed: the folder of files that you downloaded"
        )
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        check_manual_downloads(builder, name, files, log_fn)
    log_fn(f"preparing tfds:{name} in {builder.data_path}, as {file_format}")
    # array_record's writer does not support object stores: TFDS writes tfrecord, and the files are converted one by one.
    written = "tfrecord" if "://" in os.fspath(builder.data_path) else file_format
    with tempfile.TemporaryDirectory() as scratch:
        if builder.name == fashion_mnist.NAME and (source or fashion_mnist.is_installed()):
            files = _fashion_mnist_files(builder, source, Path(scratch), log_fn)
        _download_and_prepare(name, folder, written, files, label_kind)
    if written != file_format:
        _convert(open_builder(name, folder, label_kind=label_kind)[0], name, file_format, log_fn)


def _fashion_mnist_files(builder: Any, source: str | None, scratch: Path, log_fn: Callable[[str], None]) -> epath.Path:
    folder = Path(source).expanduser() if source else fashion_mnist.DEBIAN_FOLDER
    checksums = {info.filename: info.checksum for info in builder.url_infos.values()}
    fashion_mnist.restore_files(folder, scratch, checksums)
    log_fn(f"its four files come from {folder}; their checksums match those of TFDS")
    return epath.Path(scratch)


def _download_and_prepare(name: str, folder: str | None, file_format: str, files: epath.Path, label_kind: str) -> None:
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # it would fill a log with partial bars
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would log ten attempts per file
    builder, _ = open_builder(name, folder, file_format=file_format, label_kind=label_kind)
    with tfds_reasons(name):
        config = tfds.download.DownloadConfig(manual_dir=files, try_download_gcs=False)
    try:
        prepare(builder, name, config)
    except UserError as error:
        if builder.name == fashion_mnist.NAME:
            raise UserError(
                f"{error}. Without a network: apt-get install {fashion_mnist.PACKAGE}, then run the same command again"
            ) from error
        raise


def check_manual_downloads(builder: Any, name: str, folder: epath.Path, log_fn: Callable[[str], None]) -> None:
    """Check the manual downloads of a data set; UserError that lists the missing files, their source and their folder.

    The names are those in TFDS's instructions; a file's size is compared where TFDS knows it.
    """
    instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    named = list(dict.fromkeys(re.findall(_ARCHIVE, instructions)))
    sizes = {Path(url).name: int(info.size) for url, info in (builder.url_infos or {}).items()}
    problems = [problem for file in named if (problem := _file_problem(folder / file, sizes.get(file)))]
    if not named and not (folder.is_dir() and any(folder.iterdir())):
        problems = ["the folder is empty or does not exist"]
    if not problems:
        log_fn(f"tfds:{name}: the manual downloads are in {folder}")
        return
    lines = [f"tfds:{name} needs files that you must download by hand:"]
    lines += [f"  {problem}" for problem in problems]
    lines += [f"  from  {_PAGES[builder.name]}"] if builder.name in _PAGES else []
    lines += [f"  into  {folder}", f"  TFDS says: {instructions}"]
    lines += ["Then run the same command again. If the files are in another folder: --source=<folder>"]
    raise UserError("\n".join(lines))


def _file_problem(path: epath.Path, size: int | None) -> str | None:
    whole = f"{size / 1e9:.1f} GB" if size else ""
    if not path.exists():
        return f"{path.name}  {whole}".rstrip()
    found = path.stat().length
    if size and found != size:
        return f"{path.name}  has {found:,} bytes of {size:,}: the download is incomplete"
    return None
