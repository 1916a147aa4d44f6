"""The training loop of both stages: a population of trained halves before one frozen backbone.

Every leaf of the trained half has a leading population axis: templates in stage 1, seeds in
stage 2, and length one for a single run. One compiled step trains all members. Each has its own
optimizer state and batches; the frozen half exists once.

What is random or ordered is a function of (seed, step), so that a run that is killed and started
again ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from tqdm import tqdm

from pt2tt_jax import processes, sharding
from pt2tt_jax.checkpoints import Checkpoints
from pt2tt_jax.objectives import Forward, Objective, penalised
from pt2tt_jax.optimizers import optimizer
from pt2tt_jax.settings import Recipe
from pt2tt_jax.tuning import Params, merge
from pt2tt_jax.writers import MetricLog, Silence, open_log

logger = logging.getLogger('pt2tt')

Batch = dict[str, np.ndarray]
Scores = list[dict[str, float]]  # one entry a member; 'score' ranks checkpoints, higher is better


class State(struct.PyTreeNode):
    """All that changes while training. Leaves but `step` have a leading population axis.

    `pace` multiplies a member's updates: its own learning rate, or 0 where it has stopped.
    """

    step: jax.Array
    trained: Params
    optimizer: optax.OptState
    rng: jax.Array
    pace: jax.Array
    best: Params
    best_score: jax.Array
    best_step: jax.Array


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained, and on what.

    Attributes:
      module: the tuned model; called with T5X's features.
      frozen: parameters without population axis.
      trained: initial parameters with population axis.
      objective: loss of what `forward` gives, and of the batch.
      batches: step -> arrays [population, batch, ...].
      evaluate: trained half -> scores of each member; None to keep the last step.
      names: of the members, for logs.
      seed: of dropout.
      forward: the model's answer to a batch, by default its logits.
      rates: of each member, a factor of the recipe's learning rate.
    """

    module: Any
    frozen: Params
    trained: Params
    objective: Objective
    batches: Callable[[int], Batch]
    evaluate: Callable[[Params], Scores] | None
    names: tuple[str, ...]
    seed: int = 0
    forward: Forward = penalised
    rates: tuple[float, ...] = ()


def initial_state(problem: Problem, recipe: Recipe) -> State:
    """The state before the first step; dropout keys of the members follow from `problem.seed`."""
    members = len(problem.names)
    trained, best = (jax.tree.map(jnp.copy, problem.trained) for _ in range(2))  # to be donated
    return State(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        optimizer=jax.vmap(optimizer(recipe).init)(problem.trained),
        rng=jax.random.key_data(jax.random.split(jax.random.key(problem.seed), members)),
        pace=jnp.asarray(problem.rates or (1.0,) * members, jnp.float32),
        best=best,
        best_score=jnp.full((members,), -jnp.inf),
        best_step=jnp.zeros((members,), jnp.int32),
    )


def make_step(module, objective: Objective, recipe: Recipe, forward: Forward = penalised):
    """The jitted step: (state, frozen, batch) -> (state, metrics [population])."""
    chosen = optimizer(recipe)

    def loss(trained, frozen, batch, rng):
        answer, penalty = forward(module, merge(trained, frozen), batch, dropout=rng)
        total, weight = objective(answer, batch)
        return total + penalty * weight, weight

    def gradient(trained, frozen, batch, rng):
        """Gradient of the mean loss, summed over micro-batches before the division."""
        # Each takes every n-th row: a batch that is split over devices stays so.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, recipe.accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )
        rngs = jax.random.split(rng, recipe.accumulate)

        def add(total, part):
            (value, weight), slope = jax.value_and_grad(loss, has_aux=True)(trained, frozen, *part)
            return jax.tree.map(jnp.add, total, (value, weight, slope)), None

        zero = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
        if recipe.accumulate == 1:  # a loop would be traced twice
            total, _ = add(zero, jax.tree.map(lambda x: x[0], (parts, rngs)))
        else:
            total, _ = jax.lax.scan(add, zero, (parts, rngs))
        value, weight, slope = total
        # A batch of examples that all weigh nothing (Tune.task_weights) moves nothing.
        weight = jnp.where(weight > 0, weight, 1.0)
        return value / weight, jax.tree.map(lambda g: g / weight, slope)

    def member(trained, opt_state, rng, pace, frozen, batch, step):
        key = jax.random.fold_in(jax.random.wrap_key_data(rng), step)
        value, slope = gradient(trained, frozen, batch, key)
        updates, opt_state = chosen.update(slope, opt_state, trained)
        updates = jax.tree.map(lambda leaf: leaf * pace, updates)
        trained = optax.apply_updates(trained, updates)
        metrics = {'loss': value, 'gradient_norm': optax.global_norm(slope)}
        return trained, opt_state, metrics

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, frozen: Params, batch):
        trained, opt_state, metrics = jax.vmap(member, in_axes=(0, 0, 0, 0, None, 0, None))(
            state.trained, state.optimizer, state.rng, state.pace, frozen, batch, state.step
        )
        state = state.replace(step=state.step + 1, trained=trained, optimizer=opt_state)
        return state, metrics

    return step


def keep_better(state: State, scores: Scores) -> State:
    """Remembers the trained half of each member whose score beats all before it."""
    score = jnp.array([s['score'] for s in scores], jnp.float32)
    better = score > state.best_score

    def choose(new, old):
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return state.replace(
        best=jax.tree.map(choose, state.trained, state.best),
        best_score=jnp.where(better, score, state.best_score),
        best_step=jnp.where(better, state.step, state.best_step),
    )


def stop_patiently(state: State, patience: int) -> State:
    """Members whose score has not risen for `patience` steps move no more; nothing recompiles."""
    if not patience:
        return state
    waiting = state.step - state.best_step < patience
    return state.replace(pace=jnp.where(waiting, state.pace, 0.0))


def moving(state: State) -> bool:
    """Whether any member has not stopped."""
    return bool(processes.fetch(state.pace).any())


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Result of a loop: the kept trained half of each member, its step and score, and all rows."""

    trained: Params
    steps: np.ndarray
    curves: list[dict[str, Any]]
    scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


def fit(
    problem: Problem,
    recipe: Recipe,
    directory: Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    label: str = 'training',
) -> Fitted:
    """Trains every member for `recipe.steps` steps, resuming from `directory` where it can.

    Args:
      problem: what to train.
      recipe: how.
      directory: takes `checkpoints/` and `metrics.jsonl`.
      mesh: devices; by default the smallest, one device.
      label: beside the progress bar.
    """
    mesh = mesh or sharding.mesh(1, 1)
    with Checkpoints(directory / 'checkpoints') as checkpoints:
        members = len(problem.names)
        shapes = jax.eval_shape(lambda: initial_state(problem, recipe))
        planned = sharding.shard_state(shapes, members, mesh)
        state = checkpoints.restore(planned)
        if state is planned:  # made only where it is needed: it may be large
            state = sharding.shard_state(initial_state(problem, recipe), members, mesh)
        first = int(state.step)
        # A start after all have stopped has nothing to do.
        last = first if first and recipe.patience and not moving(state) else recipe.steps
        with (
            open_log(directory, first, recipe.writers) as log,
            _bar(problem, recipe, first, label) as bar,
        ):
            run = _Loop(problem, recipe, checkpoints, log, bar)
            if not first:
                state = run.evaluate(state, {})
            frozen = sharding.shard_params(problem.frozen, mesh)
            step = make_step(problem.module, problem.objective, recipe, problem.forward)
            for number, batch in _ahead(problem, first, last, mesh):
                state, metrics = step(state, frozen, batch)
                state = run.after_step(number + 1, state, metrics)
                if run.stopped(number + 1, state):
                    break
    rows = log.rows()
    if recipe.keep == 'best' and problem.evaluate:
        steps, scores = processes.fetch((state.best_step, state.best_score))
        return Fitted(processes.fetch(state.best), steps, rows, scores)
    steps = np.full(members, int(state.step))
    return Fitted(processes.fetch(state.trained), steps, rows, _last_scores(rows, problem.names))


def _last_scores(rows: list[dict[str, Any]], names: Sequence[str]) -> np.ndarray:
    """Score of each member at the last evaluation; the lowest of all where it is no number."""
    last = {name: value for row in rows for name, value in row.items()}
    scores = np.array([last.get(f'score/{name}', -np.inf) for name in names], float)
    return np.where(np.isnan(scores), -np.inf, scores)


def _ahead(problem: Problem, first: int, last: int, mesh: jax.sharding.Mesh):
    """(step, its batch on the devices); the next one is made while the devices are busy."""

    def make(number: int):
        return sharding.shard_batch(problem.batches(number), mesh)

    with futures.ThreadPoolExecutor(1, 'batches') as worker:
        coming = worker.submit(make, first) if first < last else None
        for number in range(first, last):
            batch = coming.result()  # type: ignore
            coming = worker.submit(make, number + 1) if number + 1 < last else None
            yield number, batch


def _bar(problem: Problem, recipe: Recipe, first: int, label: str) -> tqdm:
    """Examples of all members; no bar where the output is not a terminal."""
    examples = recipe.batch_size * len(problem.names)
    return tqdm(
        total=recipe.steps * examples,
        initial=first * examples,
        desc=label,
        unit='ex',
        disable=None if processes.first() else True,
        smoothing=0.05,
    )


@dataclasses.dataclass(frozen=True)
class _Loop:
    """What happens between steps: progress, evaluation, logging, checkpoints."""

    problem: Problem
    recipe: Recipe
    checkpoints: Checkpoints
    log: MetricLog | Silence
    bar: tqdm

    def after_step(self, number: int, state: State, metrics) -> State:
        self.bar.update(self.recipe.batch_size * len(self.problem.names))
        final = number == self.recipe.steps
        if number % self.recipe.evaluation_period == 0 or final:
            values = {name: value.tolist() for name, value in processes.fetch(metrics).items()}
            self.bar.set_postfix(loss=f'{np.mean(values["loss"]):.3f}')
            self._warn_diverged(number, values['loss'])
            state = self.evaluate(state, values)
        due = number % self.recipe.checkpoint_period == 0 or final
        if self.checkpoints.preempted(number) or due:
            self.log.flush()  # what a checkpoint follows must be on disk before it
            self.checkpoints.save(number, state)
        return state

    def stopped(self, number: int, state: State) -> bool:
        """Whether no member moves any more; evaluations alone stop one, and asking costs a wait."""
        due = self.recipe.patience and number % self.recipe.evaluation_period == 0
        return bool(due) and not moving(state)

    def _warn_diverged(self, number: int, losses: list[float]) -> None:
        named = zip(self.problem.names, losses, strict=True)
        lost = [name for name, value in named if not np.isfinite(value)]
        if lost:
            logger.warning(
                'The loss of %s is not finite at step %d; a lower learning rate or clip = 1.0 may '
                'keep it.',
                ', '.join(lost),
                number,
            )

    def evaluate(self, state: State, values: dict[str, list[float]]) -> State:
        """Scores every member, and logs the scores together with `values`."""
        scores = self.problem.evaluate(state.trained) if self.problem.evaluate else []
        values |= {name: [s[name] for s in scores] for name in (scores[0] if scores else ())}
        self.log.write_scalars(
            int(state.step),
            {
                f'{name}/{member}': float(value)
                for name, members in values.items()
                for member, value in zip(self.problem.names, members, strict=True)
            },
        )
        if not scores:
            return state
        return stop_patiently(keep_better(state, scores), self.recipe.patience)
