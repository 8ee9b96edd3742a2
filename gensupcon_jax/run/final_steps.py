"""The final evaluation of a run: of its last step, and of the best one by validation."""

from typing import Any

import jax

from gensupcon_jax.evaluation.final import Evaluation, evaluate_network, numbers_of, reevaluate_classifier
from gensupcon_jax.method.state import TrainState, abstract
from gensupcon_jax.run.loop import Trained
from gensupcon_jax.run.run import Run
from gensupcon_jax.store import workdir
from gensupcon_jax.store.averaged import AVERAGED_FIELDS
from gensupcon_jax.store.checkpoint import Damaged, restore_step
from gensupcon_jax.store.saved_runs import COLLECTIONS


def evaluate_last(run: Run, state: TrainState) -> Evaluation:
    """The evaluation of the state after the last step."""
    settings, step = run.evaluation_settings(), run.lengths.total_steps
    return evaluate_network(run.predict_fn(state), run.compared_dataset(), settings, step=step)


def evaluate_best(run: Run, trained: Trained, last: Evaluation) -> Evaluation | None:
    """The evaluation of the best step by validation: `last` where that is the last step, None if its checkpoint is damaged, and
    without a validation split.

    The network of the best step takes the place of the trained one, which is no longer usable: memory holds one of them.
    A collective call.
    """
    if run.dataset.validation is None:
        return None
    step = _best_step(trained)
    if step in (None, last.step):
        if step is not None:
            run.say(f"the best step by validation is the last one, {step}: it is not evaluated twice")
        return last
    try:
        state = _restored(run, trained.state, step)
    except Damaged as damage:
        run.say(f"warning: the best step, {step}, is not evaluated: its checkpoint is damaged ({damage})")
        return None
    evaluated = {"step": step, "earlier": last}
    places = (run.predict_fn(state), run.compared_dataset(), run.evaluation_settings())
    if run.config.objective == "linear_probe":  # its features are those of a frozen encoder, at every step
        return reevaluate_classifier(*places, **evaluated)
    return evaluate_network(*places, **evaluated)._replace(features={})  # large, and only those of the last are shown


def numbers_of_best(best: Evaluation | None) -> dict[str, Any] | None:
    """The dict `best` of results.json: the step, and the same numbers as for the last step; None if they are unknown."""
    return None if best is None else {"step": best.step, **numbers_of(best)}


def _best_step(trained: Trained) -> int | None:
    return (trained.record["best"] or {}).get("step")


def _restored(run: Run, state: TrainState, step: int) -> TrainState:
    """The network of a step in the memory of this state's, which is given up first; only for predictions."""
    names = AVERAGED_FIELDS if run.config.evaluate.encoder == "ema" else COLLECTIONS
    given_up = {name: getattr(state, name) for name in names}
    wanted = abstract(given_up)
    for leaf in jax.tree.leaves(given_up):
        leaf.delete()
    restored = restore_step(run.folder / workdir.CHECKPOINTS, step, wanted)
    return state.replace(**restored.fields)
