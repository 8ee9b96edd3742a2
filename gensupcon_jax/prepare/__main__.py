"""python -m gensupcon_jax.prepare: the command `gensupcon prepare`."""

import sys

from gensupcon_jax.__main__ import main

sys.argv.insert(1, "prepare")
main()
