"""A step to time, and paired timings: contenders take turns, and what slows one slows all."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from pt2tt_jax import objectives, train
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.settings import Tune
from pt2tt_jax.tuning import Tuned, Tuning, attach, split

Contender = Callable[[int], None]  # does its work number i to the end


class Training:
    """One model of prompt tuning as `pt2tt tune` trains it; a call is a step, to its end.

    Args:
      backbone: the frozen model.
      tuning: what is trained.
      recipe: how.
      batches: step -> arrays [1, rows, length].
    """

    def __init__(
        self,
        backbone: Backbone,
        tuning: Tuning,
        recipe: Tune,
        batches: Callable[[int], dict[str, np.ndarray]],
    ):
        module = Tuned(backbone.module, tuning)
        half, frozen = split(attach(module, backbone.params, jax.random.key(0)), tuning)
        trained = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], half)
        objective = objectives.cross_entropy
        problem = train.Problem(module, frozen, trained, objective, batches, None, ('one',))
        self.frozen, self.batches = jax.device_put(frozen), batches
        self.state = train.initial_state(problem, recipe)
        self.step = train.make_step(module, objective, recipe)

    def __call__(self, number: int) -> None:
        self.state, metrics = self.step(self.state, self.frozen, self.batches(number))
        jax.block_until_ready((self.state.trained, metrics))

    def flops(self) -> float:
        """Of a step of the first shape, as XLA counts them."""
        lowered = self.step.lower(self.state, self.frozen, self.batches(0))
        found = lowered.compile().cost_analysis()
        return float(found['flops'])  # type: ignore


def paired(contenders: Mapping[str, Contender], rounds: int, each: int) -> dict[str, list[float]]:
    """Seconds per call of each contender, one number a round; the first call is not counted.

    Args:
      contenders: name -> what it does; all are given the same numbers.
      rounds: turns of every contender.
      each: calls a turn.
    """
    for work in contenders.values():
        for number in range(each):
            work(number)  # compiles every shape that the first round has
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, work in contenders.items():
            begun = time.perf_counter()
            for number in range(turn * each, (turn + 1) * each):
                work(number)
            seconds[name].append((time.perf_counter() - begun) / each)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """How many times as long `slow` takes as `fast`: the median over rounds of paired ratios."""
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(a / b for a, b in pairs)


def matrix_product(size: int = 2048, dtype: str = 'float32', repeats: int = 5) -> float:
    """FLOP/s that this machine reaches in a large matrix product: the limit of a dense network."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        product(a).block_until_ready()
        taken.append(time.perf_counter() - begun)
    return 2 * size**3 / min(taken)


def machine() -> str:
    """The machine and the versions, for the head of a table."""
    names = ('jax', 'flax', 'torch', 'transformers', 'peft')
    found = []
    for name in names:
        try:
            found.append(f'{name} {metadata.version(name)}')
        except metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0].device_kind
    return f'{platform.machine()}, {os.cpu_count()} cores, {device}; {", ".join(found)}'
