"""The steps that --profile names."""

import argparse
import re
from typing import NamedTuple

from gensupcon_jax import paths
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path

_FIRST_STEPS = 2  # of a start: they are compiled, and fill the input queue
_ALLOWED = "allowed: a number of steps, such as 5, or the first and the last step, such as 20:25"


class Wanted(NamedTuple):
    """The steps to profile: num of them from `first` on; None: after the first two of this start."""

    first: int | None
    num: int


def wanted_steps(text: str) -> Wanted:
    """The value of --profile: "5", or "20:25" for the steps 20 to 25.

    >>> wanted_steps("20:25")
    Wanted(first=20, num=6)
    """
    found = re.fullmatch(r"(?:([1-9]\d{0,9}):)?([1-9]\d{0,9})", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"is {text!r}; {_ALLOWED}")
    first, last = found.groups()
    if first is None:
        return Wanted(None, int(last))
    if int(last) < int(first):
        raise argparse.ArgumentTypeError(f"is {text!r}, whose last step is before the first; {_ALLOWED}")
    return Wanted(int(first), int(last) - int(first) + 1)


def steps_of(wanted: Wanted, done: int, total: int, folder: Path) -> range:
    """The steps that will be profiled; UserError for steps that the run does not have.

    done, total: steps that the newest checkpoint has, and of the whole run. Those that are done are left out, as the same
    command resumes a run; so is a number of them that is more than the rest of a run that resumes.
    """
    first = done + 1 + _FIRST_STEPS if wanted.first is None else wanted.first
    last = first + wanted.num - 1
    if wanted.first is None and done and last > total:
        return range(0)
    if last > total:
        asked = f"{wanted.num}" if wanted.first is None else f"{first}:{last}"
        begins = f"the first {_FIRST_STEPS} of a start are left out, and " if wanted.first is None else ""
        raise UserError(
            f"--profile is {asked}; allowed: {begins}this start takes the steps {done + 1} to {total}"
            if done < total
            else f"--profile is {asked}, but {folder} has all its {total} steps; choose another --workdir"
        )
    if paths.is_remote(folder):
        raise UserError(f"--profile writes to local folders only, and the workdir is {folder}; leave it out")
    return range(max(first, done + 1), last + 1)
