"""python -m gensupcon_jax.weights."""

import sys

from gensupcon_jax.weights.convert import main

main(sys.argv[1:])
