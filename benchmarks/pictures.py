"""Draw the pictures of docs/method.md from a run on the digits: what the labels ask for, and what the encoder does.

JAX_PLATFORMS=cpu python -m benchmarks.pictures --workdir runs/digits --output docs/pictures
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.drawing import BLUE, EDGE, INK, MUTED, ORANGE, new_figure, picture_style
from gensupcon_jax.data.datasets import digits
from gensupcon_jax.data.splits import Split
from gensupcon_jax.losses import dense_contrastive_loss, label_similarity, latent_similarity
from gensupcon_jax.models import ENCODER_FIELDS, build_model
from gensupcon_jax.report.similarity import class_order, similarity_correlation
from gensupcon_jax.store.saved_runs import SavedRun, read_run
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.views.mixing import build_mix_fn, cutmix_kept, mixup_kept

DPI = 110
NUM_IMAGES = 40  # of the similarity matrices: few enough to see one pair
NUM_CONTRASTS = 9  # of the one anchor that is followed
FIRST, SECOND = 3, 8  # the classes of the two images that are mixed
SEED = 0  # of the mixing
TEMPERATURE = 0.1  # the recipe's
GRAY = "#c9d0da"


class Embedded(NamedTuple):
    """Mixed test images, their label distributions, and their unit embeddings before and after training."""

    images: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray


def main() -> None:
    """Write mixing.png, similarity.png and anchor.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", default="runs/digits", help="a finished run on the digits")
    parser.add_argument("--output", default="docs/pictures", help="the folder of the pictures")
    given = parser.parse_args()
    output = Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    test = digits().test
    embedded = embed(read_run(given.workdir), test)
    with picture_style():
        for name, figure in (
            ("mixing", mixing_picture(test)),
            ("similarity", similarity_picture(embedded)),
            ("anchor", anchor_picture(embedded)),
        ):
            figure.savefig(output / f"{name}.png", dpi=DPI)
            print(output / f"{name}.png")


def embed(run: SavedRun, test: Split) -> Embedded:
    """Mix test images, which the encoder has never seen, and embed them with its first and its trained parameters."""
    chosen = np.concatenate([np.flatnonzero(test.classes == number)[: NUM_IMAGES // 10] for number in range(10)])
    images, labels = (jnp.asarray(array) for array in test.subset(chosen)[:2])
    mix_fn = build_mix_fn(kind="cutmix", alpha=1.0, per="image", views="alike", block=NUM_IMAGES)
    images, labels = mix_fn(jax.random.key(SEED), images[:, None] / 255.0, labels)
    images, labels = images[:, 0], labels[:, 0]
    order = class_order(np.asarray(labels))
    images, labels = images[order], labels[order]
    fields = {name: value for name, value in run.config.model.items() if name in ENCODER_FIELDS}
    model = build_model(image_size=images.shape[1], **fields)
    inputs = normalize(images, *(np.asarray(run.description[name], np.float32) for name in ("mean", "std")))
    untrained = model.init(jax.random.key(run.config.seed), inputs, train=False)

    def embeddings(variables: Any) -> np.ndarray:
        return np.asarray(model.apply(variables, inputs, train=False).embeddings)

    return Embedded(np.asarray(images), np.asarray(labels), embeddings(untrained), embeddings(run.variables))


def mixing_picture(test: Split) -> Any:
    """Two images, their CutMix and their Mixup, each above its label distribution."""
    first, second = (test.images[np.flatnonzero(test.classes == number)[0]] / 255.0 for number in (FIRST, SECOND))
    height, width = first.shape[:2]
    cutmix = cutmix_kept(jnp.asarray(0.6), jnp.asarray(5), jnp.asarray(4), height, width)
    mixup = mixup_kept(jnp.asarray(0.7), height, width)
    columns = [(f"class {FIRST}", first, 1.0), (f"class {SECOND}", second, 0.0)]
    for name, kept in (("CutMix", cutmix), ("Mixup", mixup)):
        pixels = np.asarray(kept.pixels)[..., None]
        columns.append((name, pixels * first + (1 - pixels) * second, float(kept.share)))
    figure = new_figure(8.6, 3.9)
    panels = figure.subplots(2, len(columns), height_ratios=(1.6, 1))
    for (title, image, share), above, below in zip(columns, *panels, strict=True):
        show_image(above, image)
        above.set_title(title, loc="center")
        heights = np.zeros(10)
        heights[FIRST], heights[SECOND] = share, 1 - share
        below.bar(range(10), heights, color=[ORANGE if number == SECOND else BLUE for number in range(10)])
        for number in np.flatnonzero(heights):
            below.text(number, heights[number] + 0.05, percent(heights[number]), ha="center", fontsize=9, color=INK)
        below.set_ylim(0, 1.3)
        below.set_xticks(range(10))
        below.set_yticks([])
        below.tick_params(length=0)
        hide_spines(below, "top", "left", "right")
    panels[1][0].set_ylabel("label\ndistribution")
    return figure


def similarity_picture(embedded: Embedded) -> Any:
    """Label similarity of every pair of images, and their latent similarity before and after training."""
    wanted = np.asarray(label_similarity(embedded.labels, embedded.labels))
    before, after = (cosines(embeddings) for embeddings in (embedded.before, embedded.after))
    lowest = float(np.floor(10 * after.min()) / 10)  # one scale for both of the encoder
    panels = (
        ("Label similarity", "what the labels ask for", wanted, 0.0),
        ("Latent similarity before training", correlation_text(wanted, before), before, lowest),
        ("Latent similarity after training", correlation_text(wanted, after), after, lowest),
    )
    figure = new_figure(9.6, 3.2)
    for axes, (title, note, matrix, low) in zip(figure.subplots(1, 3), panels, strict=True):
        shown = axes.imshow(matrix, cmap="Blues", vmin=low, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(note, fontsize=9)
        mark_classes(axes, embedded.labels.argmax(1))
        bar = figure.colorbar(shown, ax=axes, shrink=0.7, pad=0.03, ticks=(low, 1))
        bar.outline.set_visible(False)
    return figure


def mark_classes(axes: Any, classes: np.ndarray) -> None:
    """Lines between the classes of a sorted matrix, and their names at the left."""
    present, starts = np.unique(classes, return_index=True)
    for start in starts[1:]:
        axes.axhline(start - 0.5, color=EDGE, linewidth=0.5)
        axes.axvline(start - 0.5, color=EDGE, linewidth=0.5)
    axes.set_xticks([])
    axes.set_yticks((starts + np.append(starts[1:], len(classes)) - 1) / 2, list(map(str, present)), fontsize=8)
    axes.tick_params(length=0)


def correlation_text(wanted: np.ndarray, latent: np.ndarray) -> str:
    """How well a latent similarity follows the labels'."""
    return f"correlation with the labels: {similarity_correlation(wanted, latent):.2f}"


def anchor_picture(embedded: Embedded) -> Any:
    """One mixed anchor and some contrasts: the share each should get, and gets before and after training."""
    wanted = np.asarray(label_similarity(embedded.labels, embedded.labels))
    anchor = typical_anchor(embedded, wanted)
    others = np.setdiff1d(np.arange(NUM_IMAGES), anchor)
    others = others[np.argsort(-wanted[anchor, others], kind="stable")]
    contrasts = others[np.linspace(0, 0.6 * len(others), NUM_CONTRASTS).astype(int)]
    bars = [("what the labels ask for", wanted[anchor, contrasts] / wanted[anchor, contrasts].sum(), BLUE)]
    for name, embeddings, color in (
        ("the encoder before training", embedded.before, GRAY),
        ("the encoder after training", embedded.after, ORANGE),
    ):
        logits = latent_similarity(embeddings[[anchor]], embeddings[contrasts], temperature=TEMPERATURE)
        bars.append((name, np.asarray(jax.nn.softmax(logits, axis=1))[0], color))
    figure = new_figure(9.6, 4.1)
    grid = figure.add_gridspec(2, NUM_CONTRASTS + 2, height_ratios=(1, 1.9))
    for place, index in enumerate((anchor, *contrasts)):
        axes = figure.add_subplot(grid[0, 0 if place == 0 else place + 1])
        show_image(axes, embedded.images[index])
        axes.set_xlabel(label_text(embedded.labels[index]), fontsize=8)
        if place < 2:
            axes.set_title(("anchor", "contrasts")[place], fontsize=10)
    axes = figure.add_subplot(grid[1, 2:])
    for place, (name, heights, color) in enumerate(bars):
        axes.bar(np.arange(NUM_CONTRASTS) + 0.27 * (place - 1), heights, width=0.25, color=color, label=name)
    axes.set_xlim(-0.5, NUM_CONTRASTS - 0.5)
    axes.set_xticks([])
    axes.set_ylabel("share")
    hide_spines(axes, "top", "right")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def typical_anchor(embedded: Embedded, wanted: np.ndarray) -> int:
    """Of the anchors with a quarter or more of a second class, the one whose loss after training is the median."""
    latent = latent_similarity(embedded.after, embedded.after, temperature=TEMPERATURE)
    loss = np.asarray(dense_contrastive_loss(wanted, latent, contrast_weights=~np.eye(NUM_IMAGES, dtype=bool)).loss)
    mixed = np.flatnonzero(np.sort(embedded.labels, axis=1)[:, -2] >= 0.25)
    return int(mixed[np.argsort(loss[mixed])[len(mixed) // 2]])


def cosines(embeddings: np.ndarray) -> np.ndarray:
    """Cosine similarity of unit embeddings [image, dim], every pair."""
    return np.asarray(latent_similarity(embeddings, embeddings, temperature=1.0))


def show_image(axes: Any, image: np.ndarray) -> None:
    """A gray image [height, width, 1] in 0..1, without ticks."""
    axes.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(MUTED)


def hide_spines(axes: Any, *sides: str) -> None:
    """Without these sides of the frame."""
    for side in sides:
        axes.spines[side].set_visible(False)


def label_text(label: np.ndarray) -> str:
    """The classes of a distribution with their shares, the largest first, such as "60 % 3\\n40 % 8"."""
    classes = [number for number in np.argsort(-label) if label[number] > 0.005]
    return "\n".join(f"{percent(label[number])} {number}" for number in classes)


def percent(share: float) -> str:
    """A share in 0..1 as "60 %"."""
    return f"{100 * share:.0f} %"


if __name__ == "__main__":
    main()
