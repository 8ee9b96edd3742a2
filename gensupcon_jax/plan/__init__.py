"""Memory, cost and speed limits of a config on hardware that is not present: python -m gensupcon_jax.plan."""
