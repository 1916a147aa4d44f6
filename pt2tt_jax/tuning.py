"""What is tuned, and where: a tuning method is a value, and the backbone never knows of it.

`Tuned(backbone, tuning)` has the calls of the backbone and runs them while Flax intercepts its
modules. Where a module's path matches the `sites` of an `Insert`, the insert is called in its
place and may call the frozen module, before, after, several times or not at all:

    class Scale(nn.Module):                       # (IA)3, on a page
        @nn.compact
        def __call__(self, frozen, x):
            y = frozen(x)
            return y * self.param('scale', nn.initializers.ones, y.shape[-1:])

    ia3 = Tuning(inserts=(Insert('ia3', r'.*/(key|value|wo)', Scale),))

Parameters of an insert lie below its site (`encoder/layers_0/attention/key/ia3/scale`), beside the
backbone's own. The plain backbone applied to a tuned tree ignores them, so that teacher and
student of a distillation are one set of parameters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from flax.core import Scope

from pt2tt_jax.errors import UserError, nearest
from pt2tt_jax.features import Frame, frame

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Insert:
    """A module that stands in for frozen ones.

    Attributes:
      name: parameter scope below each site, for example 'lora' in `.../query/lora/down`.
      sites: regular expression, matched in full against module paths such as
        'encoder/layers_0/attention/query'.
      module: makes the module; it is called with the frozen module and that module's arguments.
      shared: makes a module that runs once a pass, at the root scope `name`; its output reaches
        every call of `module` as the keyword `shared`. For parameters that several sites use.
    """

    name: str
    sites: str
    module: Callable[..., nn.Module]
    shared: Callable[..., nn.Module] | None = None

    def at(self, path: str) -> bool:
        """Whether the module at `path` is one of its sites."""
        return re.fullmatch(self.sites, path) is not None


@dataclasses.dataclass(frozen=True)
class Simpler:
    """What a trained tuning can be saved as, with the same function.

    Attributes:
      method: name of the simpler method.
      fold: leaves of the inserts by path -> leaves of the simpler method.
      options: of the simpler method's constructor, where they differ.
    """

    method: str
    fold: Callable[[dict[str, Any]], dict[str, Any]]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def soft_tokens(length: int, first: int = 0) -> tuple[int, ...]:
    """Soft tokens `first` to `first + length - 1`, as `Tuning.before` writes them."""
    return tuple(-1 - token for token in range(first, first + length))


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A tuning method: inserts, and backbone parameters that are trained themselves.

    Attributes:
      inserts: applied in order; of two at one site the later is the outer.
      unfreeze: regular expressions over paths of backbone parameters to train.
      freeze: regular expressions over paths of parameters to keep, stronger than both; for
        example a prompt from an earlier stage.
      before, after: tokens around each text; see `soft_tokens`. Ids that are not negative are the
        vocabulary's own, words that stand between soft tokens.
      tasks: how many tasks have soft tokens of their own.
      simpler: what it can be saved as.
    """

    inserts: tuple[Insert, ...] = ()
    unfreeze: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    tasks: int = 1
    simpler: Simpler | None = dataclasses.field(default=None, compare=False)

    def frame(self, vocab_size: int) -> Frame:
        """The tokens around each text of a model with `vocab_size` rows of embeddings."""
        return frame(vocab_size, self.before, self.after, self.tasks)

    def trains(self, path: str) -> bool:
        """Whether the parameter at `path` is trained. The only definition of trainable."""
        if any(re.fullmatch(pattern, path) for pattern in self.freeze):
            return False
        return self.owns(path) or any(re.fullmatch(pattern, path) for pattern in self.unfreeze)

    def owns(self, path: str) -> bool:
        """Whether the parameter at `path` belongs to an insert, frozen or not."""
        return any(
            re.fullmatch(rf'(?:{insert.sites})/{insert.name}/.*', path)
            or (insert.shared is not None and path.startswith(f'{insert.name}/'))
            for insert in self.inserts
        )


def combine(*tunings: Tuning) -> Tuning:
    """All of `tunings` at once, for example a prompt and adapters."""
    names = [insert.name for tuning in tunings for insert in tuning.inserts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f'Two combined methods call an insert {twice[0]!r}; give one another name.')
    soft = [token for t in tunings for token in (*t.before, *t.after) if token < 0]
    if len(set(soft)) < len(soft):
        raise UserError(
            'Two combined methods claim the same soft tokens; let `first` of the second be the '
            'length of the first.'
        )
    return Tuning(
        inserts=tuple(i for t in tunings for i in t.inserts),
        unfreeze=tuple(u for t in tunings for u in t.unfreeze),
        freeze=tuple(f for t in tunings for f in t.freeze),
        before=tuple(token for t in tunings for token in t.before),
        after=tuple(token for t in tunings for token in t.after),
        tasks=max((t.tasks for t in tunings), default=1),
    )


@dataclasses.dataclass(frozen=True)
class Frozen:
    """The module under an insert, to be called like it."""

    call: Callable[..., Any]
    module: nn.Module

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    def parameter(self, name: str) -> jax.Array:
        """A parameter of the frozen module itself."""
        return jnp.asarray(self.module.get_variable('params', name))


class Tuned(nn.Module):
    """`backbone` with the inserts of `tuning`; same methods, same parameter paths."""

    backbone: nn.Module
    tuning: Tuning

    def setup(self):
        nn.share_scope(self, self.backbone)

    def __call__(self, *args, **kwargs):
        with self._inserted() as seen:
            result = self.backbone(*args, **kwargs)
        if self.is_mutable_collection('params'):  # new leaves are being made
            self._check_sites(seen)
        return result

    def encode(self, *args, **kwargs):
        """As the backbone's, with the inserts."""
        with self._inserted():
            return self.backbone.encode(*args, **kwargs)

    def decode(self, *args, **kwargs):
        """As the backbone's, with the inserts."""
        with self._inserted():
            return self.backbone.decode(*args, **kwargs)

    @contextlib.contextmanager
    def _inserted(self) -> Iterator[set[str]]:
        shared = {
            insert.name: insert.shared(parent=_child(self, insert.name))()
            for insert in self.tuning.inserts
            if insert.shared is not None
        }
        inside: set[str] = set()  # paths whose inserts are running: their module calls are frozen
        seen: set[str] = set()

        def intercept(next_fun, args, kwargs, context):
            path = '/'.join(context.module.path)
            if context.method_name != '__call__' or path in inside:
                return next_fun(*args, **kwargs)
            seen.add(path)
            here = [insert for insert in self.tuning.inserts if insert.at(path)]
            if not here:
                return next_fun(*args, **kwargs)
            call = _frozen(context.module, path, inside)
            for insert in here:
                call = _wrapped(insert, Frozen(call, context.module), shared)
            return call(*args, **kwargs)

        with nn.intercept_methods(intercept):
            yield seen

    def _check_sites(self, seen: set[str]) -> None:
        for insert in self.tuning.inserts:
            if not any(insert.at(path) for path in seen):
                raise UserError(
                    f'The insert {insert.name!r} matches no site: no module path of the backbone '
                    f'matches {insert.sites!r} in full. {nearest(insert.sites, seen)}'
                )


def _frozen(module: nn.Module, path: str, inside: set[str]) -> Callable[..., Any]:
    """A call of `module` that passes its own inserts by.

    The module is called anew. `next_fun` would run it on the scope of the insert that calls it,
    and its parameters would move there.
    """

    def call(*args, **kwargs):
        inside.add(path)
        try:
            return module(*args, **kwargs)
        finally:
            inside.remove(path)

    return call


def _child(module: nn.Module, name: str) -> Scope:
    """The scope `name` below a bound module, new or there already."""
    assert module.scope is not None
    return module.scope.push(name, reuse=True)


def _wrapped(insert: Insert, frozen: Frozen, shared: dict[str, Any]) -> Callable[..., Any]:
    """A call of `insert` around `frozen`.

    The scope is pushed by hand, because a module with `setup` (T5X's embedding is one) takes no
    new children when it is called; `reuse` lets encoder and decoder share one insert.
    """
    keywords = {'shared': shared[insert.name]} if insert.shared is not None else {}

    def call(*args, **kwargs):
        scope = _child(frozen.module, insert.name)
        return insert.module(parent=scope)(frozen, *args, **kwargs, **keywords)

    return call


def flatten(params: Params) -> dict[str, Any]:
    """{'encoder/layers_0/...': leaf} of a nested tree."""
    return traverse_util.flatten_dict(params, sep='/')


def unflatten(flat: dict[str, Any]) -> Params:
    """The nested tree that `flatten` took apart."""
    return traverse_util.unflatten_dict(flat, sep='/')


def split(params: Params, tuning: Tuning) -> tuple[Params, Params]:
    """(trained, frozen): two trees that hold each leaf of `params` exactly once."""
    flat = flatten(params)
    trained = {path: leaf for path, leaf in flat.items() if tuning.trains(path)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    return unflatten(trained), unflatten(frozen)


def merge(trained: Params, frozen: Params) -> Params:
    """The tree that `split` took apart."""
    return unflatten({**flatten(frozen), **flatten(trained)})


def attach(module: Tuned, backbone_params: Params, key: jax.Array) -> Params:
    """`backbone_params` with new leaves for every insert of `module`.

    The leaves are initialised while the backbone's values are in place, so that an initialiser
    may look at them (a prompt made of vocabulary rows does). Existing leaves are not touched.

    Args:
      module: a `Tuned` around a T5.
      backbone_params: parameters of the backbone, in any precision.
      key: random key; each leaf's own comes from its path.

    Raises:
      UserError: when an insert matches no site, or a pattern of `module.tuning` no parameter.
    """
    tree = merge(_new_leaves(module, backbone_params, key), backbone_params)
    check_patterns(module.tuning, flatten(tree))
    return tree


def shapes(module: nn.Module) -> Params:
    """The tree of `module`, tuned or not, as shapes alone: nothing is computed."""
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    init = functools.partial(module.init, enable_dropout=False)
    made: Any = jax.eval_shape(init, jax.random.key(0), token, token, token)
    return made['params']


@functools.partial(jax.jit, static_argnames='module')
def _new_leaves(module: Tuned, params: Params, key: jax.Array) -> Params:
    tokens = jnp.ones((1, 1), jnp.int32)
    made: Any = module.apply(
        {'params': params},
        tokens,
        tokens,
        tokens,
        enable_dropout=False,
        rngs={'params': key},
        mutable=['params'],
    )
    return split_inserts(made[1]['params'], module.tuning)


def check_patterns(tuning: Tuning, paths: Iterable[str]) -> None:
    """Raises UserError unless every pattern of `tuning` matches a parameter of the tree."""
    for pattern in (*tuning.unfreeze, *tuning.freeze):
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise UserError(
                f'The pattern {pattern!r} matches no parameter in full. {nearest(pattern, paths)}'
            )


def split_inserts(params: Params, tuning: Tuning) -> Params:
    """The leaves of `params` that belong to inserts, frozen ones included."""
    return unflatten({p: leaf for p, leaf in flatten(params).items() if tuning.owns(p)})
