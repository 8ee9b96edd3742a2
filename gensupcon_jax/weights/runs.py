"""Weights of trained runs, with the backbone from a file if the run started from one."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.store.saved_runs import COLLECTIONS, SavedRun, read_run, run_backbone
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.variables import fill, fitted


def load_run(folder: str | Path, *, need: str = "backbone", step: int | str = "last") -> SavedRun:
    """`saved_runs.read_run`, with the backbone from a file if the run's `model.weights` is a file."""
    run = read_run(folder, need=need, step=step)
    image_size = run.description["image_shape"][0]  # a probe's may be another than that of the encoder it evaluates
    images = jax.ShapeDtypeStruct((1, *run.description["image_shape"]), jnp.float32)
    shapes = jax.eval_shape(lambda images: run_backbone(run).init(jax.random.key(0), images, train=False), images)
    if run.weights_file is None:
        variables = fitted(run.variables, image_size)
        _check_shapes(run, variables, shapes)
        return run._replace(variables=variables)
    variables = {
        name: run.variables[name] | ({"backbone": shapes[name]} if name in shapes else {}) for name in COLLECTIONS
    }
    named = read_file(run.weights_file)
    return run._replace(variables=fill(variables, named, where=run.weights_file, parts=("backbone",)))


def _check_shapes(run: SavedRun, variables: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """UserError where the network of the checkpoint is not the one that config.json and dataset.json describe."""
    for name, tree in shapes.items():
        found, wanted = (
            {"/".join(place): leaf.shape for place, leaf in _leaves(part).items()}
            for part in (variables[name].get("backbone", {}), tree)
        )
        differing = [leaf for leaf in sorted(found | wanted) if found.get(leaf) != wanted.get(leaf)]
        if differing:
            leaf = differing[0]
            raise UserError(
                f"the network of {run.folder} is not the one in its config.json and dataset.json: {leaf} has the shape "
                f"{found.get(leaf)}, expected {wanted.get(leaf)} ({len(differing)} arrays differ); restore these files, or "
                "choose another workdir"
            )


def _leaves(tree: Mapping[str, Any]) -> dict[Any, Any]:
    return flatten_dict(dict(tree))


@contextlib.contextmanager
def naming_the_field(field: str) -> Iterator[None]:
    """Prefix errors about a run or a weights file with this field of the config."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
