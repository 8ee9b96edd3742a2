"""Generalized Supervised Contrastive Learning (arXiv 2206.00384) in JAX and Flax.

The public names below are imported when they are first used: `import gensupcon_jax` alone imports neither jax nor flax.

    import gensupcon_jax as gsc

    loss = gsc.generalized_contrastive_loss(features, labels, temperature=0.1).mean()
    results = gsc.train_and_evaluate(config, "runs/mine", gsc.from_arrays(images, labels))
    features = gsc.Encoder.load("runs/mine").embed(images)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gensupcon_jax.data.datasets import from_arrays
    from gensupcon_jax.errors import RunStopped, UserError
    from gensupcon_jax.inference.encoder import Encoder
    from gensupcon_jax.losses import (
        AnchorLoss,
        dense_contrastive_loss,
        flatten_views,
        generalized_contrastive_loss,
        label_similarity,
        latent_similarity,
    )
    from gensupcon_jax.run.train import train_and_evaluate

__version__ = "0.1.0"

__all__ = [
    "AnchorLoss",
    "Encoder",
    "RunStopped",
    "UserError",
    "__version__",
    "dense_contrastive_loss",
    "flatten_views",
    "from_arrays",
    "generalized_contrastive_loss",
    "label_similarity",
    "latent_similarity",
    "train_and_evaluate",
]

# The module of each public name; editors read the imports above.
_MODULES = {
    "gensupcon_jax.data.datasets": ("from_arrays",),
    "gensupcon_jax.errors": ("RunStopped", "UserError"),
    "gensupcon_jax.inference.encoder": ("Encoder",),
    "gensupcon_jax.losses": (
        "AnchorLoss",
        "dense_contrastive_loss",
        "flatten_views",
        "generalized_contrastive_loss",
        "label_similarity",
        "latent_similarity",
    ),
    "gensupcon_jax.run.train": ("train_and_evaluate",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
