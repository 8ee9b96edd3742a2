"""The steps that a finished run got when it was made longer; without jax, as commands that only compare runs read them too."""

from typing import NamedTuple


class Extension(NamedTuple):
    """The steps that a run got: after `start` of them it was finished, now it has `end`; how: `optimizer.extension`."""

    start: int
    end: int
    how: str
