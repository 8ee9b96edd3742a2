"""Finds the first value in a step that is not finite; runs once, after a run has diverged, and when a step is replayed."""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gensupcon_jax.cluster.sharding import BATCH, REPLICATED, make_replicated
from gensupcon_jax.collectives import varying
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.method import spikes
from gensupcon_jax.method.objectives import MixedBatch, Objective
from gensupcon_jax.method.state import TrainState, partition_specs
from gensupcon_jax.method.train_step import step_inputs
from gensupcon_jax.paths import Path
from gensupcon_jax.run import assemble
from gensupcon_jax.run.bad_values import Bad, Layout, Watched, bad_summary, first_bad, is_watched
from gensupcon_jax.text import reason


class Step(NamedTuple):
    """What computes a step: an objective with unrolled microbatches, the views, and the devices.

    num_parts: microbatches.  are_exchanged: the key encoder sees images of other devices.  predictions_fn(frozen["teacher"],
    images) -> the teacher's predictions; None without a teacher.
    """

    objective: Objective
    view_fn: Callable
    mesh: Mesh
    num_parts: int = 1
    are_exchanged: bool = False
    predictions_fn: Callable | None = None


def step_of(
    config: ConfigDict, data: DataShape, lengths: assemble.Lengths, teacher: Any, view_fn: Callable, mesh: Mesh
) -> Step:
    """What computes the steps of a run."""
    objective = assemble.build_objective(config, data, lengths, teacher, unrolled=True)
    are_exchanged = config.loss.mode == "momentum" and config.model.batch_norm == "local" and mesh.size > 1
    of_teacher = None if config.objective == "linear_probe" else assemble.teacher_labels(config, data, teacher)
    predictions_fn = None if of_teacher is None else of_teacher.probabilities_fn
    return Step(objective, view_fn, mesh, config.microbatches, are_exchanged, predictions_fn)


class Looked(NamedTuple):
    """What a look inside a step has found: the first value that is not finite, and two numbers of the step."""

    bad: Bad | None
    loss: float
    gradient_norm: float


def look_inside(step: Step, state: TrainState, frozen: Any, batch: Batch, seed_key: jax.Array) -> Looked:
    """The first value of this step that is not finite, in the order of computation: forward, then back from the loss.

    state: the one before the step.
    """
    watched: list[Watched] = []

    def look(state, frozen, batch, seed_key):
        arrays, numbers = _arrays_of_step(step, state, frozen, batch, seed_key)
        watched[:] = [each for each, _ in arrays]
        return [bad_summary(array) for _, array in arrays], make_replicated(numbers)

    specs = (partition_specs(state), REPLICATED, BATCH, REPLICATED)
    looked = jax.jit(jax.shard_map(look, mesh=step.mesh, in_specs=specs, out_specs=REPLICATED))
    found, (loss, gradient_norm) = jax.device_get(looked(state, frozen, batch, seed_key))
    layout = Layout(batch.images.shape[0] // step.mesh.size, step.num_parts, step.are_exchanged)
    return Looked(first_bad(watched, found, layout), float(loss), float(gradient_norm))


def looked_or_reason(step: Step, state: TrainState, frozen: Any, batch: Batch, seed_key: jax.Array) -> Looked | str:
    """The same; why it could not be computed, where the device has no memory for all values of a step: the run ends anyway."""
    try:
        return look_inside(step, state, frozen, batch, seed_key)
    except jax.errors.JaxRuntimeError as error:
        return reason(error)


Arrays = list[tuple[Watched, jax.Array]]


def _arrays_of_step(
    step: Step, state: TrainState, frozen: Any, batch: Batch, seed_key: jax.Array
) -> tuple[Arrays, tuple[jax.Array, jax.Array]]:
    """Every array of a step in the order of computation; and its loss and the norm of its gradient."""
    mixed, loss_key = step_inputs(step.view_fn, state, batch, seed_key)

    def loss_fn(params: Any, taps: Any) -> Any:
        watch = _Watch(taps)
        with nn.intercept_methods(watch):
            loss, aux = step.objective.loss(params, state, frozen, mixed, loss_key)
        return loss, (aux, watch.outputs, watch.names)

    def without_names(params: Any, taps: Any) -> Any:
        loss, (aux, outputs, _) = loss_fn(params, taps)
        return loss, (aux, outputs)

    _, (_, shown, names) = loss_fn(state.params, None)  # for the shapes only; the compiler drops it
    taps = jax.tree.map(_zeros_like, shown)
    gradient_fn = jax.value_and_grad(without_names, argnums=(0, 1), has_aux=True)
    (loss, (aux, outputs)), (gradients, output_gradients) = gradient_fn(state.params, taps)
    updates, _ = state.tx.update(gradients, state.opt_state, state.params)
    gradient_norm = optax.global_norm(gradients)
    arrays = [
        *_named("parameter", state.params),
        *_inputs(mixed),
        *_predictions(step, frozen, mixed),
        *_of_calls("output", names, outputs),
        *_named("loss", {"the loss": loss}),
        *_backward(_of_calls("output gradient", names, output_gradients), _named("gradient", gradients)),
        *_named("norm", {"the norm of the gradient": gradient_norm}),
        *_named("update", updates),
        *_named("norm", {"the norm of the update": optax.global_norm(updates)}),
        *_named("statistics", aux.updates.get("batch_stats", {})),
    ]
    return arrays, (loss, gradient_norm)


class _Watch:
    """An interceptor of Flax that keeps the outputs of all modules; taps: zeros to add to them, for their gradients."""

    def __init__(self, taps: list[Any] | None):
        self.names: list[tuple[str, bool]] = []  # and whether the module consists of others
        self.outputs: list[Any] = []
        self._taps = taps

    def __call__(self, call_fn: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        num_before = len(self.outputs)
        output = call_fn(*args, **kwargs)
        leaves, structure = jax.tree.flatten(output)
        kept = [place for place, leaf in enumerate(leaves) if is_watched(leaf)]
        if not kept:
            return output
        if self._taps is not None:
            for place, tap in zip(kept, self._taps[len(self.names)], strict=True):
                leaves[place] = leaves[place] + tap
        name = "/".join(context.module.path) or type(context.module).__name__
        self.names.append((name, len(self.outputs) > num_before))
        self.outputs.append([leaves[place] for place in kept])
        return jax.tree.unflatten(structure, leaves)


def _zeros_like(leaf: jax.Array) -> jax.Array:
    """Zeros that vary between devices as the array does, so that their gradient is that of one device."""
    return varying(jnp.zeros(leaf.shape, leaf.dtype), jax.typeof(leaf).manual_axis_type.varying)


def _named(kind: str, tree: Any) -> Arrays:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves if is_watched(leaf)
    ]
    return [(Watched(kind, name, jnp.shape(leaf)), leaf) for name, leaf in named]


def _inputs(mixed: MixedBatch) -> Arrays:
    both = [("", mixed)] if mixed.local is None else [("", mixed), ("local ", mixed.local)]
    images = [(Watched("images", f"{size}images", each.images.shape), each.images) for size, each in both]
    return images + [(Watched("labels", f"{size}labels", each.labels.shape), each.labels) for size, each in both]


def _predictions(step: Step, frozen: Any, mixed: MixedBatch) -> Arrays:
    if step.predictions_fn is None:
        return []
    found = step.predictions_fn(frozen["teacher"], mixed.images.reshape(-1, *mixed.images.shape[2:]))
    return [(Watched("predictions", "the teacher's predictions", found.shape), found)]


def _of_calls(kind: str, names: list[tuple[str, bool]], outputs: list[list[jax.Array]]) -> Arrays:
    calls: collections.Counter[str] = collections.Counter()
    arrays = []
    for (name, is_whole), leaves in zip(names, outputs, strict=True):
        numbered = [name] if len(leaves) == 1 else [f"{name}[{place}]" for place in range(len(leaves))]
        arrays += [
            (Watched(kind, each, leaf.shape, calls[name], is_whole), leaf)
            for each, leaf in zip(numbered, leaves, strict=True)
        ]
        calls[name] += 1
    return arrays


def _backward(of_outputs: Arrays, of_params: Arrays) -> Arrays:
    """From the loss back to the images: the gradient of a module's output, then those of its parameters.

    Modules that consist of others are left out, as their output is that of one of these; their own parameters come last.
    """
    waiting = {watched.name: (watched, leaf) for watched, leaf in of_params}
    arrays = []
    for watched, leaf in reversed(of_outputs):
        if not watched.is_whole:
            arrays.append((watched, leaf))
            if watched.call == 0:
                own = [name for name in waiting if name.rpartition("/")[0] == watched.name]
                arrays += [waiting.pop(name) for name in own]
    return arrays + list(waiting.values())


def bad_in_words(bad: Bad | None) -> str:
    """What was found, as a clause."""
    if bad is None:
        return "every value is finite when the step is computed again"
    return {
        "parameter": f"the parameters {bad.name} were not finite before the step",
        "images": f"the {bad.name} given to the network are not finite",
        "labels": f"the {bad.name} given to the network are not finite",
        "predictions": "the teacher's predictions are not finite",
        "output": f"the first module whose output is not finite is {bad.name}",
        "loss": "the output of every module is finite, the loss is not",
        "output gradient": f"the loss is finite, the first gradient that is not finite is that of the output of {bad.name}",
        "gradient": f"the loss is finite, the first gradient that is not finite is that of {bad.name}",
        "norm": f"every gradient is finite, {bad.name} is not",
        "update": f"loss and gradients are finite, the update of {bad.name} is not",
        "statistics": f"loss and gradients are finite, BatchNorm's statistics {bad.name} are not",
    }[bad.kind]


def likely_causes(objective: str, bad: Bad | None = None) -> str:
    """The likely causes, as a sentence; bad: the first value that is not finite."""
    if bad is not None and bad.kind == "predictions":
        return "The cause is the teacher: its weights, or a function that divides by 0 or leaves its range"
    causes = ["optimizer.learning_rate is too high", "optimizer.warmup_epochs is too short"]
    if objective == "contrastive":
        causes[1:1] = [
            "loss.temperature is too low",
            "loss.normalizer is 'similarity' with a learning rate chosen for 'count', whose gradients are far smaller",
        ]
    return f"Likely causes: {', '.join(causes)}"


def spike_in_words(looked: Looked, state: TrainState) -> str:
    """How far a spike is above the steps before; state: the one before the step."""
    return spikes.heights_in_words(state.spikes, {"loss": looked.loss, "gradient_norm": looked.gradient_norm})


def message(why: str, looked: Looked | str, state: TrainState, objective: str) -> str:
    """The error of a diverged run: what was found, and the likely causes.

    why: "not finite" or "spike".  looked: or why it is not known.  state: the one before the step.
    """
    num_skipped, step = int(state.skipped_steps), int(state.step) + 1
    if isinstance(looked, str):
        found, bad = f"its values could not be looked at ({looked})", None
    else:
        found, bad = spike_in_words(looked, state) if why == "spike" else bad_in_words(looked.bad), looked.bad
    if why == "spike":
        return (
            f"step {step} is a spike, and {num_skipped} steps were skipped before it, as many as optimizer.max_skipped_steps "
            f"allows: {found} (optimizer.spike_deviations). {likely_causes(objective)}."
        )
    skipped = f"; {num_skipped} such steps were skipped before it (optimizer.max_skipped_steps)" if num_skipped else ""
    return f"step {step} is not finite: {found}{skipped}. {likely_causes(objective, bad)}."


def where_it_is(good_step: int, folder: Path, not_saved: str, not_kept: str) -> str:
    """Where the last good state is, and the step that went wrong.

    not_saved, not_kept: why one of them could not be written; "" if it was.
    """
    saved = not_saved or (
        f"The last good state, of step {good_step}, is saved in {folder}; start again with different settings in another "
        "--workdir"
    )
    kept = (
        not_kept
        or f"gensupcon replay {folder} --step {good_step + 1} computes it again and says where its first bad value is"
    )
    return f"{saved}. {kept}"
