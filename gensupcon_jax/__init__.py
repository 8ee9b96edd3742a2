"""Generalized Supervised Contrastive Learning (arXiv 2206.00384) in JAX and Flax."""

__version__ = "0.1.0"
