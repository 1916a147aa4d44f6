"""Tuning methods, one a file, named as in their papers; each is a function that makes a `Tuning`.

A constructor's parameters are its settings: gin binds them by `lora.rank = 8`. Some are filled in
by the run unless they are bound: `length` (soft tokens), `init` (where they start), `source` and
`sources` (saved prompts), `config` (sizes of the backbone), `vocabulary`, `labels` (their token
ids) and `tasks` (how many are trained together).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import numpy as np

from pt2tt_jax import checks
from pt2tt_jax.errors import UserError, nearest
from pt2tt_jax.methods import initialisers
from pt2tt_jax.methods.adapter import adapter as adapter
from pt2tt_jax.methods.attempt import attempt as attempt
from pt2tt_jax.methods.bitfit import bitfit as bitfit
from pt2tt_jax.methods.dept import dept as dept
from pt2tt_jax.methods.full import full as full
from pt2tt_jax.methods.full import head as head
from pt2tt_jax.methods.full import norms as norms
from pt2tt_jax.methods.ia3 import ia3 as ia3
from pt2tt_jax.methods.input_tuning import input_tuning as input_tuning
from pt2tt_jax.methods.lora import lora as lora
from pt2tt_jax.methods.mpt import mpt as mpt
from pt2tt_jax.methods.multitask_prompt import multitask_prompt as multitask_prompt
from pt2tt_jax.methods.p_tuning import p_tuning as p_tuning
from pt2tt_jax.methods.p_tuning_v2 import p_tuning_v2 as p_tuning_v2
from pt2tt_jax.methods.prefix import prefix as prefix
from pt2tt_jax.methods.prompt import prompt as prompt
from pt2tt_jax.methods.prompt_pool import prompt_pool as prompt_pool
from pt2tt_jax.methods.pt2tt import pt2tt as pt2tt
from pt2tt_jax.methods.spot import spot as spot
from pt2tt_jax.t5.config import T5Config
from pt2tt_jax.t5.vocabulary import Vocabulary
from pt2tt_jax.tuning import Tuning, combine

METHODS: dict[str, Callable[..., Tuning]] = {
    name: value
    for name, value in sorted(globals().items())
    if inspect.isfunction(value) and value.__module__.startswith(f'{__name__}.')
}

for _name, _method in METHODS.items():
    gin.external_configurable(_method, _name, module='pt2tt')  # pyright: ignore


def parts(name: str) -> list[Callable[..., Tuning]]:
    """The constructors of a method, or of several joined by '+'.

    Raises:
      UserError: for a name that is none.
    """
    for part in name.split('+'):
        if part not in METHODS:
            raise UserError(f'There is no method {part!r}. {nearest(part, METHODS)}')
    return [METHODS[part] for part in name.split('+')]


_LACKING = {
    'source': 'the source prompt of stage 1: give its file with --source; pt2tt transfer writes it',
    'sources': 'saved prompts of other tasks: list their files in Tune.sources',
}


def _check_complete(name: str, wanted: Mapping[str, inspect.Parameter], filled) -> None:
    for key, parameter in wanted.items():
        if parameter.default is parameter.empty and key not in filled:
            raise UserError(f'The method {name} needs {_LACKING.get(key, f"the setting {key}")}.')


_FILLED = ('init', 'source', 'sources', 'config', 'vocabulary', 'labels')  # not by numbers or texts


def _check_options(name: str, wanted: Mapping[str, inspect.Parameter], options) -> None:
    for key, value in options.items():
        if key in wanted and key not in _FILLED:
            checks.option(name, key, value, wanted[key].default)


def known(
    config: T5Config,
    vocabulary: Vocabulary | None,
    length: int,
    words: Sequence[str] = (),
    *,
    tasks: int = 1,
    init: initialisers.Initialiser | None = None,
    source: np.ndarray | None = None,
    sources: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """What a run fills into the parameters of a constructor; see the head of this file.

    Args:
      config: sizes of the backbone.
      vocabulary: of the backbone; without one there are no `words`.
      length: soft tokens.
      words: of the task's labels.
      tasks: how many are trained together.
      init: where soft tokens start; each method's own start without it.
      source: P_in of PT2TT.
      sources: saved prompts of other tasks.
    """
    found = {
        'length': length,
        'config': config,
        'vocabulary': vocabulary,
        'labels': vocabulary.encode(words) if vocabulary and words else [],
        'tasks': tasks,
    }
    given = {'init': init, 'source': source, 'sources': dict(sources or {}) or None}
    return found | {name: value for name, value in given.items() if value is not None}


def build(
    name: str, known: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]] | None = None
) -> Tuning:
    """The tuning called `name`, such as 'lora' or 'prefix+adapter'.

    Args:
      name: of a method, or of several.
      known: what the run can fill in; see `known`.
      options: method -> its settings, which go before `known`.

    Raises:
      UserError: for an unknown method, or settings it cannot be made with.
    """
    made = []
    for make in parts(name):
        wanted = inspect.signature(make).parameters
        filled = {key: value for key, value in known.items() if key in wanted}
        own = (options or {}).get(make.__name__, {})
        _check_options(make.__name__, wanted, own)
        filled |= own
        _check_complete(make.__name__, wanted, filled)
        made.append(make(**filled))
    return made[0] if len(made) == 1 else combine(*made)
