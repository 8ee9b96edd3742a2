"""What the weights in `model.weights` ask of the images of a run: their channels, and their mean and standard deviation."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from gensupcon_jax.data.datasets import Dataset, in_channels
from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.initial import WeightsSource
from gensupcon_jax.weights.normalization import chosen_normalization, sentence_of


class SuitedData(NamedTuple):
    """A data set as the encoder takes it, its own description, that of the run (with its normalization), and sentences."""

    dataset: Dataset
    of_data: dict[str, Any]
    description: dict[str, Any]
    notes: tuple[str, ...]


def suited(config: ConfigDict, dataset: Dataset, source: WeightsSource | None) -> SuitedData:
    """The data set with the channels of the encoder's images, and the mean and std that they are normalized with.

    source: `model.weights`, opened.  Sets `dataset.channels` where gray images are repeated for an encoder of color images.
    Raises UserError if encoder and images have other channels, and for a mean or std that does not fit.
    """
    notes = [source.note] if source and source.note else []
    if source is not None and source.num_channels not in (None, dataset.num_channels):
        _check_channels(config, dataset, source)
        config.dataset.channels, dataset = 3, in_channels(dataset, 3)
        notes.append(
            f"gray images are repeated in 3 channels (dataset.channels=3), as the encoder in {source.path} takes 3"
        )
    of_data = dataset.description()
    given = (config.model.mean, config.model.std)
    chosen = chosen_normalization(given, source and source.normalization, of_data, config.model.weights)
    if source is not None or given != (None, None):
        notes.append(sentence_of(chosen))
    used = {"mean": chosen.mean.tolist(), "std": chosen.std.tolist(), "normalization": chosen.origin}
    return SuitedData(dataset, of_data, of_data | used, tuple(notes))


def _check_channels(config: ConfigDict, dataset: Dataset, source: WeightsSource) -> None:
    """UserError unless the images are gray, the encoder takes 3 channels, and `dataset.channels` is free to follow it."""
    needed, found = source.num_channels, dataset.num_channels
    if (needed, found, config.dataset.channels) == (3, 1, None):
        return
    remedies = {
        1: "dataset.channels=1, which makes color images gray",
        3: "dataset.channels=3, which repeats gray images",
    }
    remedy = f"set {remedies[needed]}" if needed in remedies else "allowed: an encoder of 1 or 3 channels"
    raise UserError(
        f"model.weights: the encoder in {source.path} takes images of {needed} channel(s), those of {dataset.name} have "
        f"{found} (dataset.channels is {config.dataset.channels}); {remedy}, or choose another encoder"
    )
