"""The source stage of MPT: one prompt for several tasks, distilled from a prompt of each.

Wang et al. 2023, "Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning", section
3.2. Each source task k has a teacher, a prompt that was tuned for it alone. The student's prompts
are trained on batches of all tasks to minimise

    L_task + weight * (L_logits + L_hidden),

per target token: the cross entropy, KL(teacher || student) over the vocabulary in nats, and the
squared difference of the final hidden states of encoder and decoder, averaged over features. Which
hidden states the paper compares was not found. Teacher and student read the same tokens before the
same frozen backbone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from pt2tt_jax import features, objectives, sharding, train
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Encoded
from pt2tt_jax.methods.initialisers import array
from pt2tt_jax.methods.prompt import EMBEDDER, prompt
from pt2tt_jax.objectives import Batch
from pt2tt_jax.settings import Recipe
from pt2tt_jax.tuning import Insert, Tuned, Tuning, attach, combine, flatten, merge, split

HIDDEN = 'hidden'
TEACHER = 'teacher_prompts'


class Watch(nn.Module):
    """Puts what the frozen module gives into the collection 'hidden'."""

    @nn.compact
    def __call__(self, frozen, *args, **kwargs):
        out = frozen(*args, **kwargs)
        self.sow(HIDDEN, 'states', out)
        return out


WATCHED = Tuning((Insert(HIDDEN, r'(encoder/encoder|decoder/decoder)_norm', Watch),))


class Seen(NamedTuple):
    """What a network says and thinks of a batch; states are those after the final norms."""

    logits: Float[Array, 'batch targets vocab']
    encoder: Float[Array, 'batch length embed']
    decoder: Float[Array, 'batch targets embed']


def seen(module: Any, params: Any, batch: Batch, dropout: jax.Array | None = None):
    """(`Seen`, penalty) of a network with `WATCHED`; the penalty as in `objectives.penalised`."""
    logits, sown = objectives.apply(module, params, batch, dropout, mutable=[HIDDEN, 'losses'])
    states = flatten(sown[HIDDEN])
    encoder, decoder = (
        states[f'{half}/{half}_norm/{HIDDEN}/states'][0] for half in ('encoder', 'decoder')
    )
    return Seen(logits, encoder, decoder), objectives.penalty(sown)


def both(teacher: nn.Module) -> objectives.Forward:
    """A forward for `train.Problem`: ((student, teacher), penalty)."""

    def forward(module, params, batch, dropout=None):
        student, penalty = seen(module, params, batch, dropout)
        return (student, seen(teacher, params, batch)[0]), penalty

    return forward


def distillation(weight: float) -> objectives.Objective:
    """The objective at the head of this file, as (sum over target tokens, their number)."""

    def objective(answer: tuple[Seen, Seen], batch: Batch):
        student, teacher = answer
        nats, count = objectives.cross_entropy(student.logits, batch)
        weights = batch['decoder_loss_weights']
        apart = objectives.exact_divergence(teacher.logits, student.logits)
        apart += _distance(teacher.decoder, student.decoder)
        inputs = batch['encoder_input_tokens'] > 0
        by_input = _distance(teacher.encoder, student.encoder) * inputs
        # The mean over an input's tokens belongs to each of its target tokens.
        by_text = by_input.sum(axis=1) / jnp.maximum(inputs.sum(axis=1), 1)
        return nats + weight * jnp.sum((apart + by_text[:, None]) * weights), count

    return objective


def _distance(teacher, student) -> Float[Array, 'batch tokens']:
    difference = teacher.astype(jnp.float32) - student.astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=-1)


@dataclasses.dataclass(frozen=True)
class Distilled:
    """The student's parameters by path, to be saved for `mpt.start`, and the metric log."""

    trained: dict[str, np.ndarray]
    curves: list[dict[str, Any]]


def distill(
    backbone: Backbone,
    tuning: Tuning,
    train_set: Encoded,
    teachers: Mapping[str, Float[np.ndarray, 'prompt embed']],
    settings: Recipe,
    directory: Path,
    *,
    weight: float = 1.0,
    seed: int = 0,
    mesh: jax.sharding.Mesh | None = None,
) -> Distilled:
    """Trains the prompts of all source tasks together; each batch takes equally from every task.

    Args:
      backbone: the frozen model.
      tuning: of the student, such as `methods.mpt(length, tasks=len(teachers))`.
      train_set: examples of all tasks, numbered in `tasks`; see `features.join`.
      teachers: a tuned prompt of each task, in the order of their numbers.
      settings: steps, batch size and the like.
      directory: takes checkpoints and metrics; an interrupted run goes on from there.
      weight: lambda, of both distillation losses; the paper's was not found.
      seed: of initial values and batches.
      mesh: devices; by default one.

    Raises:
      UserError: when the teachers are not one a task, or not as long as the student's prompts.
    """
    backbone = sharding.place(backbone, mesh or sharding.mesh(1, 1))
    around = tuning.frame(backbone.config.vocab_size)
    rows = _teacher_rows(teachers, tuning, around.length)
    tasks = _task_numbers(train_set, teachers)
    student = Tuned(backbone.module, combine(tuning, WATCHED))
    teacher = Tuned(backbone.module, combine(_table(rows), WATCHED))
    tree = attach(student, backbone.params, jax.random.key(seed))
    trained, frozen = split(tree, tuning)
    lesson = attach(teacher, backbone.params, jax.random.key(seed))[EMBEDDER][TEACHER]
    order = features.Mixed(tasks, settings.batch_size, seed)

    def batches(step: int) -> features.Batch:
        batch = features.batch(train_set, order(step), around)
        return {name: leaf[None] for name, leaf in batch.items()}

    problem = train.Problem(
        module=student,
        frozen=merge({EMBEDDER: {TEACHER: lesson}}, frozen),
        trained=jax.tree.map(lambda leaf: leaf.astype(jnp.float32)[None], trained),
        objective=distillation(weight),
        batches=batches,
        evaluate=None,
        names=('student',),
        seed=seed,
        forward=both(teacher),
    )
    fitted = train.fit(problem, settings, directory, mesh=mesh, label=f'{len(rows)} teachers')
    found = {path: np.asarray(leaf[0]) for path, leaf in flatten(fitted.trained).items()}
    return Distilled(found, fitted.curves)


def _table(rows: Float[np.ndarray, 'tasks prompt embed']) -> Tuning:
    """All teachers as one table, whose soft tokens are those of the student."""
    flat = rows.reshape(-1, rows.shape[-1])
    return prompt(len(flat), init=array(flat), name=TEACHER)


def _teacher_rows(teachers, tuning: Tuning, length: int) -> Float[np.ndarray, 'tasks prompt embed']:
    if len(teachers) != tuning.tasks:
        raise UserError(
            f'There are {len(teachers)} teachers, but the tuning has prompts of {tuning.tasks} '
            'tasks; give one saved prompt a task.'
        )
    for name, rows in teachers.items():
        if len(rows) != length:
            raise UserError(
                f'The teacher {name!r} has {len(rows)} tokens, the student {length}: their hidden '
                'states cannot be compared. Train both with one length.'
            )
    return np.stack([np.asarray(rows, np.float32) for rows in teachers.values()])


def _task_numbers(train_set: Encoded, teachers) -> np.ndarray:
    tasks = train_set.tasks if train_set.tasks is not None else np.zeros(len(train_set), int)
    if set(tasks.tolist()) != set(range(len(teachers))):
        raise UserError(
            f'The training examples are of the tasks {sorted(set(tasks.tolist()))}, but there are '
            f'{len(teachers)} teachers; give examples of every task, in the order of the teachers.'
        )
    return tasks
