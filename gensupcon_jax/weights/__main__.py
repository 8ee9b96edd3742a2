"""python -m gensupcon_jax.weights."""

import sys

from gensupcon_jax.weights.command import main

main(sys.argv[1:])
