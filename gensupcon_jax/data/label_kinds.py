"""What differs between the kinds of labels when splits are cut: one class per image, several labels, or a number."""

from typing import Any

import numpy as np

from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.data.cuts import cut_off, refuse_one_class
from gensupcon_jax.data.multi_hot import cut_off_labels, refuse_constant_labels
from gensupcon_jax.data.value_labels import cut_off_values
from gensupcon_jax.errors import UserError


def check_kind(kind: Any) -> None:
    """UserError for a kind of labels that there is not."""
    if kind not in names_of("dataset.label_kind"):
        raise UserError(f"label_kind is {kind!r}; allowed: {', '.join(names_of('dataset.label_kind'))}")


def cut_by_labels(split: Any, labels: np.ndarray, size: int, where: str, kind: str) -> tuple[Any, Any]:
    """(rest, part): `size` images cut from a split with these labels, stratified and deterministic; UserError where that is
    impossible."""
    if kind == "several":
        return cut_off_labels(split, labels, size, where)
    if kind == "value":
        return cut_off_values(split, labels, size, where)
    return cut_off(split, size, where)


def refuse_one_label(labels: np.ndarray, where: str, kind: str) -> None:
    """UserError for labels from which nothing can be learned."""
    if kind == "several":
        refuse_constant_labels(labels, where)
    elif kind == "class":  # the bins of values refuse equal ones
        refuse_one_class(labels, where)


_PER_IMAGE = {"class": "one class", "several": "several labels", "value": "a number"}


def refuse_other_kinds(kind: str, name: str, own: str = "class") -> None:
    """UserError for another kind of labels than that of a source, before it is read."""
    if kind != own:
        raise UserError(
            f"dataset.label_kind is {kind}, but the images of dataset.name {name!r} have {_PER_IMAGE[own]} each; allowed: "
            f"dataset.label_kind={own}, or a source with {_PER_IMAGE[kind]} per image"
        )
