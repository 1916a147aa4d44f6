"""Input formats: the text that stands for a row.

The five of PT2TT's pilot, and the one of the comparison tables:
  pretrain   T5's own template of the data set            'boolq passage: ... question: ...'
  raw        field names and values, no task name         'question: ... passage: ...'
  stripped   values only                                  '... ...'
  manual     a wording people wrote (LM-BFF, OpenPrompt)  '... It was <extra_id_0>.'
  lmbff      the wording LM-BFF's search found, seed 42   '... A <extra_id_0> one.'
  attempt    ATTEMPT's, DePT's and MPT's                  'superglue-boolq question: ...'
A template's name is a format too: `t5/mnli` on SciTail, `flan/sst2/3` on Yelp. The words of the
targets are a separate choice (`labels`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

from pt2tt_jax.errors import UserError, nearest

from . import labels
from .datasets import READING, DataSet, Row
from .parsing import parse
from .patterns import ATTEMPT_PATTERNS, LMBFF_PATTERNS, MANUAL_PATTERNS
from .templates import T5, Template, apply, pad_punctuation, substitute

Format = Callable[[DataSet, Row], str]

# Sets whose texts stood with spaces around punctuation: SQuAD for T5, it and MRQA for ATTEMPT.
PADDED = frozenset(dataset.name for dataset in READING)


def raw(dataset: DataSet, row: Row) -> str:
    """`field: value`, joined by spaces."""
    return ' '.join(f'{name}: {text}' for name, text in parse(dataset, row).fields.items())


def stripped(dataset: DataSet, row: Row) -> str:
    """The values alone, joined by spaces, in field order: PT2TT's x."""
    return ' '.join(parse(dataset, row).fields.values())


def pretrain(dataset: DataSet, row: Row) -> str:
    """The template under which T5 v1.0 saw this data set."""
    if dataset.name not in T5:
        raise UserError(
            f'T5 was not pre-trained on {dataset.name!r}; borrow a template, such as t5/mnli.'
        )
    return apply(T5[dataset.name], dataset, row)


def manual(dataset: DataSet, row: Row) -> str:
    """A published manual wording, with the word to fill in as T5's first sentinel."""
    return _worded('manual', MANUAL_PATTERNS, dataset, _cloze_values(_fields(dataset, row)))


def lmbff(dataset: DataSet, row: Row, seed: int = 42) -> str:
    """The best automatic wording of one of LM-BFF's seeds."""
    values = _cloze_values(_fields(dataset, row))
    return _worded(f'lmbff-{seed}', LMBFF_PATTERNS[seed], dataset, values)


def attempt(dataset: DataSet, row: Row) -> str:
    """What the baselines of the comparison tables read; their targets are `digits`."""
    fields = _fields(dataset, row)
    if dataset.name in PADDED:
        fields = {name: pad_punctuation(text) for name, text in fields.items()}
    return _worded('attempt', ATTEMPT_PATTERNS, dataset, fields)


def _fields(dataset: DataSet, row: Row) -> dict[str, str]:
    return parse(dataset, row).fields


def _cloze_values(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields, and the variants that LM-BFF's wordings ask for (see `patterns`)."""
    opened = {f'{name}_open': _without_stop(text.rstrip()) for name, text in fields.items()}
    lower = {f'{name}_lower': text[:1].lower() + text[1:] for name, text in fields.items()}
    return {**fields, **opened, **lower}


def _without_stop(text: str) -> str:
    """LM-BFF cuts the last character; a letter or digit is worth keeping."""
    return text if text[-1:].isalnum() else text[:-1]


def _worded(
    format: str, patterns: Mapping[str, str], dataset: DataSet, values: Mapping[str, str]
) -> str:
    if dataset.name not in patterns:
        raise UserError(
            f'The format {format!r} has no wording for {dataset.name!r}, only for '
            f'{", ".join(sorted(patterns))}.'
        )
    return substitute(patterns[dataset.name], values)


FORMATS: dict[str, Format] = {
    'pretrain': pretrain,
    'raw': raw,
    'stripped': stripped,
    'manual': manual,
    'lmbff': lmbff,
    **{f'lmbff-{seed}': functools.partial(lmbff, seed=seed) for seed in LMBFF_PATTERNS},
    'attempt': attempt,
}


def formatter(
    name: str, templates: Iterable[Template] = (), verbaliser: labels.Verbaliser = 't5'
) -> Format:
    """The format called `name`: one of `FORMATS`, or a template of T5's or of `templates`.

    Raises:
      UserError: there is none of that name.
    """
    if name in FORMATS:
        return FORMATS[name]
    known = {template.name: template for template in (*T5.values(), *templates)}
    if name not in known:
        raise UserError(f'There is no format {name!r}. {nearest(name, {*FORMATS, *known})}')
    template = known[name]
    return lambda dataset, row: apply(template, dataset, row, verbaliser)
