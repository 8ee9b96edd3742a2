"""Images with two handwritten digits each, whose labels are both digits: several labels per image without a download."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from gensupcon_jax.data.cuts import SPLIT_SEED

_SIDE = 16  # of a composed image: two digits of 8 x 8, one in each half


def digit_pairs(
    images: UInt8[np.ndarray, "digit 8 8 1"], classes: Int[np.ndarray, "digit"], num_pairs: int
) -> tuple[UInt8[np.ndarray, "pair 16 16 1"], Float[np.ndarray, "pair 10"]]:
    """Images of two digits side by side, each at a height of its own, and rows of 0 and 1 for the digits 0 to 9.

    The digits are drawn at random, always the same ones; every digit is drawn before any is drawn again. Two equal digits are one
    label.
    """
    random = np.random.Philox(key=[SPLIT_SEED, num_pairs])
    passes = -(-2 * num_pairs // len(images))
    order = np.concatenate([random.random_raw(len(images)).argsort(kind="stable") for _ in range(passes)])
    pairs = order[: 2 * num_pairs].reshape(num_pairs, 2)
    tops = random.random_raw(2 * num_pairs).reshape(num_pairs, 2) % (_SIDE // 2 + 1)
    composed = np.zeros((num_pairs, _SIDE, _SIDE, 1), np.uint8)
    for canvas, pair, places in zip(composed, pairs, tops.astype(int), strict=True):
        for half, (digit, top) in enumerate(zip(pair, places, strict=True)):
            canvas[top : top + 8, 8 * half : 8 * half + 8] = images[digit]
    rows = np.zeros((num_pairs, 10), np.float32)
    rows[np.arange(num_pairs)[:, None], classes[pairs]] = 1
    return composed, rows
