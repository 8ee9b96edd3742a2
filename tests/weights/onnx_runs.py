"""Runs ONNX models in onnxruntime, in silence."""

import jax
import jax.export
import jax.numpy as jnp
import onnxruntime


def outputs_of(model, images):
    """The features of uint8 images, by onnxruntime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns about each constant that it folds
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"images": images})
    return features


def images_of(height, width, channels):
    """The type of any number of such images."""
    return jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"batch, {height}, {width}, {channels}"), jnp.uint8)
