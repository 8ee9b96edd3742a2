"""A run on a folder or a list of photos before its first step: what its choices depend on, applied, and their table."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from gensupcon_jax import paths
from gensupcon_jax.data import folders, lists
from gensupcon_jax.data.cuts import is_useless
from gensupcon_jax.data.datasets import Reading, list_settings, source_of
from gensupcon_jax.data.encoded_sets import evaluated_splits
from gensupcon_jax.data.list_labels import numbers_hint
from gensupcon_jax.data.listing import Listing
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import choose_stem
from gensupcon_jax.run.choices import GIVEN, Choice, Machine, Photos, StartingWeights, choices
from gensupcon_jax.store import workdir
from gensupcon_jax.store.saved_runs import read_run
from gensupcon_jax.text import aligned, flatten
from gensupcon_jax.weights.architectures import recognize_architecture
from gensupcon_jax.weights.description import description_of_file
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.runs import naming_the_field

_FOLDER = "folder:<path>"
_LISTS = {"csv:<file>": "csv", "parquet:<file>": "parquet"}
_MODEL_FIELDS = ("name", "stem", "width", "pool", "blur_pool")  # of a network that weights determine


def choose(
    config: ConfigDict, given: Collection[str], start: StartingWeights | None, machine: Machine, folder: paths.Path
) -> tuple[ConfigDict, list[Choice]]:
    """The config with the choices for its photos, and these choices; none for a source of another kind.

    given: the fields that the user has set, which stay as they are.  folder: the workdir; of a run that has begun there with
    other photos, the values are those of its config.json.  Raises UserError for a folder that cannot be trained on.
    """
    form, _ = source_of(config.dataset.name)
    if form != _FOLDER and form not in _LISTS:
        return config, []
    values = {name: value for name, value in flatten(config.to_dict()).items() if name in given}
    photos = read_photos(config, cache_folder=folder.parent / workdir.DATA_CACHE)
    made = _of_begun_run(choices(photos, machine, values, start), photos, folder)
    return _with(config, {choice.field: choice.value for choice in made}), made


def read_photos(config: ConfigDict, cache_folder: paths.Path | None = None) -> Photos:
    """What the choices depend on; reads the headers of the images, from the cache where they were read before."""
    form, path = source_of(config.dataset.name)
    listings, class_names = _listings(config, form, path, cache_folder)
    cut = ("test",) if config.dataset.validation_fraction == 0 else ("test", "validation")
    train = listings["train"]
    cut = ("test",) if is_useless(train.classes, config.dataset.label_kind) else cut
    lacks = tuple(split for split in cut if split not in evaluated_splits(listings))
    intact = np.flatnonzero([problem is None for problem in train.problems])
    if not len(intact):
        raise UserError(
            f"none of the {len(train.problems)} images in {path} can be decoded, first: {train.problems[0]}"
        )
    classes = train.classes[intact]
    counts = np.bincount(classes[classes >= 0], minlength=len(class_names))
    are_labeled = not is_useless(train.classes, config.dataset.label_kind)
    if config.dataset.label_kind == "class" and are_labeled and not counts.any():
        raise UserError(
            f"none of the images with a label in {path} can be decoded; allowed: images of 2 or more classes"
        )
    if config.dataset.label_kind == "class":
        what = "the class folder" if form == _FOLDER else "the rows of the class"
        what += numbers_hint(class_names) if form in _LISTS else ""
        _refuse_few(path, {name: int(n) for name, n in zip(class_names, counts, strict=True) if n}, lacks, what)
    sizes = train.headers.sizes[intact]
    side = int(np.median(sizes.min(1)))
    square = int(sizes[0, 0]) if (sizes == sizes[0, 0]).all() else None
    place = "folder" if form == _FOLDER else "split"
    labeled = int(counts.sum()) if config.dataset.label_kind == "class" and are_labeled else len(intact)
    return Photos(len(intact), len(class_names), side, lacks, place, len(intact) - labeled, square)


def _listings(
    config: ConfigDict, form: str, path: str, cache_folder: paths.Path | None
) -> tuple[dict[str, Listing], tuple[str, ...]]:
    """The listings by split and the class names of a folder or a list."""
    known = {field: config.dataset[field] for field in Reading._fields if field in config.dataset}
    reading = Reading(**known)._replace(cache_folder=cache_folder)
    if form in _LISTS:
        found = lists.list_images(_LISTS[form], path, list_settings(reading))
        return found.listings, found.class_names
    _refuse_workdir(path)
    listings, class_names, _, _ = folders.list_folder(path, split_names=reading.split_names, cache_folder=cache_folder)
    return listings, class_names


def _refuse_workdir(path: str) -> None:
    folder = paths.as_path(path)
    if all(paths.exists(folder / name) for name in (workdir.CONFIG, workdir.DATASET)):
        raise UserError(
            f"{path} is the workdir of a run, not a folder of images; to resume the run, start it with its own command and "
            f"--workdir {path}"
        )


def _refuse_few(path: str, counts: Mapping[str, int], lacks: Sequence[str], what: str) -> None:
    needed = 2 + len(lacks)  # two to compare in training, and one for each split that is cut
    few = [f"{name} has {count}" for name, count in counts.items() if count < needed]
    if few:
        more = f", and {len(few) - 3} more" if len(few) > 3 else ""
        raise UserError(
            f"{path} has classes of too few images: {', '.join(few[:3])}{more}; allowed: {needed} or more per class "
            f"({', '.join(['2 to train', *(f'1 for {split}' for split in lacks)])}); add images, or remove {what}"
        )


def read_start(source: str) -> StartingWeights:
    """The architecture of the weights in a workdir or a file; UserError if there is none."""
    with naming_the_field("--weights"):
        path = paths.as_path(source)
        if not paths.exists(paths.as_path(source.partition("#")[0])):
            raise UserError(f"{source} does not exist; allowed: the workdir of a run, or a file of weights")
        if paths.is_folder(path):
            return _of_workdir(source)
        described = description_of_file(path)
        if described is not None:
            known = {"name": described.architecture} | {
                name: value for name, value in described.network.items() if name in _MODEL_FIELDS
            }
            return StartingWeights(source, known, described.image_shape[0])
        found = recognize_architecture(read_file(source), where=source)
        return StartingWeights(source, dict(found.fields), found.image_size)


def _of_workdir(source: str) -> StartingWeights:
    run = read_run(source, need="backbone")
    size = run.description["image_shape"][0]
    fields = {name: run.config.model[name] for name in _MODEL_FIELDS if name in run.config.model}
    if fields.get("stem") == "auto":
        fields["stem"] = choose_stem(size)
    return StartingWeights(source, fields, size)


def with_fields_of(
    config: ConfigDict, given: Collection[str], start: StartingWeights
) -> tuple[ConfigDict, dict[str, Any]]:
    """The config of any recipe with the architecture of given weights, and the fields that were changed."""
    fields = {f"model.{name}": value for name, value in start.fields.items() if f"model.{name}" not in given}
    return _with(config, fields), fields


def _of_begun_run(made: list[Choice], photos: Photos, folder: paths.Path) -> list[Choice]:
    """The choices of the run in this workdir, where it has begun with other photos.

    The check of the workdir then says which data have changed, and not which choices follow from that.
    """
    try:
        config, data = (workdir.read_json(folder / name) for name in (workdir.CONFIG, workdir.DATASET))
        num_images = sum(data[f"num_{split}"] for split in ("train", *photos.lacks))
    except (UserError, KeyError):
        return made  # no run has begun, or the check of the workdir says that a file is damaged
    saved = flatten(config)
    if num_images == photos.num_images:
        return made
    return [
        choice
        if choice.why == GIVEN or choice.field not in saved
        else choice._replace(value=saved[choice.field], why=f"as the run in {folder} began")
        for choice in made
    ]


def _with(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    with changed.unlocked(), changed.ignore_type():  # None is no whole number
        changed.update_from_flattened_dict(dict(values))
    return changed.lock()


def choices_table(made: Sequence[Choice], photos_name: str, machine: Machine) -> str:
    """The choices as a table with a heading; each can be changed with --config.FIELD=VALUE."""
    if not made:
        return f"{photos_name} is no folder or list of photos: nothing is chosen, the values are those of the recipe"
    rows = [(f"  {choice.field}", _shown(choice.value), choice.why) for choice in made]
    devices = f"{machine.num_devices} x {machine.kind}"
    head = f"chosen for {photos_name} on {devices}; --config.FIELD=VALUE takes another value:"
    return f"{head}\n{aligned(rows, left=(0, 1, 2))}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
