"""The steps that went wrong, kept in the workdir: all that one needs to compute such a step again elsewhere."""

import json
from typing import Any, NamedTuple

import jax
import numpy as np

from gensupcon_jax import paths
from gensupcon_jax.cluster import processes, sharding
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.state import TrainState, saved_fields
from gensupcon_jax.paths import Path, failures, write_whole
from gensupcon_jax.run.bad_values import Bad
from gensupcon_jax.run.divergence import Looked
from gensupcon_jax.run.record import new_record
from gensupcon_jax.run.run import Run
from gensupcon_jax.store import workdir
from gensupcon_jax.store.kept_arrays import Arrays, kept_content, read_kept
from gensupcon_jax.text import reason, visible

KIND = "step that went wrong 1"
MOST_KEPT = (
    3  # skipped steps, the first ones, so that none is removed for which a replay was offered; and the one at the end
)
MOST_IMAGE_BYTES = 64 * 2**20  # of a batch whose images are kept; of a larger one their numbers are
NOT_FINITE, SPIKE = "not finite", "spike"
_NAME, _SUFFIX = "step_", ".npz"


class KeptStep(NamedTuple):
    """A step that went wrong.

    step: its number, from 1.  about: config, description of the data, lengths, versions, why it was kept.  state: array by name.
    found: what the run has found in it; None of a step that was skipped, in which it does not look.
    batch: the fields of `shapes.Batch`; None where they were too large.  indices: of its images in the training split.
    names: of these images, where they are files; else empty.  seed_key: the data of the key that all draws of a step follow from.
    """

    step: int
    about: dict[str, Any]
    state: Arrays
    batch: Arrays | None
    indices: np.ndarray
    names: list[str]
    seed_key: np.ndarray
    found: Looked | None


def content_of_step(run: Run, state: TrainState, why: str) -> Arrays:
    """All that the step after this state follows from, named, as `keep_step` writes it; a collective call.

    why: NOT_FINITE or SPIKE.
    """
    step = int(state.step)
    arrays = _placed_on_host(run, saved_fields(state))
    arrays |= _batch_arrays(run, step) | {
        "indices": run.indices(step),
        "seed_key": np.asarray(jax.random.key_data(run.key("step"))),
    }
    return arrays | {"about": _packed(_about(run, step) | {"why": why, "step": step + 1})}


def with_found(content: Arrays, looked: Looked) -> Arrays:
    """The same, and what a look inside the step has found: loss, norm of the gradient, and the first value that is not finite."""
    bad = looked.bad and looked.bad._asdict() | {"value": repr(looked.bad.value)}
    numbers = {name: repr(getattr(looked, name)) for name in ("loss", "gradient_norm")}  # JSON has no NaN
    return content | {"about": _packed(_unpacked(content) | {"found": numbers | {"bad": bad}})}


def keep_step(run_folder: Path, content: Arrays, *, is_last: bool) -> str:
    """Write a step into the workdir, by process 0.

    is_last: the run ends at this step, which is kept in any case; of others the first MOST_KEPT are.
    Returns "", or why it was not kept: that ends no run, as its own error matters more.
    """
    if not processes.is_first():
        return ""
    step, folder = _unpacked(content)["step"], run_folder / workdir.DIVERGED
    try:
        others = [each for each in kept_steps(run_folder) if each != step]
        if len(others) >= MOST_KEPT and not is_last:
            return f"it is not kept, as {MOST_KEPT} steps are in {folder} already"
        folder.mkdir(exist_ok=True)
        write_whole(_path(folder, step), kept_content(KIND, content))
        for other in others[MOST_KEPT:]:  # at which an earlier start ended
            _path(folder, other).unlink()
    except failures() as error:
        return f"step {step} could not be kept in {folder} ({reason(error)})"
    return ""


def kept_steps(run_folder: Path) -> list[int]:
    """The numbers of the steps that are kept in a workdir, in ascending order."""
    folder = run_folder / workdir.DIVERGED
    names = [path.name for path in folder.iterdir()] if paths.is_folder(folder) else []
    parts = [name.removeprefix(_NAME).removesuffix(_SUFFIX) for name in names if name.startswith(_NAME)]
    return sorted(int(part) for part in parts if part.isdecimal())


def read_kept_step(run_folder: Path, step: int | None = None) -> KeptStep:
    """A kept step, None: the newest; UserError without one, or where its file is damaged or of another version."""
    steps = kept_steps(run_folder)
    if not steps:
        raise UserError(
            f"{run_folder} has kept no step that went wrong (no {workdir.DIVERGED}/{_NAME}*{_SUFFIX}); "
            "allowed: the --workdir of a run that has diverged or has skipped a step"
        )
    if step is not None and step not in steps:
        listed = ", ".join(map(str, steps))
        raise UserError(f"--step is {step}, and {run_folder} has not kept it; allowed: {listed}")
    step = steps[-1] if step is None else step
    arrays = read_kept(_path(run_folder / workdir.DIVERGED, step), KIND)
    assert arrays is not None  # it is listed
    about = _unpacked(arrays)
    batch = {name: arrays[f"batch/{name}"] for name in Batch._fields if f"batch/{name}" in arrays}
    return KeptStep(
        step=step,
        about=about,
        state={name.removeprefix("state/"): array for name, array in arrays.items() if name.startswith("state/")},
        batch=batch or None,
        indices=arrays["indices"],
        names=about["names"],
        seed_key=arrays["seed_key"],
        found=_found(about),
    )


def state_like(kept: KeptStep, expected: TrainState) -> TrainState:
    """The kept state with the structure of this one; UserError if its arrays are others.

    expected: of shapes, for the config of the kept step.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(saved_fields(expected))
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    wanted = {name: (tuple(leaf.shape), str(leaf.dtype) if _is_of_numpy(leaf) else "float32") for name, leaf in named}
    there = {name: (array.shape, str(array.dtype)) for name, array in kept.state.items()}
    differing = sorted(name for name in wanted | there if wanted.get(name) != there.get(name))
    if differing:
        raise UserError(
            f"step {kept.step} does not fit the network of this program: {differing[0]} is "
            f"{there.get(differing[0], 'missing')}, expected {wanted.get(differing[0], 'nothing')} ({len(differing)} arrays in "
            f"total); it was kept by {kept.about['versions']}: use these versions"
        )
    arrays = [kept.state[name].astype(leaf.dtype) for name, leaf in named]
    return expected.replace(**jax.tree_util.tree_unflatten(structure, arrays))


def state_before(state: TrainState, num_spikes: int = 0, *, has_diverged: bool) -> TrainState:
    """The state before the step that was skipped last: it differs in its counts only.

    num_spikes: how many of the skipped steps were spikes.  has_diverged: the run ends at this step, which is not counted then.
    """
    spikes = state.spikes and state.spikes | {"num_spikes": 0 * state.spikes["num_spikes"] + num_spikes}
    step = state.step if has_diverged else state.step - 1
    return state.replace(step=step, skipped_steps=state.skipped_steps - 1, spikes=spikes)


def _found(about: dict[str, Any]) -> Looked | None:
    found = about.get("found")
    if found is None:
        return None
    bad = found["bad"] and Bad(
        **found["bad"]
        | {name: tuple(found["bad"][name]) for name in ("shape", "index", "images")}
        | {"value": float(found["bad"]["value"])}
    )
    return Looked(bad, float(found["loss"]), float(found["gradient_norm"]))


def _packed(about: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(about).encode(), np.uint8)


def _unpacked(content: Arrays) -> dict[str, Any]:
    return json.loads(content["about"].tobytes())


def _path(folder: Path, step: int) -> Path:
    return folder / f"{_NAME}{step:08d}{_SUFFIX}"


def _placed_on_host(run: Run, fields: dict[str, Any]) -> Arrays:
    whole = sharding.place(fields, sharding.replicated(run.mesh))  # the queue lies in parts on several hosts
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(whole))
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)) for path, leaf in leaves]
    return {f"state/{name}": array if _is_of_numpy(array) else array.astype(np.float32) for name, array in named}


def _is_of_numpy(leaf: Any) -> bool:
    """Whether a file of NumPy can hold the data type; bfloat16 is written as float32, which holds each of its values."""
    return np.dtype(leaf.dtype).kind != "V"


def _batch_arrays(run: Run, step: int) -> Arrays:
    """Images and labels of the step after `step`, without the images where they take too much."""
    (batch,) = run.batches(step, step + 1)
    parts = {name: part for name, part in batch._asdict().items() if part is not None}
    if sum(part.nbytes for part in parts.values()) > MOST_IMAGE_BYTES:
        return {}
    whole = jax.device_get(sharding.place(parts, sharding.replicated(run.mesh)))
    return {f"batch/{name}": np.asarray(part) for name, part in whole.items()}


def _about(run: Run, step: int) -> dict[str, Any]:
    train = run.dataset.train
    names = [visible(train.where(index)) for index in run.indices(step)] if isinstance(train, EncodedSplit) else []
    record = new_record(run.config, run.fingerprints())
    teacher = run.teacher and {
        "image_size": run.teacher.image_size,
        "mean": np.asarray(run.teacher.mean).tolist(),
        "std": np.asarray(run.teacher.std).tolist(),
        "output": run.teacher.output,
    }
    shares = run.data.class_shares
    return {
        "config": record["config"],
        "versions": record["versions"],
        "data": run.description(),
        "class_shares": None if shares is None else np.asarray(shares).tolist(),
        "some_unlabeled": bool(run.data.some_unlabeled),
        "lengths": run.lengths._asdict(),
        "teacher": teacher,
        "num_devices": run.mesh.size,
        "device": run.mesh.devices.flat[0].device_kind,
        "names": names,
    }
