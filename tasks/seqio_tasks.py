"""The tasks of `catalogue`, as SeqIO tasks. This module imports SeqIO, and so TensorFlow.

    seqio_tasks.register('path/to/t5', data_dir='shared/data')
    seqio.get_mixture_or_task('boolq_raw').get_dataset({'inputs': 256, 'targets': 8}, 'train')

Rows come from TFDS, or from JSON-lines files laid out in the same way; a source hands each of them
on as JSON text, so that everything behind it is one function for both. `catalogue` has the rule of
the names. Beside the tokens of `inputs` and `targets`, an example carries `inputs_pretokenized`,
`targets_pretokenized`, `key`, `label` (-1: none), `options` and `answers`.

Batches are a function of the seed and the rows, not of where the rows lie: to be shuffled, a split
of at most IN_MEMORY rows is first put into the hash order of `splits`. Larger ones stream in the
order of their source.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from pt2tt_jax.errors import UserError, nearest
from pt2tt_jax.features import Encoded
from pt2tt_jax.t5.vocabulary import Vocabulary

from . import catalogue, metrics, splits
from .catalogue import Entry
from .converters import seqio_vocabulary
from .datasets import DataSet, Row
from .examples import Example, to_examples
from .formats import Format, formatter
from .parsing import identity, parse
from .readers import rows as file_rows
from .templates import T5, Template

IN_MEMORY = 20_000
SHUFFLE_BUFFER = 10_000  # examples; files of one's own may be sorted by label
SOURCES = ('sst2', 'qqp', 'mnli', 'qnli', 'record', 'squad')  # Hwang 2023's six source tasks
TEXTS = ('inputs', 'targets', 'teacher_inputs', 'key')

Protocol = Literal['official', 'comparison']
Read = Callable[[str], Iterator[Row]]  # official split -> its rows, in the order of the source


def register(
    vocabulary: Vocabulary | seqio.Vocabulary | str | Path,
    data_dir: str | Path | None = None,
    protocol: Protocol = 'official',
    templates: Iterable[Template] = (),
    tfds_dir: str | Path | None = None,
) -> list[str]:
    """Adds every task of the catalogue to SeqIO's registry, in place of an earlier one; names.

    Each task with labels or candidates has a second one, `<name>_score`. Each data set has pair
    tasks for stage 1, `<data set>_stripped_from_<template>`, for the thesis's six source
    templates and for `templates`.

    Args:
      vocabulary: one of either kind, or a folder with `spiece.model` or `tokenizer.json`.
      data_dir: folder with `<source>/<split>.jsonl.gz`; without it, rows come from TFDS.
      protocol: what `validation` and `test` are: the official splits, or those of `splits`.
      templates: further ones, each a format for every data set.
      tfds_dir: where TFDS keeps its data; by default, where it always does.
    """
    if not isinstance(vocabulary, seqio.Vocabulary):
        vocabulary = seqio_vocabulary(vocabulary)
    templates = tuple(templates)
    teachers = (*(T5[name] for name in SOURCES), *templates)
    made = []
    for dataset, group in itertools.groupby(catalogue.entries(), lambda one: one.dataset):
        source = data_source(dataset, data_dir, protocol, tfds_dir)
        every = [*group, *(catalogue.entry(_named(dataset, t), templates) for t in templates)]
        made += [add(one, source, vocabulary) for one in every]
        made += [add(one, source, vocabulary, ranked=True) for one in every if one.ranked]
        if dataset.name != catalogue.BUGGED:
            student = catalogue.entry(f'{dataset.name}_stripped')
            made += [add(student, source, vocabulary, teacher=one) for one in teachers]
    return made


def _named(dataset: DataSet, template: Template) -> str:
    return catalogue.task_name(dataset, template.name)


def add(
    entry: Entry,
    source: seqio.DataSource,
    vocabulary: seqio.Vocabulary,
    *,
    ranked: bool = False,
    teacher: Template | None = None,
) -> str:
    """Adds one task to the registry; returns its name.

    Args:
      ranked: one example for each candidate target; its metrics read scores, not texts.
      teacher: the template under which each row is also written, as `teacher_inputs`.
    """
    name = entry.name + ('_score' if ranked else '')
    name += f'_from_{catalogue.spelt(teacher.name)}' if teacher else ''
    names = ('inputs', 'targets', *(('teacher_inputs',) if teacher else ()))
    seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(
        name,
        source,
        output_features={one: seqio.Feature(vocabulary, add_eos=True) for one in names},
        preprocessors=[
            functools.partial(as_text, entry=entry, ranked=ranked, teacher=teacher),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos_after_trim,
        ],
        postprocess_fn=as_answer,
        metric_fns=[(score_metric if ranked else text_metric)(entry.dataset)],
        shuffle_buffer_size=SHUFFLE_BUFFER,
    )
    return name


# --- Rows ---------------------------------------------------------------------------------------


def data_source(
    dataset: DataSet,
    data_dir: str | Path | None = None,
    protocol: Protocol = 'official',
    tfds_dir: str | Path | None = None,
) -> seqio.DataSource:
    """The rows of a data set, as {'row': JSON text, 'split': name}."""
    files = data_dir is not None or dataset.source.startswith('demo/')
    read: Read = functools.partial(file_rows, dataset, data_dir=data_dir)
    if not files:
        read = functools.partial(tfds_rows, dataset, data_dir=tfds_dir)

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        def texts() -> Iterator[dict[str, str]]:
            for row in ordered(dataset, split, read, protocol, shuffle_files):
                yield {'row': json.dumps(row, ensure_ascii=False), 'split': split}

        text = tf.TensorSpec([], tf.string)
        signature = {'row': text, 'split': text}
        return tf.data.Dataset.from_generator(texts, output_signature=signature)

    others = () if protocol == 'comparison' else dataset.splits.values()
    more = ('validation_mismatched',) if dataset.name == 'mnli' and others else ()
    return seqio.FunctionDataSource(dataset_fn, splits=(*splits.SPLITS, *others, *more))


def ordered(
    dataset: DataSet, split: str, read: Read, protocol: Protocol, shuffled: bool
) -> Iterator[Row]:
    """The rows of a split, in hash order if they are few and about to be shuffled anyway."""
    rows = read(split) if protocol == 'official' else _compared(dataset, split, read)
    if not shuffled:
        return rows
    first = list(itertools.islice(rows, IN_MEMORY + 1))
    if len(first) > IN_MEMORY:
        return itertools.chain(first, rows)
    order = splits.order(dataset, split, [identity(row) for row in first])
    return (first[index] for index in order)


def _compared(dataset: DataSet, split: str, read: Read) -> Iterator[Row]:
    """The rows that the comparison calls `split`, in two passes: identities, then rows."""
    part = splits.part(dataset, split)
    if part == splits.Part(part.split):
        return read(part.split)
    identities = [identity(row) for row in read(part.split)]
    used = set(splits.indices(dataset, split, identities))
    return (row for index, row in enumerate(read(part.split)) if index in used)


def tfds_rows(
    dataset: DataSet, split: str, data_dir: str | Path | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a split of TFDS as plain Python, in its order.

    Raises:
      UserError: the set is not downloaded or lacks the split, or a row does not fit it.
    """
    builder = _builder(dataset, data_dir)
    known = builder.info.splits
    name = dataset.official(split) if dataset.official(split) in known else split
    if name not in known:
        raise UserError(f'No split {split!r} in {dataset.builder} of TFDS. {nearest(split, known)}')
    given = builder.as_dataset(split=name, shuffle_files=False)
    for number, tensors in enumerate(given.as_numpy_iterator()):
        try:
            row = plain(tensors)
            parse(dataset, row)
        except UnicodeDecodeError as error:
            place = f'{dataset.builder}/{name} of TFDS, row {number}'
            raise UserError(f'{place}: not UTF-8 text ({error.reason}).') from error
        except UserError as error:
            raise UserError(f'{dataset.builder}/{name} of TFDS, row {number}: {error}') from error
        yield row


def _builder(dataset: DataSet, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
    where = str(data_dir) if data_dir is not None else None
    override = seqio.utils.LazyTfdsLoader(dataset.builder, where).data_dir
    command = f'tfds build {dataset.builder}' + (f' --data_dir={override}' if override else '')
    try:
        builder = tfds.builder(dataset.builder, data_dir=override)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(
            f'TFDS has no {dataset.builder} here ({_first_line(error)}); where there is a network, '
            f'download it with: {command}'
        ) from error
    if not builder.is_prepared():
        raise UserError(
            f'{dataset.builder} of TFDS is not downloaded; download it with: {command}, or name '
            'a data directory with JSON-lines files.'
        )
    return builder


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0].rstrip('.')


def plain(value: Any) -> Any:
    """A value of TFDS as JSON would have it: text, numbers, lists and dicts."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return [plain(item) for item in value] if isinstance(value, list) else value


# --- Texts --------------------------------------------------------------------------------------


def as_text(
    ds: tf.data.Dataset, entry: Entry, ranked: bool = False, teacher: Template | None = None
) -> tf.data.Dataset:
    """Rows as examples: the preprocessor of every task. A row may yield several, or none."""
    write, words = entry.formatter(), entry.verbaliser
    teach = formatter(teacher.name, [teacher], words) if teacher else None

    def convert(row: bytes, split: bytes) -> list[np.ndarray]:
        rows, name = [json.loads(row)], split.decode()
        found = list(to_examples(entry.dataset, rows, write, words, name))
        return _columns(found, rows[0], entry.dataset, teach, ranked)

    texts = [name for name in TEXTS if teacher or name != 'teacher_inputs']
    shapes = {**dict.fromkeys((*texts, 'label', 'option'), [None])}
    shapes |= {name: [None, None] for name in ('options', 'answers')}
    types = [tf.int32 if name in ('label', 'option') else tf.string for name in shapes]

    def tensors(element: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        given = [element['row'], element['split']]
        made = tf.numpy_function(convert, given, types, stateful=False)
        return {
            name: tf.ensure_shape(value, shape)
            for (name, shape), value in zip(shapes.items(), made, strict=True)
        }

    return ds.map(tensors, tf.data.AUTOTUNE).unbatch()


def _columns(
    found: Sequence[Example], row: Row, dataset: DataSet, teach: Format | None, ranked: bool
) -> list[np.ndarray]:
    """Examples as arrays, one entry each; `ranked` ones once for every option."""
    each = [(e, i) for e in found for i in range(len(e.options or ()) if ranked else 1)]
    targets = [(e.options or ())[i] if ranked else e.targets for e, i in each]
    taught = [teach(dataset, row)] * len(each) if teach else []
    keys = [e.key for e, _ in each]
    texts = [[e.inputs for e, _ in each], targets, *([taught] if teach else []), keys]
    labels = [-1 if e.label is None else e.label for e, _ in each]
    return [
        *(np.array(column, object) for column in texts),
        np.array(labels, np.int32),
        np.array([i for _, i in each], np.int32),
        _matrix([e.options or () for e, _ in each]),
        _matrix([e.answers for e, _ in each]),
    ]


def _matrix(rows: Sequence[Sequence[str]]) -> np.ndarray:
    """Lists of texts of one length as an array; those of one row always have one."""
    width = len(rows[0]) if rows else 0
    return np.array([text for row in rows for text in row], object).reshape(len(rows), width)


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Inside, an error of ours that TensorFlow wrapped up is raised as it was."""
    try:
        yield
    except tf.errors.OpError as error:
        ours = re.search(r'UserError: (.*?)(?:\nTraceback|\n\n|$)', str(error), re.DOTALL)
        if ours is None:
            raise
        raise UserError(ours[1].strip()) from None


def read(
    task: str, split: str, lengths: Mapping[str, int] | None = None, **how: Any
) -> Iterator[dict[str, Any]]:
    """Examples of a registered task, as NumPy.

    Args:
      lengths: longest `inputs`, `targets` (and `teacher_inputs`), EOS included; None: uncut.
      how: `shuffle`, `seed` and what else `seqio.Task.get_dataset` takes.

    Raises:
      UserError: a row or file cannot be used; with set, split and row.
    """
    how.setdefault('shuffle', False)
    given = seqio.get_mixture_or_task(task).get_dataset(lengths, split, **how)
    with clear_errors():
        yield from given.as_numpy_iterator()


# --- Evaluation ---------------------------------------------------------------------------------


def as_answer(text: str, example: Mapping[str, Any], is_target: bool = False) -> Any:
    """Postprocessor: an example for a target, a text for a prediction.

    A prediction that differs from a candidate in case or white space alone is that candidate, as
    in `pt2tt_jax.evaluate.nearest_label`.
    """
    options = tuple(option.decode() for option in example['options'])
    if not is_target:
        folded = [_folded(option) for option in options]
        return options[folded.index(_folded(text))] if _folded(text) in folded else text
    label = int(example['label'])
    return Example(
        inputs=example['inputs_pretokenized'].decode(),
        targets=text,
        label=None if label < 0 else label,
        options=options or None,
        key=example['key'].decode(),
        answers=tuple(answer.decode() for answer in example['answers']),
    )


def _folded(text: str) -> str:
    return ' '.join(text.split()).casefold()


def text_metric(dataset: DataSet) -> Callable[..., metrics.Scores]:
    """The data set's metrics of decoded texts."""

    def measure(targets: Sequence[Example], predictions: Sequence[str]) -> metrics.Scores:
        return metrics.score(dataset, targets, predictions)

    return measure


def score_metric(dataset: DataSet) -> Callable[..., metrics.Scores]:
    """The same metrics, of the candidate with the highest score; see `as_text`, `ranked`."""

    def measure(targets: Sequence[Example], scores: Sequence[float]) -> metrics.Scores:
        asked, chosen, start = [], [], 0
        while start < len(targets):
            options = targets[start].options or ()
            best = int(np.argmax(scores[start : start + len(options)]))
            asked.append(_asked(targets[start]))
            chosen.append(options[best])
            start += len(options)
        return metrics.score(dataset, asked, chosen)

    return measure


def _asked(candidate: Example) -> Example:
    """The example that a candidate belongs to: its target is the right answer."""
    right = candidate.answers[0] if candidate.answers else ''
    return Example(
        candidate.inputs,
        right,
        candidate.label,
        candidate.options,
        candidate.key,
        candidate.answers,
    )


Enumerated = Iterable[tuple[int, Mapping[str, Any]]]


def predict_fn(decode: Callable[[Encoded], Sequence[np.ndarray]]) -> Callable[..., list[Any]]:
    """`predict_fn` of `seqio.Evaluator`, out of a function on token ids.

    For instance `predict_fn(lambda split: evaluate.decode(model, split, 8))`. The inputs hold
    whatever the feature converter put before them: behind `PromptedFeatureConverter`, give the
    model no prompt of its own.
    """
    return functools.partial(_asked_of, decode)


def score_fn(score: Callable[[Encoded], Sequence[float]]) -> Callable[..., list[Any]]:
    """`score_fn` of `seqio.Evaluator`: `score` gives each example's log P(targets | inputs)."""
    return functools.partial(_asked_of, score)


def _asked_of(
    answer: Callable[[Encoded], Sequence[Any]], dataset: tf.data.Dataset, *_: Any
) -> list[tuple[int, Any]]:
    elements = list(dataset.as_numpy_iterator())
    inputs = [row['encoder_input_tokens'] for _, row in elements]
    targets = [row['decoder_target_tokens'] for _, row in elements]
    split = Encoded(
        [ids[ids > 0] for ids in inputs],
        [ids[ids > 0] for ids in targets],
        np.full(len(elements), -1, np.int32),
    )
    numbers = [int(number) for number, _ in elements]
    return list(zip(numbers, answer(split), strict=True))
