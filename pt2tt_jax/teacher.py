"""The teacher of stage 1: the frozen model on templated text, asked once for each example.

Its distribution over y does not depend on any prompt. What is kept of it are its likeliest tokens
and the mass of the rest (`objectives.TeacherLogits`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from pt2tt_jax import evaluate, features, objectives
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.features import EOS, Encoded
from pt2tt_jax.settings import Transfer
from pt2tt_jax.tuning import Params, Tuned, merge

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
class Taught:
    """Texts of a split with the teacher's answers, for every template at once.

    Attributes:
      texts: template -> student inputs with the targets that this teacher is asked for.
      answers: [templates, rows, length, k] and [templates, rows, length].
      row_of: place of each example in `answers`.
      around: tokens around each student input.
    """

    texts: tuple[Encoded, ...]
    answers: objectives.TeacherLogits
    row_of: dict[int, int]
    around: features.Frame

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Arrays [templates, rows, ...] of one training step."""
        length = self.answers.log_rest.shape[-1]
        parts = [
            features.batch(texts, rows, self.around, target_length=length) for texts in self.texts
        ]
        places = np.array([self.row_of[int(row)] for row in rows])
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]} | {
            'teacher_ids': self.answers.ids[:, places],
            'teacher_log_probs': self.answers.log_probs[:, places],
            'teacher_rest': self.answers.log_rest[:, places],
        }


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Answers under each template, and marks students by them; one backbone is both.

    Attributes:
      backbone: the frozen model.
      settings: what y is, and how much of a distribution is kept.
      around: tokens around each student input.
    """

    backbone: Backbone
    settings: Transfer
    around: features.Frame

    def teach(self, lesson: Lesson, rows: np.ndarray, label: str) -> Taught:
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
        return Taught(texts, stacked, {int(r): i for i, r in enumerate(rows)}, self.around)

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

    def divergences(self, module: Tuned, trained: Params, frozen: Params, taught: Taught):
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
