"""Kinds and ranges of settings, checked when a section is made."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from pt2tt_jax.errors import UserError, nearest

# The least value of numbers whose least is not 0.
_LEAST = {
    'accumulate': 1,
    'batch_size': 1,
    'held_out': 1,
    'input_length': 2,  # one token and EOS
    'length': 1,
    'model_parallel': 1,
    'population_parallel': 1,
    'steps': 1,
    'target_length': 2,
}

_MEANT = {'learning_rates': (0.3,)}  # what an empty default stands for, where not texts


def values(section: Any) -> None:
    """Kinds and ranges of all values; gin takes any, and they would fail long after the start."""
    for field in dataclasses.fields(section):
        name, value = f'{type(section).__name__}.{field.name}', getattr(section, field.name)
        if field.name == 'rates':
            _pairs(name, value)
        elif not _alike(value, _MEANT.get(field.name, field.default)):
            raise UserError(f'{name} must be like {field.default!r}, but is {value!r}.')
        least = _LEAST.get(field.name, 0)
        if isinstance(value, int | float) and not value >= least:
            raise UserError(f'{name} must be at least {least}, but is {value!r}.')


def _pairs(name: str, value: Any) -> None:
    """Raises UserError unless `value` holds (regular expression, factor) pairs."""
    try:
        for pattern, factor in value:
            re.compile(pattern)
            float(factor)
    except (TypeError, ValueError, re.error) as error:
        raise UserError(
            f"{name} must be like (('.*/dept/.*', 0.01),), but is {value!r}."
        ) from error


def _alike(value: Any, default: Any) -> bool:
    """Whether `value` is of the kind of `default`; an empty tuple stands for one of texts."""
    if isinstance(default, tuple):
        item = default[0] if default else ''
        return isinstance(value, list | tuple) and all(_alike(one, item) for one in value)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f'{name} = {value!r} is not known. {nearest(value, known)}')
