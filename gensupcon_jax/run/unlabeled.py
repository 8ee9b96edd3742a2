"""What follows for a run from training images without a label: what cannot be trained on them, and the shares of the classes."""

from ml_collections import ConfigDict

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.errors import UserError


def check_labels(config: ConfigDict, dataset: Dataset) -> None:
    """UserError where the config asks for something that needs labels, and no training image has one."""
    if not dataset.some_unlabeled or dataset.train.is_labeled.any():
        return
    found = f"none of the {dataset.train.num_images} training images of {dataset.name} has a label"
    if config.objective != "contrastive":
        raise UserError(f"{found}; allowed with objective {config.objective}: labels, or set objective to contrastive")
    users = {"prototypes.use": config.prototypes.use, "classifier.beside": config.classifier.beside}
    users = [name for name, is_used in users.items() if is_used]
    if users and config.teacher.kind == "none":
        raise UserError(f"{found}; allowed without a teacher: {users[0]}=False")


def notes_on_labels(dataset: Dataset) -> list[str]:
    """A sentence where there is nothing to evaluate."""
    if dataset.has_labels:
        return []
    return ["no training image has a label: there are no accuracies; the encoder embeds images and finds similar ones"]


def with_instances(config: ConfigDict, dataset: Dataset, class_shares: list[float]) -> list[float]:
    """The shares of the classes in the loss, where each image without a label is a class of its own."""
    num_images = dataset.train.num_images
    if config.teacher.kind != "none":
        return class_shares
    num_unlabeled = num_images
    if config.loss.use_labels:
        num_unlabeled = int((~dataset.train.is_labeled).sum()) if dataset.some_unlabeled else 0
    labeled = 1 - num_unlabeled / num_images
    return [*(labeled * share for share in class_shares), *([1 / num_images] * num_unlabeled)]
