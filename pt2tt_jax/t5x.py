"""What `t5x.train`, `t5x.eval` and `t5x.infer` need of us. This module imports T5X, and no other.

The files of `gin/t5x/` bind what is here and in `pt2tt_jax.bindings`: `module` is the tuned
network, `optimizer` moves its trained half alone, `pretrained` restores the rest. Stage 2 and all
baselines run under T5X's own `EncoderDecoderModel`; stage 1 has a model, `TemplateTransfer`.
"""

# Pyright takes `t5x` for this very file.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics
from flax import serialization, traverse_util

from pt2tt_jax import objectives
from pt2tt_jax.convert import t5x_read
from pt2tt_jax.errors import UserError, nearest
from pt2tt_jax.held import Held
from pt2tt_jax.optimizers import optimizer as optax_of
from pt2tt_jax.settings import Recipe
from pt2tt_jax.t5 import huggingface
from pt2tt_jax.t5.config import T5Config
from pt2tt_jax.t5.network import Transformer
from pt2tt_jax.tuning import Tuning, flatten, merge, split, unflatten

INSTALL = (
    'README, "Under T5X", has the command that installs the one we use; the package t5x on PyPI is '
    'an empty placeholder.'
)
try:
    from t5x import adafactor, losses, models, optimizers, partitioning, state_utils, utils
    from t5x.examples.t5 import network
except (ImportError, AttributeError) as error:
    raise UserError(f'There is no usable T5X here ({error}). {INSTALL}') from error

# The network


def config(shape: network.T5Config) -> T5Config:
    """Our configuration of the T5 that a size file of T5X describes."""
    names = {field.name for field in dataclasses.fields(T5Config)}
    given: dict[str, Any] = {k: v for k, v in dataclasses.asdict(shape).items() if k in names}
    given |= {'dtype': jnp.dtype(shape.dtype).name}
    given |= {'mlp_activations': tuple(shape.mlp_activations)}
    return T5Config(**given)


def module(
    config: T5Config,
    tuning: Tuning,
    backbone: str = 'pt2tt',
    seed: int | None = None,
    remat: str = 'none',
) -> Held:
    """The tuned network.

    Args:
      config: sizes.
      tuning: what is trained; see `bindings.tuning`.
      backbone: 'pt2tt', or 't5x' for the network of T5X itself, which is slower.
      seed: of initial parameters.
      remat: 'none', 'minimal' or 'full': what the backward pass computes again, to save memory;
        'pt2tt' alone can.

    Raises:
      UserError: for another backbone.
    """
    if backbone == 'pt2tt':
        return Held(Transformer(config.replace(remat=remat)), tuning, seed=seed)
    if backbone != 't5x':
        raise UserError(f'There is no network {backbone!r}. {nearest(backbone, ("pt2tt", "t5x"))}')
    known = {field.name for field in dataclasses.fields(network.T5Config)}
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k in known}
    return Held(network.Transformer(network.T5Config(**fields)), tuning, seed=seed)


# Stage 1


class TemplateTransfer(models.EncoderDecoderModel):
    """T5X's model with the objective of stage 1: KL from the same T5 on templated text.

    Loss: sum over target tokens of KL(P(y | f(x)) || P(y | [P_in ; x])) over the whole vocabulary,
    in nats, divided as `loss_normalizing_factor` says. The teacher is the plain backbone on the
    same parameters. Batches are those of `tasks.converters.LessonFeatureConverter`.

    Args:
      targets: 'gold' for all target tokens, or 'first', which needs no label.
      model: arguments of `EncoderDecoderModel`.
    """

    def __init__(self, *model, targets: str = 'gold', **named):
        super().__init__(*model, **named)
        if targets not in ('gold', 'first'):
            raise UserError(
                f'Under T5X, stage 1 takes the targets "gold" or "first", not {targets!r}; '
                'pt2tt transfer also takes what the teacher writes.'
            )
        self._targets = targets

    def loss_fn(self, params, batch, dropout_rng):
        """The loss and the metrics of a batch, as T5X asks for them; `kl` in nats a token."""
        batch = {**batch, 'decoder_loss_weights': self._weights(batch)}
        factor, weights = losses.get_loss_normalizing_factor_and_weights(
            self._loss_normalizing_factor, batch
        )
        teacher: Any = jax.lax.stop_gradient(
            objectives.forward(self.module.backbone, params, _templated(batch))
        )
        student: Any = self._compute_logits(params, batch, dropout_rng)
        nats = objectives.exact_divergence(teacher, student) * weights
        loss = jnp.sum(nats / (1.0 if factor is None else factor))
        return loss, self._compute_metrics(
            student, batch['decoder_target_tokens'], weights, loss, segment_ids=_segments(batch)
        ) | {'kl': clu_metrics.Average(jnp.sum(nats), jnp.sum(weights))}

    def _weights(self, batch):
        weights = batch['decoder_loss_weights']
        if self._targets == 'gold':
            return weights
        places = batch.get('decoder_positions', jnp.arange(weights.shape[1])[None])
        return weights * (places == 0)


def _templated(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The teacher's side of a batch."""
    start = 'teacher_'
    return {**batch, **{k.removeprefix(start): v for k, v in batch.items() if k.startswith(start)}}


def _segments(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What T5X's metrics count packed examples and padding by."""
    packed = {k.removesuffix('_segment_ids'): v for k, v in batch.items() if 'segment_ids' in k}
    tokens = ('encoder_input_tokens', 'decoder_target_tokens')
    return packed or {name: batch[name] != 0 for name in tokens}


# What moves


class TrainedOnly(optimizers.OptaxWrapper):
    """An optax optimizer that sees, and keeps a state of, the trained parameters alone."""

    def __init__(self, optimizer: optax.GradientTransformation, tuning: Tuning):
        super().__init__(optimizer)
        self.tuning = tuning

    def init_state(self, params):
        """State of the trained parameters."""
        return super().init_state(split(params, self.tuning)[0])

    def apply_gradient(self, hyper_params, params, state, grads):
        """All parameters after a step, of which the frozen ones are the same."""
        trained, frozen = split(params, self.tuning)
        slope, _ = split(grads, self.tuning)
        trained, state = super().apply_gradient(hyper_params, trained, state, slope)
        return type(params)(merge(trained, frozen)), state

    def derive_logical_axes(self, optimizer, param_logical_axes):
        """State leaves of a parameter's shape lie as it does, all others on every device."""
        halves = (split(tree, self.tuning)[0] for tree in (optimizer.target, param_logical_axes))
        params, names = map(flatten, halves)

        def place(path, leaf):
            parts = jax.tree_util.keystr(path, simple=True, separator='/').split('/')
            ends = ('/'.join(parts[start:]) for start in range(len(parts)))
            owner = next((end for end in ends if end in params), None)
            return names[owner] if owner and leaf.shape == params[owner].shape else None

        states = jax.tree_util.tree_map_with_path(place, optimizer.state.param_states)
        axes = jax.tree.map(lambda _: None, optimizer.state_dict())
        axes['target'] = param_logical_axes
        axes['state']['param_states'] = serialization.to_state_dict(states)
        return optimizer.restore_state(axes)


def optimizer(recipe: Recipe, tuning: Tuning) -> optimizers.OptimizerDef:
    """The optimizer of `pt2tt`: AdamW, or Adafactor as Lester et al. 2021 set it."""
    return TrainedOnly(optax_of(recipe), tuning)


def only_trained(definition: optimizers.OptimizerDef, tuning: Tuning) -> optimizers.OptimizerDef:
    """An optimizer of T5X's own, for example its Adafactor, on the trained parameters alone."""
    chosen = traverse_util.ModelParamTraversal(lambda path, _: tuning.trains(path.strip('/')))
    return optimizers.MultiOptimizer([(chosen, definition)])


def factor_rules() -> Mapping[str | None, Any]:
    """How T5X's Adafactor factors its second moments: not along axes that only inserts have."""
    rules = adafactor.standard_logical_factor_rules()
    return collections.defaultdict(lambda: adafactor.FactorDim.NONE, rules)


# Where it lies


NEW_AXES = ('prompt', 'prompts', 'rank', 'bottleneck')  # that only inserts have


def axis_rules() -> list[tuple[str, str | None]]:
    """T5X's rules from axes of parameters to axes of the mesh; those of inserts are not split."""
    new: Any = [(name, None) for name in NEW_AXES]
    return partitioning.standard_logical_axis_rules(additional_rules=new)


def partitioner(model_parallel: int = 1) -> partitioning.PjitPartitioner:
    """A mesh in which each `model_parallel` devices share the model, and all others the batch.

    Raises:
      UserError: when the devices do not divide into such groups.
    """
    devices, local = jax.device_count(), jax.local_device_count()
    if model_parallel < 1 or devices % model_parallel:
        raise UserError(
            f'{devices} devices do not divide into groups of {model_parallel}; choose '
            f'MODEL_PARALLEL among the divisors of {devices}.'
        )
    if jax.devices()[0].platform != 'cpu':
        return partitioning.PjitPartitioner(model_parallel, logical_axis_rules=axis_rules())
    # T5X's own mesh of CPUs has one shape only.
    group: Any = (max(1, model_parallel // local), min(model_parallel, local))
    rules = axis_rules()
    return partitioning.PjitPartitioner(model_parallel_submesh=group, logical_axis_rules=rules)


# Where it starts


def pretrained(path: str, config: T5Config, tuning: Tuning) -> utils.RestoreCheckpointConfig | None:
    """Restores the backbone from the checkpoint at `path`; inserts, step and optimizer are new.

    An empty path restores nothing. An interrupted run goes on from its own checkpoint.

    Raises:
      UserError: when the checkpoint is not whole, or not of this size or vocabulary.
    """
    if not path:
        return None
    found = t5x_read.checkpoint(path)
    shapes = {name: found.shape_of(name) for name in found.leaves}
    huggingface.check_tree(config, unflatten(shapes), path)
    return utils.RestoreCheckpointConfig(
        path=path,
        mode='specific',
        dtype='float32',
        fallback_to_scratch=True,
        state_transformation_fns=(functools.partial(_backbone, tuning),),
    )


def _backbone(tuning: Tuning, stored, state, *, is_resuming: bool = False):
    """What of a checkpoint is restored: in a new run, the parameters that are no insert's."""
    del state
    if is_resuming:
        return stored
    target = state_utils.flatten_state_dict(stored['target'])
    return {'target': unflatten({k: v for k, v in target.items() if not tuning.owns(k)})}


def lacking(needed: Mapping[Any, tuple[str, ...]]) -> list[str]:
    """Parameters that functions and classes of T5X do not take, though we pass them."""
    return [
        f'{thing.__module__}.{thing.__qualname__}({name})'
        for thing, names in needed.items()
        for name in names
        if name not in inspect.signature(thing).parameters
    ]


_lacking = lacking(
    {
        models.EncoderDecoderModel: ('feature_converter_cls', 'loss_normalizing_factor'),
        models.EncoderDecoderModel._compute_logits: ('params', 'batch', 'dropout_rng'),
        losses.get_loss_normalizing_factor_and_weights: ('loss_normalizing_factor', 'batch'),
        optimizers.OptaxWrapper.derive_logical_axes: ('optimizer', 'param_logical_axes'),
        partitioning.PjitPartitioner: ('model_parallel_submesh', 'logical_axis_rules'),
        utils.RestoreCheckpointConfig: ('fallback_to_scratch', 'state_transformation_fns'),
        network.T5Config: ('logits_via_embedding', 'mlp_activations'),
    }
)
if _lacking:
    raise UserError(f'This T5X is too old or too new: there is no {_lacking[0]}. {INSTALL}')
