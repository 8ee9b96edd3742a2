"""Arrays of images and labels in an .npz file: which of its arrays are which, and labels that are names."""

from typing import Any, NamedTuple

import numpy as np
from etils import epath

from gensupcon_jax.data.list_labels import in_order
from gensupcon_jax.data.list_tables import quoted
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.numpy_files import load_arrays
from gensupcon_jax.paths import failures
from gensupcon_jax.text import listed, one_line

# Names of the arrays of each split; the first that is there is taken. Others than ours are those of MedMNIST and of Keras.
_NAMES = {
    "train": (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train")),
    "validation": (("validation_images", "validation_labels"), ("val_images", "val_labels"), ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
_CLASS_NAMES = "class_names"
_ALLOWED = "allowed: images, labels, and optionally validation_images, validation_labels, test_images, test_labels, class_names"


class ArrayFile(NamedTuple):
    """What is in the file: (images, labels) of each split, and names of the classes, None where it has none."""

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    class_names: list[str] | None
    notes: tuple[str, ...]


def read_array_file(path: str, label_kind: str) -> ArrayFile:
    """The arrays in an .npz file; labels that are names become class numbers.

    Raises UserError for a file that is none, without images and labels, and with images that have no labels.
    """
    source = f"arrays:{path}"
    arrays = _load(epath.Path(path).expanduser())
    splits, used = {}, {_CLASS_NAMES}
    for split, names in _NAMES.items():
        found = next((pair for pair in names if pair[0] in arrays), None)
        if found is None:
            continue
        images, labels = found
        if labels not in arrays:
            raise UserError(f"{source} has {images}, but not {labels}; {_ALLOWED}")
        used |= {images, labels}
        splits[split] = (arrays[images], _one_column(arrays[labels]))
    if "train" not in splits:
        raise UserError(f"{source} has the arrays {listed(arrays) or 'none'}; {_ALLOWED}")
    class_names = [str(name) for name in np.atleast_1d(arrays[_CLASS_NAMES])] if _CLASS_NAMES in arrays else None
    if label_kind == "class":
        splits, class_names = _numbered(splits, class_names, source)
    unused = [name for name in arrays if name not in used]
    return ArrayFile(splits, class_names, (f"not used of {source}: {listed(unused)}",) if unused else ())


def _load(file: epath.Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"{file} {what}; allowed with dataset.name arrays:<file>: an .npz file")
    try:
        with file.open("rb") as opened:
            found = load_arrays(opened)
            if not isinstance(found, np.ndarray):
                return found
    except (*failures(), ValueError) as error:
        refuse_lost(error, file)
        raise UserError(f"{file} cannot be read as .npz ({one_line(error)[:120]}); {_ALLOWED}") from error
    raise UserError(f"{file} holds a single array, as an .npy does; allowed: an .npz. {_ALLOWED}")


def _one_column(labels: np.ndarray) -> np.ndarray:
    """Labels in a single column, [example, 1], as numbers [example]: MedMNIST has them so."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _numbered(
    splits: dict[str, tuple[Any, np.ndarray]], class_names: list[str] | None, source: str
) -> tuple[dict[str, tuple[Any, np.ndarray]], list[str] | None]:
    """The splits with class numbers where labels are names; an empty name is an image without a label."""
    if splits["train"][1].dtype.kind not in "US":
        return splits, class_names
    texts = {split: np.char.strip(labels.astype(str)) for split, (_, labels) in splits.items()}
    names = class_names or list(in_order(set(texts["train"].ravel().tolist()) - {""}))
    numbers = {name: number for number, name in enumerate(names)} | {"": -1}
    unknown = [
        (split, text) for split, each in texts.items() for text in np.unique(each).tolist() if text not in numbers
    ]
    if unknown:
        split, text = unknown[0]
        raise UserError(f"{source}: the {split} label {quoted(text)} is no class; allowed: {listed(names, 8)}")
    return {
        split: (images, np.array([numbers[text] for text in texts[split].ravel().tolist()]).reshape(texts[split].shape))
        for split, (images, _) in splits.items()
    }, names
