"""Stage 1 of PT2TT: a soft prompt for each template, and the choice of the one to keep.

For a template f and the text x of the target task, the prompt P_in is trained so that the frozen
model reads `[P_in ; x]` as it reads f(x) (Hwang 2023):

    min E_x KL( P(y | f(x)) || P(y | [P_in ; x]) )

averaged over target tokens, in nats. All templates train at once, as a population before one
backbone. The teacher's distribution does not depend on the prompt; it is computed once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from pt2tt_jax import evaluate, features, objectives, sharding, train
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import EOS, Encoded
from pt2tt_jax.methods import prompt
from pt2tt_jax.methods.initialisers import Initialiser, sampled_vocabulary
from pt2tt_jax.settings import Transfer
from pt2tt_jax.tuning import Params, Tuned, attach, flatten, merge, split

FIRST = np.array([EOS], np.int32)  # a stand-in target: only the distribution before it is used


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What one split teaches: the student's texts, and the same rows under each template.

    Attributes:
      student: inputs without template; gold targets.
      teachers: template name -> inputs with it, row by row.
    """

    student: Encoded
    teachers: Mapping[str, Encoded]

    def subset(self, rows) -> Lesson:
        return Lesson(
            self.student.subset(rows), {k: v.subset(rows) for k, v in self.teachers.items()}
        )


@dataclasses.dataclass(frozen=True)
class Transferred:
    """Result of stage 1.

    Attributes:
      prompts: template -> P_in, float32 [prompt, embed], the best of its run by held-out KL.
      kl: template -> held-out KL in nats per target token.
      curves: rows of the metric log, for the report.
    """

    prompts: dict[str, np.ndarray]
    kl: dict[str, float]
    curves: list[dict]

    @property
    def chosen(self) -> str:
        """The template with the lowest held-out KL; one that diverged to NaN is never it."""
        return min(self.kl, key=lambda name: (np.isnan(self.kl[name]), self.kl[name]))


def transfer(
    backbone: Backbone,
    lesson: Lesson,
    held_out: Lesson,
    settings: Transfer,
    directory: Path,
    *,
    init: Initialiser = sampled_vocabulary(),
    mesh: jax.sharding.Mesh | None = None,
) -> Transferred:
    """Learns a prompt of `settings.length` tokens for every template of `lesson`.

    Args:
      backbone: the frozen model, teacher and student at once.
      lesson: training texts. Their gold targets are used only if `settings.targets` is 'gold'.
      held_out: other texts, for the choice.
      settings: steps, length and the like.
      directory: takes checkpoints and metrics; an interrupted stage goes on from there.
      init: where each prompt starts.
      mesh: devices; by default one.

    Raises:
      UserError: when there is no template.
    """
    names = tuple(lesson.teachers)
    if not names:
        raise UserError('Stage 1 needs at least one template; see Data.templates.')
    backbone = sharding.place(backbone, mesh or sharding.mesh(1, 1))
    module = Tuned(backbone.module, prompt(settings.length, init=init))
    tuned = attach(module, backbone.params, jax.random.key(settings.seed))
    one, frozen = split(tuned, module.tuning)
    trained = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(names)), one)

    virtual = features.virtual_tokens(backbone.config.vocab_size, settings.length)
    order = features.Shuffled(len(lesson.student), settings.batch_size, settings.seed)
    seen = np.unique(np.concatenate([order(step) for step in range(settings.steps)]))
    school = _School(backbone, settings, virtual)
    train_set = _Later(lambda: school.teach(lesson, seen, 'teacher on training texts'))
    held_set = school.teach(held_out, np.arange(len(held_out.student)), 'teacher on held-out texts')

    def scores(params: Params) -> train.Scores:
        kl = school.divergences(module, params, frozen, held_set)
        rows = next(iter(flatten(params).values()))
        norms = np.asarray(jnp.linalg.norm(rows, axis=-1).mean(axis=-1))
        return [
            {'kl': float(k), 'score': -float(k), 'prompt_norm': float(n)}
            for k, n in zip(kl, norms, strict=True)
        ]

    problem = train.Problem(
        module=module,
        frozen=frozen,
        trained=trained,
        objective=objectives.template_kl,
        batches=lambda step: train_set().batch(order(step)),
        evaluate=scores,
        names=names,
        seed=settings.seed,
    )
    label = f'stage 1, {len(names)} templates'
    fitted = train.fit(problem, settings, directory, mesh=mesh, label=label)
    final = school.divergences(module, fitted.trained, frozen, held_set)
    rows = np.asarray(next(iter(flatten(fitted.trained).values())))
    return Transferred(
        prompts=dict(zip(names, rows, strict=True)),
        kl=dict(zip(names, map(float, final), strict=True)),
        curves=fitted.curves,
    )


class _Later:
    """A value that is computed when first asked for: a finished stage needs no teacher."""

    def __init__(self, make):
        self._make, self._value = make, None

    def __call__(self):
        if self._value is None:
            self._value = self._make()
        return self._value


@dataclasses.dataclass(frozen=True)
class _Taught:
    """Texts of a split with the teacher's answers, for every template at once.

    Attributes:
      texts: template -> student inputs with the targets that this teacher is asked for.
      answers: [templates, rows, length, k] and [templates, rows, length].
      row_of: place of each example in `answers`.
      virtual: tokens before each student input.
    """

    texts: tuple[Encoded, ...]
    answers: objectives.TeacherLogits
    row_of: dict[int, int]
    virtual: np.ndarray

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Arrays [templates, rows, ...] of one training step."""
        length = self.answers.log_rest.shape[-1]
        parts = [
            features.batch(texts, rows, self.virtual, target_length=length) for texts in self.texts
        ]
        places = np.array([self.row_of[int(row)] for row in rows])
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]} | {
            'teacher_ids': self.answers.ids[:, places],
            'teacher_log_probs': self.answers.log_probs[:, places],
            'teacher_rest': self.answers.log_rest[:, places],
        }


@dataclasses.dataclass(frozen=True)
class _School:
    """Asks the teacher and marks the student; one backbone is both."""

    backbone: Backbone
    settings: Transfer
    virtual: np.ndarray

    def teach(self, lesson: Lesson, rows: np.ndarray, label: str) -> _Taught:
        """The teacher's answers on the examples `rows`, for every template."""
        texts = tuple(self._targets(lesson.student, t, rows) for t in lesson.teachers.values())
        width = max(max(len(t.targets[i]) for i in rows) for t in texts)
        bar = tqdm(total=len(texts) * len(rows), desc=label, unit='ex', disable=None, leave=False)
        with bar:
            answers = [
                self._answers(templated, text.targets, rows, width, bar)
                for templated, text in zip(lesson.teachers.values(), texts, strict=True)
            ]
        stacked = objectives.TeacherLogits(*map(np.stack, zip(*answers, strict=True)))
        return _Taught(texts, stacked, {int(r): i for i, r in enumerate(rows)}, self.virtual)

    def _targets(self, student: Encoded, templated: Encoded, rows: np.ndarray) -> Encoded:
        """The student's texts with the y that `settings.targets` asks for."""
        if self.settings.targets == 'gold':
            return student
        if self.settings.targets == 'first':
            return dataclasses.replace(student, targets=[FIRST] * len(student))
        model = evaluate.Model(self.backbone.module, self.backbone.params)
        vocabulary = self.backbone.vocabulary.size
        longest = student.target_length  # not that of the gold targets, which nobody asked for
        written = evaluate.decode(
            model, templated.subset(rows), longest, vocabulary_size=vocabulary
        )
        targets = list(student.targets)
        for row, ids in zip(rows, written, strict=True):
            targets[row] = ids[ids > 0]
        return dataclasses.replace(student, targets=targets)

    def _answers(self, templated, targets, rows, width, bar) -> objectives.TeacherLogits:
        vocabulary = self.backbone.config.vocab_size
        k = min(self.settings.top_k or vocabulary, vocabulary)
        asked = dataclasses.replace(templated, targets=targets)
        parts: list = [None] * len(rows)
        order = np.argsort([len(templated.inputs[row]) for row in rows], kind='stable')
        for start in range(0, len(rows), 32):
            places = order[start : start + 32]
            chunk = features.batch(asked, rows[np.resize(places, 32)], target_length=width)
            answer = jax.device_get(_teach(self.backbone.module, self.backbone.params, chunk, k))
            for i, place in enumerate(places):
                parts[place] = objectives.TeacherLogits(*(leaf[i] for leaf in answer))
            bar.update(len(places))
        return objectives.TeacherLogits(*map(np.stack, zip(*parts, strict=True)))

    def divergences(self, module: Tuned, trained: Params, frozen: Params, taught: _Taught):
        """Mean KL per target token of each member on a taught split, in nats [templates]."""
        rows = np.array(sorted(taught.row_of))
        order = rows[np.argsort([len(taught.texts[0].inputs[row]) for row in rows], kind='stable')]
        total = np.zeros((2, len(taught.texts)))
        for start in range(0, len(order), 32):
            chunk = order[start : start + 32]
            batch = taught.batch(np.resize(chunk, 32))
            batch['decoder_loss_weights'][:, len(chunk) :] = 0.0
            for member, part in enumerate(_members(batch, len(taught.texts))):
                one = jax.tree.map(lambda leaf, member=member: leaf[member], trained)
                total[:, member] += np.asarray(_mark(module, one, frozen, part))
        return total[0] / total[1]


def _members(batch, count):
    return [{name: value[i] for name, value in batch.items()} for i in range(count)]


@functools.partial(jax.jit, static_argnames=('module', 'k'))
def _teach(module, params, batch, k):
    return objectives.compress(objectives.forward(module, params, batch), k)


@functools.partial(jax.jit, static_argnames='module')
def _mark(module, trained, frozen, batch):
    logits = objectives.forward(module, merge(trained, frozen), batch)
    return jnp.stack(objectives.template_kl(logits, batch))
