"""The training step of a config for devices that are not present: the function that training jits, on shapes only."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.method.state import TrainState, state_shardings
from gensupcon_jax.models import BACKBONE_FIELDS, Classifier, build_backbone
from gensupcon_jax.plan.known import DataSizes
from gensupcon_jax.run import assemble
from gensupcon_jax.run.config_check import check_combinations, check_config
from gensupcon_jax.weights import teachers


class PlannedStep(NamedTuple):
    """A step and the shapes of its arguments, ready for `lower`.

    view_size, total_steps: of the views in pixels, and how many steps have it.  initial_state_fn(key) -> the state.  assumptions:
    sentences about what the config leaves open.
    """

    train_step_fn: Any
    state: TrainState
    frozen: dict[str, Any]
    batch: Any
    seed_key: Any
    images_per_device: int
    view_size: int
    total_steps: int
    initial_state_fn: Any
    assumptions: tuple[str, ...]

    def lower(self) -> jax.stages.Lowered:
        """The step for the devices of its shapes' shardings, not compiled yet."""
        return self.train_step_fn.lower(self.state, self.frozen, self.batch, self.seed_key)


def check_planned(config: ConfigDict, sizes: DataSizes, num_devices: int) -> None:
    """UserError for a config that training would refuse, with this data and these devices."""
    check_config(config)
    check_combinations(config, num_train_images(config, sizes), num_devices)


def num_train_images(config: ConfigDict, sizes: DataSizes) -> int:
    """The number of images per epoch."""
    fields = config.dataset
    return sizes.num_train_images(fields.validation_fraction, fields.train_images, fields.imbalance_factor)


def plan_step(config: ConfigDict, sizes: DataSizes, mesh: Mesh | AbstractMesh) -> PlannedStep:
    """The step of `plan_steps` with the largest views."""
    return max(plan_steps(config, sizes, mesh), key=lambda planned: planned.view_size)


def plan_steps(config: ConfigDict, sizes: DataSizes, mesh: Mesh | AbstractMesh) -> tuple[PlannedStep, ...]:
    """The config's step on this mesh with views of each size, with shapes only: nothing is downloaded, drawn or compiled."""
    data = sizes.shape(config.dataset.name.removeprefix("tfds:"))
    data = data._replace(some_unlabeled=config.dataset.labeled_images is not None)
    per_epoch = num_train_images(config, sizes) // config.batch_size
    lengths = assemble.lengths(config, per_epoch)
    teacher, assumptions = _teacher(config, data)
    parts = assemble.build_parts(config, data, lengths, mesh, teacher)
    state = assemble.abstract_state(parts)
    everywhere = sharding.replicated(mesh)
    frozen = assemble.frozen_variables(config, teacher, lambda: _encoder_variables(config, data))
    seed_key = jax.eval_shape(lambda: jax.random.key(0))

    def planned(part: assemble.SizedParts) -> PlannedStep:
        batch = assemble.abstract_batch(config, data, part.size)
        return PlannedStep(
            train_step_fn=part.train_step_fn,
            state=_placed(state, state_shardings(state, mesh)),
            frozen=with_sharding(frozen, everywhere),
            batch=with_sharding(batch, sharding.batch_sharding(mesh)),
            seed_key=with_sharding(seed_key, everywhere),
            images_per_device=config.batch_size // mesh.size,
            view_size=part.size,
            total_steps=len(part.steps),
            initial_state_fn=parts.initial_state_fn,
            assumptions=assumptions,
        )

    return tuple(map(planned, parts.sized))


def with_fields(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    """A copy of the config with other values of fields, such as {"loss.tile_size": 8}."""
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.update_from_flattened_dict(fields)
    return changed


def with_sharding(shapes: Any, one_sharding: Any) -> Any:
    """The same shapes, all with one sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one_sharding), shapes)


def bytes_per_device(tree: Any) -> int:
    """Bytes of a tree of placed shapes on one device, without padding of tiles."""
    leaves = jax.tree.leaves(tree)
    return sum(_num_entries(leaf) * leaf.dtype.itemsize for leaf in leaves)


def _num_entries(leaf: jax.ShapeDtypeStruct) -> int:
    count = 1
    for side in leaf.sharding.shard_shape(leaf.shape):
        count *= side
    return count


def _teacher(config: ConfigDict, data: DataShape) -> tuple[teachers.Teacher | None, tuple[str, ...]]:
    """A network like the teacher's: its file may be elsewhere, or not exist yet."""
    if config.teacher.kind == "none":
        return None, ()
    own_recipe = config.teacher.kind == "workdir"
    own_fields = {name: config.model[name] for name in BACKBONE_FIELDS}
    fields = own_fields if own_recipe else {"name": config.teacher.architecture, "dtype": config.model.dtype}
    image_size = config.teacher.image_size or data.image_size
    backbone = build_backbone(image_size=image_size, batch_norm="local", **fields)
    network = teachers.Network(backbone, Classifier(data.num_classes))
    sample = jnp.zeros((1, image_size, image_size, data.num_channels))
    teacher = teachers.Teacher(
        variables=jax.eval_shape(network.init, jax.random.key(0), sample),
        logits_fn=network.apply,
        image_size=image_size,
        num_channels=data.num_channels,
        mean=data.mean,
        std=data.std,
        fingerprint="",
        name="teacher",
    )
    return teacher, (f"the teacher is assumed to be a {fields['name']} in {config.model.dtype}; it is not read",)


def _encoder_variables(config: ConfigDict, data: DataShape) -> Any:
    model = assemble.encoder_of(config, data)
    sample = jnp.zeros((1, data.image_size, data.image_size, data.num_channels))
    return jax.eval_shape(lambda key: model.init(key, sample, method="features"), jax.random.key(0))


def _placed(shapes: Any, shardings: Any) -> Any:
    def placed(leaf, leaf_sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf_sharding)

    return jax.tree.map(placed, shapes, shardings)
