"""Stage 2 of PT2TT, and every baseline: tuning on the labels of the target task.

PT2TT trains a target prompt before the kept source prompt, `[P_tgt ; P_in ; x]`, to maximise
log P(y | ...) (Hwang 2023). Its comparison is the same loop with another `Tuning`. All seeds train
at once, as a population before one backbone.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pt2tt_jax import evaluate, features, methods, objectives, packing, saved, sharding, train
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError, nearest
from pt2tt_jax.features import Encoded
from pt2tt_jax.methods import initialisers
from pt2tt_jax.populations import in_parts, joined
from pt2tt_jax.settings import Settings, Tune
from pt2tt_jax.t5.vocabulary import Vocabulary
from pt2tt_jax.tuning import Params, Tuned, Tuning, attach, flatten, merge, split


@dataclasses.dataclass(frozen=True)
class Exam:
    """What the step that is kept is chosen by.

    Attributes:
      split: validation examples of one task.
      labels: token ids of each label; without them the likelihood of targets is the score.
      name: of the task, where several are trained together.
      task: its number among them.
    """

    split: Encoded
    labels: Sequence[np.ndarray] | None
    name: str = ''
    task: int = 0

    def scores(self, model: evaluate.Model) -> dict[str, float]:
        """'score' and what it is made of; of accuracies that tie, the likelier labels win."""
        model = dataclasses.replace(model, around=model.around.of(self.task))
        if self.labels is None:
            nats = evaluate.cross_entropy(model, self.split)
            return {'cross_entropy': nats, 'score': -nats}
        log_probs = evaluate.label_log_probs(model, self.split, self.labels)
        shares = log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
        nats = float(-np.mean(shares[np.arange(len(self.split)), self.split.labels]))
        right = float(np.mean(log_probs.argmax(axis=1) == self.split.labels))
        below_one_answer = float(np.exp(-nats)) / (len(self.split) + 1)
        return {'accuracy': right, 'label_nats': nats, 'score': right + below_one_answer}


@dataclasses.dataclass(frozen=True)
class Learned:
    """One tuned model.

    Attributes:
      method, seed: what was trained.
      step: the step whose parameters were kept.
      trained: parameters by path, and frozen ones of inserts (a source prompt).
      model: ready to predict.
      tuning: how it was trained.
    """

    method: str
    seed: int
    step: int
    trained: dict[str, np.ndarray]
    model: evaluate.Model
    tuning: Tuning

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(leaf.size for path, leaf in self.trained.items() if self.tuning.trains(path))


def initialiser(
    name: str, vocabulary: Vocabulary, labels: Sequence[str]
) -> initialisers.Initialiser:
    """The initialiser that `Tune.init` names.

    Raises:
      UserError: for an unknown name, or one that the task or a file cannot serve.
    """
    if name.endswith('.npy'):
        return initialisers.file(name)
    if name.startswith('text:'):
        ids = vocabulary.encode([name.removeprefix('text:')])[0]
        return initialisers.text(ids.tolist())
    known = {
        'vocabulary': initialisers.sampled_vocabulary,
        'uniform': initialisers.uniform,
        'labels': lambda: initialisers.class_labels(
            [ids.tolist() for ids in vocabulary.encode(labels)]
        ),
    }
    if name not in known:
        raise UserError(f'There is no initialiser {name!r}. {nearest(name, known)}')
    return known[name]()


def needs_source(method: str) -> bool:
    """Whether a method, or one of several joined by '+', builds on P_in of stage 1.

    Raises:
      UserError: for an unknown method.
    """
    return any('source' in inspect.signature(make).parameters for make in methods.parts(method))


def tuning(
    method: str,
    settings: Settings,
    backbone: Backbone,
    labels: Sequence[str] = (),
    *,
    tasks: int = 1,
    source: Float[np.ndarray, 'source embed'] | None = None,
    sources: Mapping[str, Float[np.ndarray, 'source embed']] | None = None,
) -> Tuning:
    """The `Tuning` of a method's name, or of several joined by '+'.

    Args:
      method: its name; see `pt2tt_jax.methods`.
      settings: its length, start and options.
      backbone: what it is made for.
      labels: label words of the task.
      tasks: how many are trained together.
      source: P_in of PT2TT.
      sources: saved prompts of other tasks, for methods that draw on several.

    Raises:
      UserError: for an unknown method, or one that lacks what it needs.
    """
    recipe = settings.of(method)
    known = methods.known(
        backbone.config,
        backbone.vocabulary,
        recipe.length,
        labels,
        tasks=tasks,
        init=initialiser(recipe.init, backbone.vocabulary, labels),
        source=source,
        sources=sources,
    )
    return methods.build(method, known, settings.options)


def tune(
    backbone: Backbone,
    chosen: Tuning,
    train_set: Encoded,
    exams: Sequence[Exam],
    settings: Tune,
    directory: Path,
    *,
    method: str,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[list[Learned], list[dict]]:
    """Trains one model per seed; returns them and the metric log.

    With several learning rates, every seed has each, and the rate is kept whose best validation
    scores are highest on the mean of the seeds.

    Args:
      backbone: the model to tune.
      chosen: what is trained; see `pt2tt_jax.methods`.
      train_set: examples with their targets, of one task or of several.
      exams: one a task; the mean of their scores chooses the step that is kept.
      settings: steps, seeds and the like.
      directory: takes checkpoints and metrics; an interrupted run goes on from there.
      method: its name, for logs.
      mesh: devices; by default one.
    """
    mesh = mesh or sharding.mesh(1, 1)
    backbone = sharding.place(backbone, mesh)
    job = _Job(backbone, chosen, train_set, exams, settings, method, mesh)
    rates = settings.learning_rates or (settings.learning_rate,)
    groups = mesh.shape['population']
    found = list(in_parts(job.train, settings.members, directory, settings.population, groups))
    best = max(rates, key=lambda rate: np.mean([m.score for m in found if m.rate == rate]))
    learned = [member.learned for member in found if member.rate == best]
    curves = joined([member.curves for member in found])
    return learned, curves


@dataclasses.dataclass(frozen=True)
class _Member:
    """One model of a population, trained: its seed, rate, best validation score and curves."""

    learned: Learned
    rate: float
    score: float
    curves: list[dict]


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all members share."""

    backbone: Backbone
    chosen: Tuning
    train_set: Encoded
    exams: Sequence[Exam]
    settings: Tune
    method: str
    mesh: jax.sharding.Mesh

    def train(self, members: Sequence[tuple[int, float]], directory: Path) -> list[_Member]:
        """Trains one model per (seed, learning rate), all at once."""
        chosen, settings = self.chosen, self.settings
        module = Tuned(self.backbone.module, chosen)
        params = self.backbone.params
        trees = [attach(module, params, jax.random.key(seed)) for seed, _ in members]
        halves = [split(tree, chosen) for tree in trees]
        frozen = halves[0][1]
        # Trained parameters are float32, whatever precision the backbone is stored in.
        trained = jax.tree.map(
            lambda *leaves: jnp.stack(leaves).astype(jnp.float32), *(half for half, _ in halves)
        )
        around = chosen.frame(self.backbone.config.vocab_size)
        orders = [order(self.train_set, settings, seed) for seed, _ in members]

        def model(one: Params) -> evaluate.Model:
            return evaluate.Model(module, merge(one, frozen), around)

        several = bool(settings.learning_rates)
        problem = train.Problem(
            module=module,
            frozen=frozen,
            trained=trained,
            objective=objectives.cross_entropy,
            batches=_batches(self.train_set, orders, around, settings, self.mesh),
            evaluate=lambda params: [
                total(self.exams, model(_member(params, i))) for i in range(len(members))
            ],
            names=tuple(f'seed{seed}' + f'_lr{rate:g}' * several for seed, rate in members),
            seed=members[0][0],
            rates=tuple(rate / settings.learning_rate for _, rate in members) if several else (),
        )
        label = f'{self.method}, {len(members)} models' if several else f'{self.method}, seeds'
        fitted = train.fit(problem, settings, directory, mesh=self.mesh, label=label)
        kept = {path: leaf for path, leaf in flatten(frozen).items() if chosen.owns(path)}
        made = []
        for i, (seed, rate) in enumerate(members):
            one = _member(fitted.trained, i)
            leaves = {path: np.asarray(leaf) for path, leaf in {**flatten(one), **kept}.items()}
            step, score = int(fitted.steps[i]), float(fitted.scores[i])
            learned = Learned(self.method, seed, step, leaves, model(one), chosen)
            made.append(_Member(learned, rate, score, fitted.curves if not i else []))
        return made


def _member(params: Params, index: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[index], params)


def order(train_set: Encoded, settings: Tune, seed: int) -> Callable[[int], np.ndarray]:
    """step -> row numbers of its batch; of several tasks as `Tune.mixing` says."""
    if train_set.tasks is not None and settings.mixing == 'equal':
        return features.Mixed(train_set.tasks, settings.batch_size, seed)
    return features.Shuffled(len(train_set), settings.batch_size, seed)


def weights(train_set: Encoded, settings: Tune) -> Float[np.ndarray, ' examples']:
    """What the loss of each example counts, by `Tune.task_weights`."""
    if train_set.tasks is None:
        return np.ones(len(train_set), np.float32)
    tasks = int(train_set.tasks.max()) + 1
    check_weights(settings, tasks)
    return np.broadcast_to(np.asarray(settings.task_weights), tasks)[train_set.tasks]


def check_weights(settings: Tune, tasks: int) -> None:
    """Raises UserError unless `Tune.task_weights` has one weight for each task, or one for all."""
    found = settings.task_weights
    if len(found) not in (1, tasks) or min(found) < 0 or not sum(found):
        raise UserError(
            f'Tune.task_weights = {tuple(found)} does not weight {tasks} tasks: give one number, '
            'or one for each task in their order, none negative and not all 0.'
        )


def _batches(
    train_set: Encoded,
    orders: Sequence[Callable[[int], np.ndarray]],
    around: features.Frame,
    settings: Tune,
    mesh: jax.sharding.Mesh,
) -> packing.Packer:
    """step -> the batches of all members, [members, rows, ...]; losses weighted by task."""
    weight = weights(train_set, settings)

    def read(_: int, row: int) -> packing.Item:
        inputs = train_set.framed(row, around)
        return packing.Item(inputs, train_set.targets[row], float(weight[row]))

    longest = (
        around.length + max(map(len, train_set.inputs)),
        max(map(len, train_set.targets)),
    )
    multiple = settings.accumulate * mesh.shape['data']
    return packing.Packer(read, orders, longest, settings.steps, multiple, packed=settings.packing)


def total(exams: Sequence[Exam], model: evaluate.Model) -> dict[str, float]:
    """The scores of one exam, or of several: each by the name of its task, and their mean."""
    found = [exam.scores(model) for exam in exams]
    if len(exams) == 1:
        return found[0]
    named = {
        f'{metric}_{exam.name}': value
        for exam, scores in zip(exams, found, strict=True)
        for metric, value in scores.items()
        if metric != 'score'
    }
    return named | {'score': float(np.mean([scores['score'] for scores in found]))}


def portable(
    learned: Learned, settings: Settings, sources: Mapping[str, np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, how the method is made again) to be saved; a simpler method where there is one.

    PT2TT's two tables become one, a reparametrised prompt the rows that it makes.
    """
    chosen, options = learned.tuning, settings.options
    tensors, method = learned.trained, learned.method
    if chosen.simpler:
        tensors = {path: np.asarray(v) for path, v in chosen.simpler.fold(tensors).items()}
        method, options = chosen.simpler.method, {chosen.simpler.method: chosen.simpler.options}
    own = {part: dict(options[part]) for part in method.split('+') if options.get(part)}
    # The method's own (`prefix.length = 4`) goes before Tune.length, whatever it is saved as.
    bound = settings.options.get(learned.method, {})
    length = bound.get('length', settings.of(learned.method).length)
    made = {'method': method, 'options': own, 'length': length}
    around = {'before': chosen.before, 'after': chosen.after, 'tasks': chosen.tasks}
    shapes = {name: list(rows.shape) for name, rows in (sources or {}).items()}
    # A PT2TT that stays one, beside another method, is made with as many rows of P_in.
    source = len(tensors.get(saved.SOURCE_PROMPT, ()))
    return tensors, made | around | {'source': source, 'sources': shapes}
