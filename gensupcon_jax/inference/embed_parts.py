"""OutputParts of an unfinished output, in a folder beside it: a stopped command resumes from them."""

import json
from typing import Any, NamedTuple

import numpy as np

from gensupcon_jax import paths
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import TEXT, read_object
from gensupcon_jax.numpy_files import load_arrays
from gensupcon_jax.paths import LocalPath, failures, make_folder, whole_file, write_whole

_ABOUT = "about.json"


class OutputParts(NamedTuple):
    """The folder of parts and the fingerprint of all that the output depends on.

    num_images: of one part.  The part that begins with image i is <i>.npz; it exists when it is complete.
    """

    folder: LocalPath
    fingerprint: str
    num_images: int

    def begin(self) -> str:
        """Make the folder, without parts of another encoder, other images or other flags; a sentence on what was there."""
        found, kept = self._found_fingerprint(), self._files()
        if found == self.fingerprint:
            return f"resumes from {len(kept)} parts of {self.num_images:,} images in {self.folder}" if kept else ""
        self.remove()
        make_folder(self.folder)
        write_whole(self.folder / _ABOUT, json.dumps({"fingerprint": self.fingerprint}).encode())
        if not kept:
            return ""
        return f"the parts in {self.folder} were of another encoder, other images or another --batch_size: starts anew"

    def read(self, start: int) -> dict[str, np.ndarray] | None:
        """The arrays of the part that begins with this image; None if it was not completed, or is damaged."""
        try:
            with self._path(start).open("rb") as file:
                found = load_arrays(file)
        except (*failures(), ValueError) as error:
            refuse_lost(error, self._path(start))
            return None
        return found if isinstance(found, dict) else None

    def write(self, start: int, arrays: dict[str, np.ndarray]) -> None:
        """Write a part atomically."""
        content: dict[str, Any] = dict(arrays)
        with whole_file(self._path(start)) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **content)

    def remove(self) -> None:
        """Remove the parts and their folder; anything else in it stays, and the folder with it."""
        for path in (*self._files(), *self.folder.glob(".*.unfinished"), self.folder / _ABOUT):
            path.unlink(missing_ok=True)
        if paths.is_folder(self.folder) and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, start: int) -> LocalPath:
        return self.folder / f"{start:09}.npz"

    def _files(self) -> list[LocalPath]:
        return sorted(self.folder.glob("[0-9]*.npz"))

    def _found_fingerprint(self) -> str | None:
        try:
            return read_object(self.folder / _ABOUT, "", {"fingerprint": TEXT}).get("fingerprint")
        except UserError:
            return None  # parts of another program, or damaged: they are made anew
