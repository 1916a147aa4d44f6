"""SeqIO's metrics and model functions, out of ours. Plain Python and NumPy.

A plain task is measured on decoded texts; a task `..._score` holds one example for each candidate
target, and is measured on the candidate with the highest log-likelihood. Both report the metrics
of `metrics.score`, and T5X's models can answer either.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pt2tt_jax.features import Encoded

from . import metrics
from .datasets import DataSet
from .examples import Example


def as_answer(text: str, example: Mapping[str, Any], is_target: bool = False) -> Any:
    """Postprocessor: an example for a target, a text for a prediction.

    A prediction that differs from a candidate in case or white space alone is that candidate, as
    in `pt2tt_jax.evaluate.nearest_label`.
    """
    options = tuple(json.loads(example['options']) or ())
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
        answers=tuple(json.loads(example['answers'])),
        group=example['group'].decode(),
    )


def _folded(text: str) -> str:
    return ' '.join(text.split()).casefold()


def text_metric(dataset: DataSet) -> Callable[..., metrics.Scores]:
    """The data set's metrics of decoded texts."""

    def measure(targets: Sequence[Example], predictions: Sequence[str]) -> metrics.Scores:
        return metrics.score(dataset, targets, predictions)

    return measure


def score_metric(dataset: DataSet) -> Callable[..., metrics.Scores]:
    """The same metrics, of the candidate with the highest score; see `seqio_tasks.as_tokens`."""

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
    return dataclasses.replace(candidate, targets=right)


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
    answer: Callable[[Encoded], Sequence[Any]], dataset: Any, *_: Any
) -> list[tuple[int, Any]]:
    elements = list(dataset.as_numpy_iterator())
    inputs = [row['encoder_input_tokens'] for _, row in elements]
    targets = [row['decoder_target_tokens'] for _, row in elements]
    split = Encoded(
        [ids[ids > 0] for ids in inputs],
        [ids[ids > 0] for ids in targets],
        np.full(len(elements), -1, np.int32),
        len(targets[0]),
    )
    numbers = [int(number) for number, _ in elements]
    return list(zip(numbers, answer(split), strict=True))
