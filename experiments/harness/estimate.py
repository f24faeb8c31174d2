"""How long a job may take: from jobs like it that are done, else from its arithmetic."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.encoder import Encoder
from pirn_jax.methods.pirn import Recipe

if TYPE_CHECKING:
    from harness.jobs import Job

# Measured against sweeps of DINOv2-small's shape and ViT-Ti/16 on two cores: share of the speed of
# a large matrix product that encoding and training reach, and what an image's figures cost.
_EFFICIENCY = 0.25
_READING = 0.08  # seconds to read or render a scan and compute its normals
_EVALUATING = 0.03  # seconds of metrics per scan


class Estimate:
    """Estimates from what is known.

    Args:
        done: jobs with their results; those of the same config, whatever the category and seeds,
            say how long another takes.

    Attributes:
        compilation: seconds a new program takes to compile.
    """

    compilation = 15.0

    def __init__(self, done: Iterable[tuple[Job, dict[str, Any]]]):
        self._measured: dict[tuple[object, ...], list[float]] = {}
        for job, document in done:
            seconds = document["seconds"]
            self._measured.setdefault(_kind(job), []).append(sum(seconds.values()))

    def seconds(self, job: Job, encoder: Encoder) -> float:
        """Of one job, compilation apart."""
        if known := self._measured.get(_kind(job)):
            return statistics.median(known)
        speed = _EFFICIENCY * matrix_speed()
        test = dict(job.options).get("test", 60)
        scans, shots = float(test), float(job.shots or dict(job.options).get("train", 50))
        streams = len(job.config.modalities)
        picture = encoder.flops(1)
        encoding = (scans + shots) * (streams * picture / speed + _READING)
        learning = 0.0
        settings = job.config.settings
        if isinstance(settings, Recipe):  # of other methods known once one is done
            copies = len(settings.augmentations())
            passes = 3 * settings.epochs * shots * (1 + copies) + scans
            tokens = encoder.grid[0] * encoder.grid[1]
            flops = decoder_flops(settings.decoder, streams, encoder.channels, tokens)
            learning = passes * flops / speed
        return encoding + learning + scans * _EVALUATING


def decoder_flops(decoder: DecoderConfig, streams: int, channels: int, tokens: int) -> float:
    """Matrix products of the decoder for one scan, 2 operations per multiply-add."""
    k, c, n = decoder.prototypes, channels, tokens
    layer = 8.0 * n * k * c  # costs of APR and BPA, context and reconstruction
    if decoder.attention:
        layer += 4 * (n + k) * c * c
    layer += 4 * decoder.mlp_ratio * n * c * c
    if decoder.context != "none":
        layer += 12 * k * c * c
    if decoder.communicate and streams == 2:
        layer += 2 * n * c * c + 4 * n * k * c
    layer += 4 * decoder.iterations * n * k
    return layer * decoder.layers * streams


@functools.cache
def matrix_speed() -> float:
    """Operations a second of this machine's large matrix products, float32, just measured."""
    import jax
    import jax.numpy as jnp

    side = 1024
    product = jax.jit(lambda x: x @ x)
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(side, side)), jnp.float32)
    product(matrix).block_until_ready()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        product(matrix).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def _kind(job: Job) -> tuple[object, ...]:
    return job.resolved, job.shots, job.dataset, job.options


def clock(seconds: float) -> str:
    """A time to read."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
