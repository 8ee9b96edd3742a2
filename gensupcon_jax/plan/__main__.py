"""python -m gensupcon_jax.plan: the command `gensupcon plan`."""

import sys

from gensupcon_jax.__main__ import main

sys.argv.insert(1, "plan")
main()
