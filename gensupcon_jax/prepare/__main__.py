"""python -m gensupcon_jax.prepare."""

from gensupcon_jax.prepare.command import run

run()
