"""Which test images only one of two runs classifies correctly."""

from collections.abc import Sequence
from typing import NamedTuple

from gensupcon_jax.compare.comparisons import Comparison
from gensupcon_jax.compare.runs import PREDICTORS, ComparedRun
from gensupcon_jax.report.values import clean

MOST_IMAGES = 20  # of each pair and side


class WrongByOne(NamedTuple):
    """A test image, its class, and what the run that is wrong predicts."""

    image: str
    truth: str
    prediction: str


class ImagesOfOne(NamedTuple):
    """The images that `right` classifies correctly and `wrong` does not: the first of them, and how many there are."""

    right: str
    wrong: str
    predictor: str
    images: list[WrongByOne]
    count: int


def images_of_one(comparisons: Sequence[Comparison], runs: Sequence[ComparedRun]) -> list[ImagesOfOne]:
    """Two lists for every comparison on images."""
    by_name = {run.name: run for run in runs}
    found = []
    for comparison in comparisons:
        if not comparison.over_seeds:
            pair = [by_name[name] for name in comparison.runs]
            found += [_images(right, wrong, comparison) for right, wrong in (pair, pair[::-1])]
    return [each for each in found if each.count]


def _images(right: ComparedRun, wrong: ComparedRun, comparison: Comparison) -> ImagesOfOne:
    which, predictor = comparison.which, comparison.predictor
    good, bad = right.correct(which, predictor), wrong.correct(which, predictor)
    assert good is not None and bad is not None and wrong.kept is not None  # they have been compared
    places = (good & ~bad).nonzero()[0]
    classes = wrong.dataset.get("class_names") or []

    def name(number: int) -> str:
        return clean(classes[number]) if number < len(classes) else f"class {number}"

    predictions = wrong.kept.predictions[wrong.step(which) or 0][predictor]
    images = [
        WrongByOne(clean(wrong.kept.names[place]), name(int(wrong.kept.labels[place])), name(int(predictions[place])))
        for place in places[:MOST_IMAGES].tolist()
    ]
    return ImagesOfOne(clean(right.name), clean(wrong.name), PREDICTORS[predictor], images, len(places))
