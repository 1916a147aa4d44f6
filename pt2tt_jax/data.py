"""From settings to token ids: reads the task's texts, formats them and splits them.

The texts come from `pt2tt_jax.tasks`, which is plain Python; what leaves here is NumPy.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from pt2tt_jax import features, tasks
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Encoded
from pt2tt_jax.settings import Data
from pt2tt_jax.tasks import chosen, formats, labels, parsing, splits, templates
from pt2tt_jax.teacher import Lesson

logger = logging.getLogger('pt2tt')

Row = dict[str, Any]
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A task, ready to train on.

    Attributes:
      name: of the data set.
      fields, labels: its textual fields and the words of its labels (empty for free text).
      label_ids: tokens of each label word, ending in EOS; None for free text.
      patterns: template name -> its wording.
      train: the training texts.
      lesson: those of them that stage 1 sees, also under each template.
      validation, test: texts, also under each template. Choices (template, best step) are made on
        the first, results are reported on the second.
      note: where the validation examples come from.
      source: the data set itself.
      examples: the test texts, with every accepted answer.
      keys: what the rows of validation and test are called in every copy of the data set.
    """

    name: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    label_ids: list[np.ndarray] | None
    patterns: dict[str, str]
    train: Encoded
    lesson: Lesson
    validation: Lesson
    test: Lesson
    note: str
    source: tasks.DataSet
    examples: list[tasks.Example]
    keys: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def splits(self) -> dict[str, Encoded]:
        students = (self.train, self.validation.student, self.test.student)
        return dict(zip(SPLITS, students, strict=True))


def dataset(settings: Data) -> tasks.DataSet:
    """The data set that the settings name, or one made of the user's own columns."""
    if settings.task:
        return tasks.dataset(settings.task)
    if not settings.fields:
        raise UserError(
            'Say what to train on: a known task (--task sst2), or files of your own with '
            '--train, --validation, --fields, --label and --labels.'
        )
    return tasks.custom(settings.fields, settings.label, settings.labels or None)


def read_rows(settings: Data, source: tasks.DataSet) -> tuple[dict[str, list[Row]], str]:
    """Rows of train, validation and test, and a note on where validation comes from.

    With a test set, choices are made on the validation set. Without one, the validation set is
    what gets reported, so a part of the training set is held out to choose on.
    """
    if settings.train:
        files = {'train': settings.train, 'validation': settings.validation, 'test': settings.test}
        if not settings.validation:
            raise UserError('Give a validation file with --validation; results are measured on it.')
        rows = {k: list(tasks.read_rows(v, source, labelled=True)) for k, v in files.items() if v}
    elif settings.protocol == 'comparison':
        rows = {split: _comparison(source, split, settings.data_dir) for split in SPLITS}
    else:
        rows = {s: _official(source, s, settings.data_dir) for s in ('train', 'validation')}
    rows['train'] = _sample(rows['train'], settings.max_train, settings.seed)
    if 'test' in rows:
        return rows, 'choices on the validation set, results on the test set'
    kept, held = _hold_out(rows['train'], settings)
    note = f'choices on {len(held)} examples held out of train, results on the validation set'
    return {'train': kept, 'validation': held, 'test': rows['validation']}, note


def _official(source: tasks.DataSet, split: str, data_dir: str) -> list[Row]:
    """Rows of an official split: from files, or from TFDS where no folder is named."""
    if data_dir or source.source.startswith('demo/'):
        return list(tasks.rows(source, split, data_dir or None))
    try:
        from pt2tt_jax.tasks import seqio_sources  # imports TensorFlow
    except ImportError as error:
        raise UserError(
            f'The data set {source.name!r} is read from TFDS, which is not installed: '
            "pip install 'pt2tt-jax[data]', or name a folder of JSON lines with --data_dir."
        ) from error
    return list(seqio_sources.tfds_rows(source, split))


def _comparison(source: tasks.DataSet, split: str, data_dir: str) -> list[Row]:
    """Rows of a split in the protocol of ATTEMPT, MPT and DePT; see `tasks.splits`."""
    found = _official(source, splits.part(source, split).split, data_dir)
    keys = [parsing.identity(row) for row in found]
    return [found[index] for index in splits.indices(source, split, keys)]


def chosen_templates(settings: Data, source: tasks.DataSet) -> list[templates.Template]:
    """The templates that stage 1 imitates; `tasks.chosen` says what may name them."""
    return chosen.teachers(settings.templates, source, settings.input_format)


def prepare(
    settings: Data, backbone: Backbone, *, prompt_length: int, lesson_rows: int = 0
) -> Prepared:
    """Reads, formats and tokenises a task.

    Args:
      settings: which task, and how it is written.
      backbone: gives the vocabulary.
      prompt_length: soft prompt tokens for which inputs leave room.
      lesson_rows: training examples that stage 1 sees, at most; they are written under every
        template too. 0 where there is no stage 1.

    Raises:
      UserError: for anything in the data that cannot be used, with its file and line.
    """
    source = dataset(settings)
    rows, note = read_rows(settings, source)
    taught_by = chosen_templates(settings, source) if lesson_rows else []
    known = chosen.named(settings.templates, source)
    scribe = _Scribe(settings, source, backbone, taught_by, known, prompt_length)
    words = labels.words(source, settings.verbaliser) if source.labels else ()
    ids = backbone.vocabulary.encode(list(words)) if words else []
    _check_words(words, ids, settings.target_length)
    students = {split: scribe.student(split, rows[split]) for split in SPLITS}
    for split, encoded in students.items():
        _warn_cut(split, encoded)
    taught = (
        _sample(rows['train'], lesson_rows, settings.seed) if lesson_rows else rows['train'][:1]
    )
    return Prepared(
        name=source.name,
        fields=source.fields,
        labels=tuple(words),
        label_ids=[features.with_eos(one, settings.target_length) for one in ids] or None,
        patterns={template.name: template.pattern for template in taught_by},
        train=students['train'],
        lesson=Lesson(scribe.student('train', taught), scribe.templated('train', taught)),
        validation=Lesson(
            students['validation'], scribe.templated('validation', rows['validation'])
        ),
        test=Lesson(students['test'], scribe.templated('test', rows['test'])),
        note=note,
        source=source,
        examples=scribe.examples('test', rows['test']),
        keys={split: [parsing.identity(row) for row in rows[split]] for split in SPLITS[1:]},
    )


@dataclasses.dataclass(frozen=True)
class _Scribe:
    """Writes rows down, without and with templates, as token ids."""

    settings: Data
    source: tasks.DataSet
    backbone: Backbone
    templates: list[templates.Template]  # each writes the rows down once
    known: list[templates.Template]  # may be the input format
    prompt_length: int

    def examples(
        self, split: str, rows: list[Row], write: formats.Format | None = None
    ) -> list[tasks.Example]:
        words = self.settings.verbaliser
        write = write or formats.formatter(self.settings.input_format, self.known, words)
        return list(tasks.to_examples(self.source, rows, write, words, split))

    def student(self, split: str, rows: list[Row]) -> Encoded:
        return self._encode(self.examples(split, rows), self.prompt_length)

    def templated(self, split: str, rows: list[Row]) -> dict[str, Encoded]:
        """The same rows under each template; a teacher has no prompt to leave room for."""
        found = {}
        for template in self.templates:
            write = formats.formatter(template.name, [template], self.settings.verbaliser)
            found[template.name] = self._encode(self.examples(split, rows, write), 0)
            _warn_cut(f'{split} under {template.name}', found[template.name])
        return found

    def _encode(self, examples: Sequence[tasks.Example], room: int) -> Encoded:
        return features.encode(
            examples,
            self.backbone.vocabulary,
            input_length=self.settings.input_length,
            target_length=self.settings.target_length,
            prompt_length=room,
        )


def _warn_cut(split: str, encoded: Encoded) -> None:
    for count, what, setting in (
        (encoded.cut, 'texts', 'Data.input_length'),
        (encoded.cut_targets, 'targets', 'Data.target_length'),
    ):
        if count:
            logger.warning(
                '%d of %d %s of %s are longer than the limit and lose their end; raise %s to keep '
                'them whole.',
                count,
                len(encoded),
                what,
                split,
                setting,
            )


def _check_words(words: Sequence[str], ids: Sequence[np.ndarray], length: int) -> None:
    """Label words that lost their end could become equal."""
    for word, one in zip(words, ids, strict=True):
        if len(one) >= length:
            raise UserError(
                f'The label word {word!r} takes {len(one) + 1} tokens with its end; raise '
                f'Data.target_length above {length}.'
            )


def _sample(rows: list[Row], most: int, seed: int) -> list[Row]:
    if not most or len(rows) <= most:
        return rows
    chosen = np.random.default_rng(seed).permutation(len(rows))[:most]
    return [rows[i] for i in sorted(chosen)]


def _hold_out(rows: list[Row], settings: Data) -> tuple[list[Row], list[Row]]:
    """(kept, held out): up to 1,000 rows, as ATTEMPT's protocol holds out of large sets."""
    count = min(splits.HELD_OUT, round(len(rows) * settings.holdout))
    if not 0 < count < len(rows):
        raise UserError(
            f'Holding {settings.holdout:g} of {len(rows)} training examples out leaves nothing to '
            'train or to choose on; change Data.holdout, or give a test set with --test.'
        )
    order = np.random.default_rng([settings.seed, 1]).permutation(len(rows))
    held = set(order[:count].tolist())
    return [r for i, r in enumerate(rows) if i not in held], [rows[i] for i in sorted(held)]
