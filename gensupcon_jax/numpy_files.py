"""NumPy's files, .npy and .npz: any damage is one kind of error, and no pickle is ever loaded."""

from typing import Any

import numpy as np

from gensupcon_jax.text import one_line, visible


def load_arrays(file: Any) -> np.ndarray | dict[str, np.ndarray]:
    """The array of an .npy, or the arrays of an .npz by name; ValueError, in one line, for a file that is damaged or no such.

    file: opened for bytes.
    """
    try:
        found = np.load(file, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else dict(found)
    except Exception as error:  # of many kinds, from zipfile, zlib, tokenize and numpy, by what is damaged
        raise ValueError(visible(one_line(error))[:200] or type(error).__name__) from error
