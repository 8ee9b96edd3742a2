"""Weights to start from or to evaluate: from a workdir of this program or a file of another program."""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.state import TrainState
from gensupcon_jax.models import HeadedEncoder
from gensupcon_jax.paths import as_path
from gensupcon_jax.store.saved_runs import SavedRun
from gensupcon_jax.weights.files import read_weights_file
from gensupcon_jax.weights.names import Named, recognize
from gensupcon_jax.weights.normalization import (
    Normalization,
    channels_of_file,
    normalization_of_file,
    normalization_of_run,
)
from gensupcon_jax.weights.runs import load_run, naming_the_field
from gensupcon_jax.weights.variables import fill, fitted, weights_fingerprint


class GivenWeights(NamedTuple):
    """`params` and `batch_stats` that were read, their source, the fingerprint of their values, and the step of a run."""

    variables: dict[str, Any]
    source: str
    fingerprint: str
    step: int | None = None

    def backbone_variables(self) -> dict[str, Any]:
        """The variables of the backbone only, for `model.apply(..., method="features")`."""
        return _backbones(self.variables)

    def into(self, state: TrainState) -> TrainState:
        """The state with these weights in the parts present in both, also in the momentum encoder."""
        fields = {
            "params": "params",
            "batch_stats": "batch_stats",
            "ema_params": "params",
            "ema_batch_stats": "batch_stats",
        }
        changes = {}
        for field, kind in fields.items():
            present = getattr(state, field)
            if present is not None:
                given = {part: tree for part, tree in self.variables.get(kind, {}).items() if part in present}
                # Copies: the state is donated, and one buffer cannot be donated twice.
                changes[field] = present | jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), given)
        return state.replace(**changes)


class WeightsSource(NamedTuple):
    """What `model.weights` names, read but not yet fitted to a network: a run, or the tensors of a file.

    num_channels: of the images that its encoder takes, None if unknown.  normalization: of these images, None if unknown.
    note: a sentence on what was chosen in the file, or "".
    """

    path: str
    run: SavedRun | None
    named: Named
    num_channels: int | None
    normalization: Normalization | None
    note: str = ""

    @property
    def step(self) -> int | None:
        """The step of the run's checkpoint; None for a file."""
        return self.run and self.run.step


def open_weights(path: str | None, step: str | int | None = None) -> WeightsSource | None:
    """The source that `model.weights` names, None for None.  step: `model.weights_step`; None: the last.

    Raises UserError if there is no encoder, or no such step (the saved ones are listed).
    """
    if path is None:
        return None
    with naming_the_field("model.weights"):
        if as_path(path).is_dir():
            run = load_run(path, need="backbone", step="last" if step is None else step)
            normalization = normalization_of_run(path, run.description)
            return WeightsSource(path, run, {}, run.description["image_shape"][2], normalization)
        if step is not None:
            raise UserError(
                f"{path} is no workdir, and model.weights_step is {step!r}: a file holds one step; set model.weights_step to None"
            )
        named, note = read_weights_file(path)
        num_channels = channels_of_file(path, named)
        return WeightsSource(path, None, named, num_channels, normalization_of_file(path, named), note)


def read_weights(source: WeightsSource | None, model: HeadedEncoder, data: DataShape) -> GivenWeights | None:
    """The weights of a source for this network, None for None; a missing or different head is left out.

    Raises UserError if the backbone is missing or does not fit.
    """
    if source is None:
        return None
    with naming_the_field("model.weights"):
        return _fitting(source, model, data)


def _fitting(source: WeightsSource, model: HeadedEncoder, data: DataShape) -> GivenWeights:
    sample = jnp.zeros((1, data.image_size, data.image_size, data.num_channels))
    expected = jax.eval_shape(lambda key: model.init(key, sample, train=False), jax.random.key(0))
    path, named = source.path, source.named
    if source.run is not None:
        variables = fitted(source.run.variables, data.image_size)
    else:
        variables = fill(expected, named, where=path, parts=("backbone",))
        if "head" in recognize(named, where=path).parts:
            with contextlib.suppress(UserError):  # a head of other sizes is left out, like a missing one
                variables = fill(expected, named, where=path, parts=("backbone", "head"))
        variables = jax.tree.map(np.asarray, _only_arrays(variables))
    for kind, tree in expected.items():
        _check_same_shapes(tree["backbone"], variables[kind]["backbone"], path)
    if not _same_shapes(expected["params"]["head"], variables["params"].get("head")):
        variables = _backbones(variables)
    kept = {
        kind: {part: tree for part, tree in parts.items() if part != "classifier"} for kind, parts in variables.items()
    }
    return GivenWeights(kept, path, weights_fingerprint(kept), source.step)


def _backbones(variables: dict[str, Any]) -> dict[str, Any]:
    return {
        kind: {part: tree for part, tree in parts.items() if part == "backbone"} for kind, parts in variables.items()
    }


def _only_arrays(variables: dict[str, Any]) -> dict[str, Any]:
    """Without the parts that are still shapes, because nothing filled them."""
    return {
        kind: {
            part: tree
            for part, tree in parts.items()
            if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))
        }
        for kind, parts in variables.items()
    }


def _same_shapes(expected: Any, found: Any) -> bool:
    return found is not None and not _differences(expected, found)


def _check_same_shapes(expected: Any, found: Any, path: str) -> None:
    differences = _differences(expected, found)
    if differences:
        raise UserError(
            f"the backbone in {path} does not fit this network: {'; '.join(differences[:5])} "
            f"({len(differences)} in total); set model.name, model.width, model.stem and model.pool to those it was trained with"
        )


def _differences(expected: Any, found: Any) -> list[str]:
    flat: list[dict[Any, Any]] = [flatten_dict(tree) for tree in (expected, found)]
    shapes = [{"/".join(name): leaf.shape for name, leaf in tree.items()} for tree in flat]
    names = sorted(set(shapes[0]) | set(shapes[1]))
    return [
        f"{name} is {shapes[1].get(name, 'missing')}, expected {shapes[0].get(name, 'nothing')}"
        for name in names
        if shapes[0].get(name) != shapes[1].get(name)
    ]
