"""python -m gensupcon_jax.weights: the command `gensupcon weights`."""

import sys

from gensupcon_jax.__main__ import main

sys.argv.insert(1, "weights")
main()
