"""What a config needs and how fast it can be on hardware that is not here: python -m gensupcon_jax.plan."""
