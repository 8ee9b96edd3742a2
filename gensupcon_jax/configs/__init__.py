"""The recipes: the files of the folder `configs/` beside the package, which a wheel carries in place of this file."""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "configs")]
