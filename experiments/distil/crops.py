"""Batches of crops, made on the host by threads: which, where, and how turned, by seed and step.

Every random choice comes from the seed and the number of the step alone, so a run that is resumed
sees what it would have seen.

Dimension letters: B pictures of a batch, S side of a crop, H W pixels of a picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

LEAST_AREA = 0.15
"""Of the largest square of a picture that a crop may take."""
WHOLE = 0.3
"""Share of crops that take all of that square."""
AHEAD = 3
"""Batches made while a step is computed."""


class Parts(NamedTuple):
    """Indices of pictures to learn from, some of them several times, and of those held out."""

    train: Int[np.ndarray, " n"]
    held_out: Int[np.ndarray, " m"]


def hold_out(
    sources: Sequence[int], weights: Sequence[int], share: float, seed: int, most: int
) -> Parts:
    """Hold a share of the pictures out, two at least.

    Args:
        sources: of each picture.
        weights: of each source; its pictures are drawn so many times as often.
        share: to hold out, 0 to 1.
        seed: which.
        most: so many at most.
    """
    count = len(sources)
    order = np.random.default_rng([seed, 1]).permutation(count)
    held = min(max(2, round(share * count)), most, count - 2)
    train = np.sort(order[held:])
    times = np.array([weights[sources[i]] for i in train])
    return Parts(np.repeat(train, times), np.sort(order[:held]))


def whole(picture: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "S S 3"]:
    """The largest square in a picture's middle."""
    height, width = picture.shape[:2]
    edge = min(height, width)
    return _resized(picture, (width - edge) / 2, (height - edge) / 2, edge, edge, side)


def crop(
    picture: UInt8[np.ndarray, "H W 3"], side: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "S S 3"]:
    """A random part of a picture, randomly stretched, flipped and turned by right angles."""
    height, width = picture.shape[:2]
    area = 1.0 if rng.random() < WHOLE else rng.uniform(LEAST_AREA, 1.0)
    stretch = np.exp(rng.uniform(-1, 1) * np.log(4 / 3)) if rng.random() < 0.7 else 1.0
    edge = min(height, width) * np.sqrt(area)
    across, down = min(edge * np.sqrt(stretch), width), min(edge / np.sqrt(stretch), height)
    x, y = rng.uniform(0, width - across), rng.uniform(0, height - down)
    part = _resized(picture, x, y, across, down, side)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if rng.random() < 0.5:
        part = np.rot90(part, int(rng.integers(4)))
    return np.ascontiguousarray(part)


def _resized(
    picture: np.ndarray, x: float, y: float, across: float, down: float, side: int
) -> UInt8[np.ndarray, "S S 3"]:
    height, width = picture.shape[:2]
    box = (x, y, min(x + across, width), min(y + down, height))  # rounding may lead out
    image = Image.fromarray(picture)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


class Batches:
    """The batches of a run, made ahead by threads; a context that ends them.

    Args:
        pictures: all of them.
        draw: indices to draw from.
        batch, side: of the crops.
        seed: of the run.
        threads: that crop.
    """

    def __init__(
        self,
        pictures: Sequence[np.ndarray],
        draw: Int[np.ndarray, " n"],
        batch: int,
        side: int,
        seed: int,
        threads: int,
    ):
        self._pictures, self._draw = pictures, draw
        self._batch, self._side, self._seed = batch, side, seed
        self._pool = ThreadPoolExecutor(threads, "crops")

    def from_step(self, step: int) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
        """The batches of a step and all after it, for ever."""
        waiting: deque[list[Future[np.ndarray]]] = deque()
        while True:
            while len(waiting) < AHEAD:
                waiting.append(self._start(step + len(waiting)))
            yield np.stack([future.result() for future in waiting.popleft()])
            step += 1

    def _start(self, step: int) -> list[Future[np.ndarray]]:
        rng = np.random.default_rng([self._seed, 2, step])
        chosen = self._draw[rng.integers(len(self._draw), size=self._batch)]
        return [
            self._pool.submit(crop, self._pictures[i], self._side, own)
            for i, own in zip(chosen, rng.spawn(self._batch), strict=True)
        ]

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
