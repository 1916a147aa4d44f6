"""Paired timings: contenders take turns, so that what slows the machine slows all of them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata

import jax
import jax.numpy as jnp

Contender = Callable[[int], None]  # does its work number i to the end


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
