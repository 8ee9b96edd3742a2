"""Encoders by name: a config's `model` fields -> a Flax module."""

from gensupcon_jax.models.encoders import (
    BACKBONE_FIELDS,
    BATCH_NORMS,
    DTYPES,
    ENCODER_FIELDS,
    ENCODERS,
    HEADS,
    POOLS,
    STEMS,
    EncoderSettings,
    build_backbone,
    build_model,
    choose_stem,
)
from gensupcon_jax.models.heads import Classifier, EncoderOutput, HeadedEncoder, LinearHead, MlpHead, unit_normalize
from gensupcon_jax.models.resnet import ResNet
from gensupcon_jax.models.vit import VisionTransformer

__all__ = [
    "BACKBONE_FIELDS",
    "BATCH_NORMS",
    "DTYPES",
    "ENCODERS",
    "ENCODER_FIELDS",
    "HEADS",
    "POOLS",
    "STEMS",
    "Classifier",
    "EncoderOutput",
    "EncoderSettings",
    "HeadedEncoder",
    "LinearHead",
    "MlpHead",
    "ResNet",
    "VisionTransformer",
    "build_backbone",
    "build_model",
    "choose_stem",
    "unit_normalize",
]
