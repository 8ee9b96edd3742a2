"""python -m gensupcon_jax.prepare: the command `gensupcon prepare`."""

import sys

from gensupcon_jax.__main__ import main

main(["prepare", *sys.argv[1:]])
