"""Stage 2 of PT2TT, and every baseline: tuning on the labels of the target task.

PT2TT trains a target prompt before the kept source prompt, `[P_tgt ; P_in ; x]`, to maximise
log P(y | ...) (Hwang 2023). Its comparison is the same loop with another `Tuning`. All seeds train
at once, as a population before one backbone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pt2tt_jax import evaluate, features, methods, objectives, sharding, train
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError, nearest
from pt2tt_jax.features import Encoded
from pt2tt_jax.methods import initialisers
from pt2tt_jax.saved import PROMPT, SOURCE_PROMPT
from pt2tt_jax.settings import Tune
from pt2tt_jax.tuning import Params, Tuned, Tuning, attach, flatten, merge, split

PROMPTED = ('pt2tt', 'prompt')  # methods whose inputs begin with virtual tokens


@dataclasses.dataclass(frozen=True)
class Learned:
    """One tuned model.

    Attributes:
      method, seed: what was trained.
      step: the step whose parameters were kept.
      trained: parameters by path, and frozen ones of inserts (a source prompt).
      model: ready to predict.
    """

    method: str
    seed: int
    step: int
    trained: dict[str, np.ndarray]
    model: evaluate.Model


def initialiser(name: str, backbone: Backbone, labels: Sequence[str]) -> initialisers.Initialiser:
    """The initialiser that `Tune.init` names.

    Raises:
      UserError: for an unknown name, or one that the task or a file cannot serve.
    """
    if name.endswith('.npy'):
        return initialisers.file(name)
    if name.startswith('text:'):
        ids = backbone.vocabulary.encode([name.removeprefix('text:')])[0]
        return initialisers.text(ids.tolist())
    known = {
        'vocabulary': initialisers.sampled_vocabulary,
        'uniform': initialisers.uniform,
        'labels': lambda: initialisers.class_labels(
            [ids.tolist() for ids in backbone.vocabulary.encode(labels)]
        ),
    }
    if name not in known:
        raise UserError(f'There is no initialiser {name!r}. {nearest(name, known)}')
    return known[name]()


def tuning(
    method: str,
    settings: Tune,
    init: initialisers.Initialiser,
    source: Float[np.ndarray, 'source embed'] | None,
) -> Tuning:
    """The `Tuning` of a method's name.

    Raises:
      UserError: for an unknown method, or PT2TT without a source prompt.
    """
    if method == 'pt2tt':
        if source is None:
            raise UserError(
                'The method pt2tt needs the source prompt of stage 1: give its file with --source '
                '(pt2tt transfer writes it), or choose the method prompt.'
            )
        return methods.pt2tt(source, settings.length, init=init, thaw=settings.thaw)
    known = {'prompt': lambda: methods.prompt(settings.length, init=init), 'full': methods.full}
    if method not in known:
        raise UserError(f'There is no method {method!r}. {nearest(method, [*known, "pt2tt"])}')
    return known[method]()


def tune(
    backbone: Backbone,
    chosen: Tuning,
    train_set: Encoded,
    validation: Encoded,
    settings: Tune,
    directory: Path,
    *,
    method: str,
    labels: Sequence[np.ndarray] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[list[Learned], list[dict]]:
    """Trains one model per seed; returns them and the metric log.

    Args:
      backbone: the model to tune.
      chosen: what is trained; see `pt2tt_jax.methods`.
      train_set: examples with their targets.
      validation: chooses the step that is kept.
      settings: steps, seeds and the like.
      directory: takes checkpoints and metrics; an interrupted run goes on from there.
      method: its name, for logs, and whether inputs begin with virtual tokens.
      labels: token ids of each label; without them the likelihood of targets is the score.
      mesh: devices; by default one.
    """
    backbone = sharding.place(backbone, mesh or sharding.mesh(1, 1))
    module = Tuned(backbone.module, chosen)
    trees = [attach(module, backbone.params, jax.random.key(seed)) for seed in settings.seeds]
    halves = [split(tree, chosen) for tree in trees]
    frozen = halves[0][1]
    # Trained parameters are float32, whatever precision the backbone is stored in.
    trained = jax.tree.map(
        lambda *leaves: jnp.stack(leaves).astype(jnp.float32), *(half for half, _ in halves)
    )
    length = settings.length if method in PROMPTED else 0
    virtual = features.virtual_tokens(backbone.config.vocab_size, length)
    orders = [
        features.Shuffled(len(train_set), settings.batch_size, seed) for seed in settings.seeds
    ]

    def scores(params: Params) -> train.Scores:
        members = [_member(params, i) for i in range(len(settings.seeds))]
        models = [evaluate.Model(module, merge(one, frozen), virtual) for one in members]
        return [_score(model, validation, labels) for model in models]

    problem = train.Problem(
        module=module,
        frozen=frozen,
        trained=trained,
        objective=objectives.cross_entropy,
        batches=lambda step: _together(train_set, [order(step) for order in orders], virtual),
        evaluate=scores,
        names=tuple(f'seed{seed}' for seed in settings.seeds),
        seed=settings.seeds[0],
    )
    fitted = train.fit(
        problem, settings, directory, mesh=mesh, label=f'{method}, {len(settings.seeds)} seeds'
    )
    kept = {path: leaf for path, leaf in flatten(frozen).items() if chosen.owns(path)}
    learned = []
    for i, seed in enumerate(settings.seeds):
        one = _member(fitted.trained, i)
        leaves = {path: np.asarray(leaf) for path, leaf in {**flatten(one), **kept}.items()}
        model = evaluate.Model(module, merge(one, frozen), virtual)
        learned.append(Learned(method, seed, int(fitted.steps[i]), leaves, model))
    return learned, fitted.curves


def _member(params: Params, index: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[index], params)


def _together(train_set: Encoded, rows: list[np.ndarray], virtual: np.ndarray) -> features.Batch:
    """One batch per member, stacked: [members, batch, ...]."""
    every = np.concatenate(rows)
    flat = features.batch(train_set, every, virtual)
    return {k: v.reshape(len(rows), -1, *v.shape[1:]) for k, v in flat.items()}


def _score(
    model: evaluate.Model, split: Encoded, labels: Sequence[np.ndarray] | None
) -> dict[str, float]:
    """Accuracy by label scoring; the likelihood of the labels tells equal accuracies apart."""
    if labels is None:
        nats = evaluate.cross_entropy(model, split)
        return {'cross_entropy': nats, 'score': -nats}
    log_probs = evaluate.label_log_probs(model, split, labels)
    shares = log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    nats = float(-np.mean(shares[np.arange(len(split)), split.labels]))
    right = float(np.mean(log_probs.argmax(axis=1) == split.labels))
    below_one_answer = float(np.exp(-nats)) / (len(split) + 1)
    return {'accuracy': right, 'label_nats': nats, 'score': right + below_one_answer}


def portable(learned: Learned) -> dict[str, np.ndarray]:
    """What is saved: the trained leaves; for prompts, all rows as one table in reading order.

    PT2TT's two tables become one, which loads wherever a plain soft prompt does.
    """
    if learned.method not in PROMPTED:
        return learned.trained
    rows = [learned.trained[path] for path in (PROMPT, SOURCE_PROMPT) if path in learned.trained]
    return {PROMPT: np.concatenate(rows)}
