"""Finds the first value in a step that is not finite; runs once, after a run has diverged."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from gensupcon_jax.cluster.sharding import BATCH, DATA_AXIS, REPLICATED
from gensupcon_jax.collectives import varying
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.method.objectives import Objective
from gensupcon_jax.method.state import TrainState, partition_specs
from gensupcon_jax.method.train_step import step_inputs
from gensupcon_jax.paths import Path


def likely_causes(objective: str) -> str:
    """The likely causes, as a sentence."""
    causes = ["optimizer.learning_rate is too high", "optimizer.warmup_epochs is too short"]
    if objective == "contrastive":
        causes[1:1] = [
            "loss.temperature is too low",
            "loss.normalizer is 'similarity' with a learning rate chosen for 'count', whose gradients are far smaller",
        ]
    return f"Likely causes: {', '.join(causes)}"


def first_bad_value(
    objective: Objective,
    view_fn: Callable,
    mesh: Mesh,
    state: TrainState,
    frozen: Any,
    batch: Batch,
    seed_key: jax.Array,
) -> str:
    """Describes the first value of this step that is not finite, in the order of computation.

    state: the one before the step.
    """
    modules: list[str] = []

    def look(state, frozen, batch, seed_key):
        modules.clear()
        outputs = []

        def watch(call_fn, args, kwargs, context):
            output = call_fn(*args, **kwargs)
            modules.append("/".join(context.module.path) or type(context.module).__name__)
            outputs.append(_all_finite(output))
            return output

        mixed, loss_key = step_inputs(view_fn, state, batch, seed_key)
        with nn.intercept_methods(watch):
            loss, _ = objective.loss(state.params, state, frozen, mixed, loss_key)
        gradients = jax.grad(lambda params: objective.loss(params, state, frozen, mixed, loss_key)[0])(state.params)
        found = {
            "images": _all_finite((mixed.images, mixed.local and mixed.local.images)),
            "labels": _all_finite((mixed.labels, mixed.local and mixed.local.labels)),
            "outputs": jnp.stack(outputs) if outputs else jnp.ones(0, bool),
            "loss": jnp.isfinite(loss),
            "gradients": jax.tree.map(_all_finite, gradients),
            "params": jax.tree.map(_all_finite, state.params),
        }
        return jax.tree.map(lambda flag: jax.lax.pmin(varying(flag.astype(jnp.int32), DATA_AXIS), DATA_AXIS), found)

    specs = (partition_specs(state), REPLICATED, BATCH, REPLICATED)
    looked = jax.jit(jax.shard_map(look, mesh=mesh, in_specs=specs, out_specs=REPLICATED))
    return _in_words(jax.device_get(looked(state, frozen, batch, seed_key)), modules)


def _in_words(found: dict[str, Any], modules: list[str]) -> str:
    bad_params, bad_gradients = (_bad_names(found[name]) for name in ("params", "gradients"))
    if bad_params:
        return f"the parameters {bad_params[0]} were not finite before the step"
    for name in ("images", "labels"):
        if not found[name]:
            return f"the {name} given to the network are not finite"
    for module, is_finite in zip(modules, found["outputs"], strict=True):
        if not is_finite:
            return f"the first module whose output is not finite is {module}"
    if not found["loss"]:
        return "the output of every module is finite, the loss is not"
    if bad_gradients:
        # Gradients flow from the last module to the first, and so do their bad values.
        last = max(bad_gradients, key=lambda name: _position(name, modules))
        return f"the loss is finite, the first gradient that is not finite is that of {last}"
    return "loss and gradients are finite, the update of the parameters or BatchNorm's statistics are not"


def _bad_names(flags: Any) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(flags)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, flag in leaves if not flag]


def _position(parameter: str, modules: list[str]) -> int:
    return max((number for number, module in enumerate(modules) if parameter.startswith(f"{module}/")), default=-1)


def _all_finite(tree: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all() if leaves else jnp.ones((), bool)


def message(found: str, good_step: int, num_skipped: int, objective: str, folder: Path) -> str:
    """The error of a diverged run: what was found, the likely causes, and where the last good state is.

    found: from `first_bad_value`.  num_skipped: steps that were skipped before.
    """
    skipped = f"; {num_skipped} such steps were skipped before it (optimizer.max_skipped_steps)" if num_skipped else ""
    return (
        f"step {good_step + 1} is not finite: {found}{skipped}. {likely_causes(objective)}. "
        f"The last good state, of step {good_step}, is saved in {folder}; "
        "start again with different settings in another --workdir"
    )
