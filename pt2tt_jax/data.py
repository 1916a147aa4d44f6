"""From settings to token ids: reads the task's texts, formats them and splits them.

The texts come from `pt2tt_jax.tasks`, which is plain Python; what leaves here is NumPy.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pt2tt_jax import features, tasks
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Encoded
from pt2tt_jax.settings import Data
from pt2tt_jax.tasks import demo, families, labels, readers, splits, templates
from pt2tt_jax.tasks.formats import formatter
from pt2tt_jax.transfer import Lesson

logger = logging.getLogger('pt2tt')

Row = dict[str, Any]
SOURCES = ('sst2', 'qqp', 'mnli', 'qnli', 'record', 'squad')  # Hwang 2023's six source tasks
GENERAL = readers.BUNDLED / 'general.json'


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A task, ready to train on.

    Attributes:
      name: of the data set.
      fields, labels: its textual fields and the words of its labels (empty for free text).
      label_ids: tokens of each label word, ending in EOS; None for free text.
      patterns: template name -> its wording.
      train, validation, test: texts and the same rows under each template. Choices (template, best
        step) are made on `validation`, results are reported on `test`.
      note: where the validation examples come from.
      source: the data set itself.
      examples: the test texts, with every accepted answer.
    """

    name: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    label_ids: list[np.ndarray] | None
    patterns: dict[str, str]
    train: Lesson
    validation: Lesson
    test: Lesson
    note: str
    source: tasks.DataSet
    examples: list[tasks.Example]

    def splits(self) -> dict[str, Lesson]:
        return {'train': self.train, 'validation': self.validation, 'test': self.test}


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
    else:
        names = ('train', 'validation')
        rows = {name: list(tasks.rows(source, name, settings.data_dir or None)) for name in names}
    rows['train'] = _sample(rows['train'], settings.max_train, settings.seed)
    if 'test' in rows:
        return rows, 'choices on the validation set, results on the test set'
    kept, held = _hold_out(rows['train'], settings)
    note = f'choices on {len(held)} examples held out of train, results on the validation set'
    return {'train': kept, 'validation': held, 'test': rows['validation']}, note


def chosen_templates(settings: Data, source: tasks.DataSet) -> list[templates.Template]:
    """The templates that stage 1 imitates: those named, or the thesis's six and our general ones.

    A name is a file (`flan.json`), a part of one (`flan.json:flan/sst2`), a template of T5's own
    pre-training mixture (`t5/mnli`), or one of ours (`general`, `demo/sentiment/3`).
    """
    if not settings.templates and source.source.startswith('demo/'):
        return demo.demo_templates(source)
    if not settings.templates:
        own = [templates.T5[name] for name in SOURCES]
        return own + list(families.load_family(GENERAL).templates)
    found = [one for name in settings.templates for one in _named(name, source)]
    return list({template.name: template for template in found}.values())


def _named(name: str, source: tasks.DataSet) -> list[templates.Template]:
    file, _, inner = name.partition(':')
    if not file.endswith('.json'):
        general = families.load_family(GENERAL).templates
        return templates.find([name], [*templates.T5.values(), *general, *demo.DEMO_TEMPLATES])
    family = families.load_family(file)
    if inner:
        return templates.find([inner], family.templates)
    ours = [t for t in family.templates if source.name in t.name.split('/')]
    return ours or list(family.templates)


def prepare(
    settings: Data, backbone: Backbone, *, prompt_length: int, with_templates: bool = True
) -> Prepared:
    """Reads, formats and tokenises a task.

    Args:
      settings: which task, and how it is written.
      backbone: gives the vocabulary.
      prompt_length: soft prompt tokens for which inputs leave room.
      with_templates: format every row under every template too, as stage 1 needs.

    Raises:
      UserError: for anything in the data that cannot be used, with its file and line.
    """
    source = dataset(settings)
    rows, note = read_rows(settings, source)
    chosen = chosen_templates(settings, source) if with_templates else []
    student_format = formatter(settings.input_format, chosen, settings.verbaliser)

    def texts(split: str, write: Callable[[tasks.DataSet, Row], str]) -> list[tasks.Example]:
        made = tasks.to_examples(source, rows[split], write, settings.verbaliser, split)
        return list(made)

    def tokens(examples: Sequence[tasks.Example], room: int) -> Encoded:
        return features.encode(
            examples,
            backbone.vocabulary,
            input_length=settings.input_length,
            target_length=settings.target_length,
            prompt_length=room,
        )

    def lesson(split: str) -> Lesson:
        student = tokens(texts(split, student_format), prompt_length)
        _warn_cut(split, student)
        worded = {
            t.name: tokens(
                texts(split, lambda d, r, t=t: templates.apply(t, d, r, settings.verbaliser)), 0
            )
            for t in chosen
        }
        return Lesson(student, worded)

    words = labels.words(source, settings.verbaliser) if source.labels else ()
    encoded_words = backbone.vocabulary.encode(list(words)) if words else []
    return Prepared(
        name=source.name,
        fields=source.fields,
        labels=tuple(words),
        label_ids=[features.with_eos(i, settings.target_length) for i in encoded_words] or None,
        patterns={template.name: template.pattern for template in chosen},
        train=lesson('train'),
        validation=lesson('validation'),
        test=lesson('test'),
        note=note,
        source=source,
        examples=texts('test', student_format),
    )


def _warn_cut(split: str, encoded: Encoded) -> None:
    if encoded.cut:
        logger.warning(
            '%d of %d texts of %s are longer than the limit and lose their end; raise '
            'Data.input_length to keep them whole.',
            encoded.cut,
            len(encoded),
            split,
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
