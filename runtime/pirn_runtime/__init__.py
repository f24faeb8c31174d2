"""Judges parts with a model that `pirn_jax` exported; needs no JAX.

>>> from pirn_runtime import Judge
>>> judge = Judge("part.onnx")
>>> judge(rgb, xyz).pred_score
"""

from pirn_jax.detector.prediction import Prediction
from pirn_runtime.judge import Judge
from pirn_runtime.version import __version__

__all__ = ["Judge", "Prediction", "__version__"]
