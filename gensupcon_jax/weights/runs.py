"""Weights of trained runs, with the backbone from a file if the run started from one."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.store.saved_runs import COLLECTIONS, SavedRun, read_run, run_backbone
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.variables import fill, fitted


def load_run(folder: str | Path, *, need: str = "backbone", step: int | str = "last") -> SavedRun:
    """`saved_runs.read_run`, with the backbone from a file if the run's `model.weights` is a file."""
    run = read_run(folder, need=need, step=step)
    image_size = run.description["image_shape"][0]  # a probe's may be another than that of the encoder it evaluates
    if run.weights_file is None:
        return run._replace(variables=fitted(run.variables, image_size))
    images = jnp.zeros((1, *run.description["image_shape"]))
    shapes = jax.eval_shape(lambda: run_backbone(run).init(jax.random.key(0), images, train=False))
    variables = {
        name: run.variables[name] | ({"backbone": shapes[name]} if name in shapes else {}) for name in COLLECTIONS
    }
    named = read_file(run.weights_file)
    return run._replace(variables=fill(variables, named, where=run.weights_file, parts=("backbone",)))


@contextlib.contextmanager
def naming_the_field(field: str) -> Iterator[None]:
    """Prefix errors about a run or a weights file with this field of the config."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
