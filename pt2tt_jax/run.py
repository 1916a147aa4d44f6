"""The whole job: template transfer, choice, tuning with its comparison, evaluation, report.

Each part writes what it found to `results.json` before the next one starts, and the training loops
keep checkpoints: the same command, started again, goes on where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime
from importlib import metadata as distribution
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pt2tt_jax import backbone as backbones
from pt2tt_jax import data, evaluate, report, saved, sharding, transfer, tune
from pt2tt_jax import prepared as prepared_data
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Encoded
from pt2tt_jax.methods import initialisers
from pt2tt_jax.results import Results, machine
from pt2tt_jax.settings import Settings
from pt2tt_jax.tasks import metrics

logger = logging.getLogger('pt2tt')


@dataclasses.dataclass
class Job:
    """One run: its settings, its backbone and data, and the folder that takes the results."""

    settings: Settings
    folder: Path
    results: Results
    backbone: Backbone
    prepared: data.Prepared
    mesh: jax.sharding.Mesh

    @property
    def plain(self) -> evaluate.Model:
        return evaluate.Model(self.backbone.module, self.backbone.params)

    def scores(self, model: evaluate.Model, split: Encoded) -> dict[str, Any]:
        """Accuracy by label scoring and by decoding, beside what a constant answer reaches."""
        labels, vocabulary = self.prepared.label_ids, self.backbone.vocabulary
        if labels is None:
            return self._written(model, split)
        longest = max(map(len, labels)) + 1  # room to be wrong: a label that goes on is none
        log_probs, written = evaluate.classify(
            model, split, labels, longest, vocabulary_size=vocabulary.size
        )
        texts = [vocabulary.decode(ids) for ids in written]
        decoded = np.array([evaluate.nearest_label(t, self.prepared.labels) for t in texts])
        return summary(log_probs.argmax(axis=1), split.labels, len(labels)) | {
            'decoded_accuracy': float(np.mean(decoded == split.labels)),
            'invalid': float(np.mean(decoded < 0)),
        }

    def _written(self, model: evaluate.Model, split: Encoded) -> dict[str, Any]:
        """The metrics of a task whose targets are free text."""
        vocabulary = self.backbone.vocabulary
        length = self.settings.data.target_length
        ids = evaluate.decode(model, split, length, vocabulary_size=vocabulary.size)
        texts = [vocabulary.decode(one) for one in ids]
        found = metrics.score(self.prepared.source, self.prepared.examples, texts)
        return {
            **found,
            'cross_entropy': evaluate.cross_entropy(model, split),
            'constant': texts[0] if len(set(texts)) == 1 else None,
            'examples': len(split),
        }


def summary(picked: np.ndarray, labels: np.ndarray, count: int) -> dict[str, Any]:
    """Accuracy, its standard error, macro F1, and the majority class beside them."""
    from sklearn.metrics import f1_score  # half a second that only evaluation needs

    found = evaluate.accuracy(picked, labels)
    macro = f1_score(labels, picked, labels=range(count), average='macro', zero_division=0)  # pyright: ignore
    return dataclasses.asdict(found) | {'stderr': found.stderr, 'macro_f1': float(macro)}


def start(settings: Settings, folder: Path, *, stage1_too: bool = True) -> Job:
    """Loads the backbone and the data of a run.

    Raises:
      UserError: for anything that can be known to be wrong before training starts.
    """
    check(settings)
    results = Results(folder, settings)
    model = settings.model
    mesh = sharding.mesh(model.data_parallel, model.model_parallel)
    backbone = backbones.load(model.name, model.dtype, model.param_dtype)
    backbone = dataclasses.replace(backbone, params=sharding.shard_params(backbone.params, mesh))
    prepared = _prepared(settings, backbone, stage1_too)
    job = Job(settings, folder, results, backbone, prepared, mesh)
    _check_job(job)  # before anything is written: a mistake must not claim the folder
    _describe(job)
    return job


def _check_job(job: Job) -> None:
    """What can only be told with the backbone and the data at hand, but before any training."""
    stage1, stage2 = job.settings.transfer, job.settings.tune
    for name in (stage1.init, stage2.init):
        tune.initialiser(name, job.backbone, job.prepared.labels)
    nothing = np.zeros((1, job.backbone.config.emb_dim), np.float32)
    for method in stage2.methods:
        tune.tuning(method, stage2, initialisers.uniform(), nothing)
    for recipe in (stage1, stage2):
        sharding.check_divides(recipe.batch_size // recipe.accumulate, job.mesh)


def _prepared(settings: Settings, backbone: Backbone, stage1_too: bool) -> data.Prepared:
    if settings.data.prepared:
        found = prepared_data.manifest(settings.data.prepared)
        if found.get('vocabulary') != backbone.vocabulary.fingerprint:
            raise UserError(
                f'{settings.data.prepared} was prepared with another vocabulary than that of '
                f'{backbone.name!r}; prepare it again with this --model.'
            )
        return prepared_data.read_task(settings.data.prepared)
    longest = max(settings.tune.length, settings.transfer.length)
    seen = settings.transfer.steps * settings.transfer.batch_size if stage1_too else 0
    return data.prepare(settings.data, backbone, prompt_length=longest, lesson_rows=seen)


def prepare(settings: Settings, folder: Path) -> dict[str, int]:
    """Writes the task of `settings` as token ids to `folder`; returns the size of each split.

    `Data.prepared` of a later run names the folder; that run needs neither texts nor TensorFlow.
    """
    backbone = backbones.load(settings.model.name)
    about = {'vocabulary': backbone.vocabulary.fingerprint, 'settings': settings.as_dict()}
    made = prepared_data.write_task(folder, _prepared(settings, backbone, True), about)
    return made['splits']


def check(settings: Settings) -> None:
    """Settings that exclude each other.

    Raises:
      UserError: with the first contradiction.
    """
    stage1, stage2 = settings.transfer, settings.tune
    if 'pt2tt' in stage2.methods and not stage2.source and stage1.length >= stage2.length:
        raise UserError(
            f'Transfer.length (m = {stage1.length}) must be smaller than Tune.length '
            f'(n = {stage2.length}): PT2TT trains n - m tokens.'
        )
    if not stage2.seeds or not stage2.methods:
        raise UserError('Tune.seeds and Tune.methods each need at least one entry.')


def _describe(job: Job) -> None:
    prepared, backbone, values = job.prepared, job.backbone, job.results.values
    sizes = {name: len(split) for name, split in prepared.splits().items()}
    labels = prepared.test.student.labels
    values.setdefault('version', distribution.version('pt2tt-jax'))
    values.setdefault('created', datetime.now().isoformat(timespec='seconds'))
    values.setdefault('command', ' '.join(['pt2tt', *sys.argv[1:]]))
    values.setdefault('machine', machine())
    values.setdefault(
        'backbone',
        {
            'name': backbone.name,
            'fingerprint': backbone.fingerprint,
            'version': backbone.config.version,
            'parameters': sum(leaf.size for leaf in jax.tree.leaves(backbone.params)),
        },
    )
    values.setdefault(
        'data',
        sizes
        | {
            'name': prepared.name,
            'fields': prepared.fields,
            'labels': prepared.labels,
            'cut': {name: split.cut for name, split in prepared.splits().items()},
            'input_format': job.settings.data.input_format,
            'verbaliser': job.settings.data.verbaliser,
            'reported_on': 'test',
            'majority': evaluate.accuracy(labels, labels).majority,
            'note': prepared.note,
        },
    )
    job.results.write()
    keys = job.folder / 'splits.json'
    if prepared.keys and not keys.exists():
        keys.write_text(json.dumps(prepared.keys))


def zero_shot(job: Job) -> dict[str, Any]:
    """The frozen model on the stripped input and under every template."""
    test = job.prepared.test
    return {
        'stripped': job.scores(job.plain, test.student),
        'templates': {name: job.scores(job.plain, text) for name, text in test.teachers.items()},
        'patterns': job.prepared.patterns,
    }


def stage1(job: Job) -> transfer.Transferred:
    """Learns, or reads back, the prompts of all templates."""
    settings = job.settings.transfer
    held = job.prepared.validation
    order = np.random.default_rng(settings.seed).permutation(len(held.student))
    rows = np.sort(order[: settings.held_out])  # a sample: files are often sorted by label
    return transfer.transfer(
        job.backbone,
        job.prepared.lesson,
        held.subset(rows),
        settings,
        job.folder / 'transfer',
        init=tune.initialiser(settings.init, job.backbone, job.prepared.labels),
        mesh=job.mesh,
    )


def score_stage1(job: Job, done: transfer.Transferred) -> dict[str, Any]:
    """Saves every source prompt, and measures each before the stripped input."""
    scores = {}
    for name, rows in done.prompts.items():
        scores[name] = job.scores(evaluate.prompted(job.backbone, rows), job.prepared.test.student)
        about = {
            'stage': 1,
            'method': 'prompt',
            'template': name,
            'kl': done.kl[name],
            **scores[name],
        }
        save(job, f'transfer/{slug(name)}', {saved.PROMPT: rows}, about)
    return {'chosen': done.chosen, 'kl': done.kl, 'curves': done.curves, 'scores': scores}


def slug(name: str) -> str:
    """A template's name as a file name."""
    return ''.join(c if c.isalnum() or c in '-_' else '-' for c in name)


def save(job: Job, name: str, tensors: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Writes `<folder>/prompts/<name>.safetensors`, complete with how to use it."""
    metadata = saved.identity(job.backbone) | {
        'task': job.prepared.name,
        'fields': job.prepared.fields,
        'labels': job.prepared.labels,
        'input_format': job.settings.data.input_format,
        'input_length': job.settings.data.input_length,
        'verbaliser': job.settings.data.verbaliser,
        'settings': job.settings.as_dict(),
        **about,
    }
    saved.save(job.folder / 'prompts' / f'{name}.safetensors', tensors, metadata)


def stage2(
    job: Job, method: str, source: np.ndarray | None, template: str | None = None
) -> dict[str, Any]:
    """Trains `method` with every seed, saves the results and measures them."""
    settings = job.settings.tune.of(method)
    init = tune.initialiser(settings.init, job.backbone, job.prepared.labels)
    chosen = tune.tuning(method, settings, init, source)
    learned, curves = tune.tune(
        job.backbone,
        chosen,
        job.prepared.train,
        job.prepared.validation.student,
        settings,
        job.folder / 'tune' / method,
        method=method,
        labels=job.prepared.label_ids,
        mesh=job.mesh,
    )
    seeds = []
    for one in learned:
        tensors = tune.portable(one)
        model = evaluate.restored(job.backbone, tensors) or one.model
        found = {'seed': one.seed, 'step': one.step}
        found |= job.scores(model, job.prepared.test.student)
        about = {'stage': 2, 'method': method, 'template': template, **found}
        save(job, f'{method}/seed{one.seed}', tensors, about)
        seeds.append(found)
    trained = sum(leaf.size for path, leaf in learned[0].trained.items() if chosen.trains(path))
    return {'parameters': trained, 'seeds': seeds, 'curves': curves}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Both stages, evaluation and report; returns the contents of `results.json`.

    Args:
      settings: all sections; see `pt2tt_jax.settings.load`.
      folder: takes prompts, metrics, checkpoints and the report.

    Raises:
      UserError: for input that cannot be used; nothing written before is lost.
    """
    job = start(settings, folder)
    results = job.results
    results.section('zero_shot', lambda: zero_shot(job))
    done = _once(lambda: stage1(job))
    first = results.section('transfer', lambda: score_stage1(job, done()))
    logger.info('kept template: %s', first['chosen'])
    for method in settings.tune.methods:
        template = first['chosen'] if method == 'pt2tt' else None
        source = source_rows(job, template) if template else None
        results.section(
            f'tuned/{method}',
            lambda m=method, s=source, t=template: stage2(job, m, s, t),
        )
    report.write(folder)
    return results.values


def source_rows(job: Job, template: str) -> np.ndarray:
    """P_in of a template, as stage 1 saved it."""
    path = job.folder / 'prompts' / 'transfer' / f'{slug(template)}.safetensors'
    return saved.load(path)[0][saved.PROMPT]


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    values: list[Any] = []
    return lambda: values[0] if values else values.append(make()) or values[0]


def transfer_only(settings: Settings, folder: Path) -> dict[str, Any]:
    """Stage 1 with its evaluation; see `run`."""
    job = start(settings, folder)
    job.results.section('zero_shot', lambda: zero_shot(job))
    job.results.section('transfer', lambda: score_stage1(job, stage1(job)))
    report.write(folder)
    return job.results.values


def tune_only(settings: Settings, folder: Path) -> dict[str, Any]:
    """Stage 2 from the saved source prompt `Tune.source`, or any baseline; see `run`."""
    job = start(settings, folder, stage1_too=False)
    source = _checked_source(job, settings.tune.source) if settings.tune.source else None
    for method in settings.tune.methods:
        job.results.section(f'tuned/{method}', lambda m=method: stage2(job, m, source))
    report.write(folder)
    return job.results.values


def _checked_source(job: Job, path: str) -> np.ndarray:
    tensors, about = saved.load(path)
    saved.check_fits(path, about, job.backbone)
    if saved.PROMPT not in tensors:
        raise UserError(f'{path} holds no soft prompt, but {", ".join(tensors)}.')
    return tensors[saved.PROMPT]


def _restored(job: Job, path: Path) -> tuple[evaluate.Model, dict[str, int]]:
    tensors, about = saved.load(path)
    saved.check_fits(path, about, job.backbone)
    model = evaluate.restored(job.backbone, tensors)
    if model is None:
        raise UserError(f'{path} is of the method {about["method"]!r}, which cannot be loaded.')
    return model, {'seed': about.get('seed', 0), 'step': about.get('step', 0)}


def evaluate_prompts(settings: Settings, folder: Path, prompts: list[Path]) -> dict[str, Any]:
    """Measures saved prompts on the test set of a task; see `run`."""
    job = start(settings, folder, stage1_too=False)
    loaded = [(path, *_restored(job, path)) for path in prompts]
    job.results.section(
        'zero_shot', lambda: {'stripped': job.scores(job.plain, job.prepared.test.student)}
    )
    for path, model, about in loaded:
        job.results.section(
            f'tuned/{path.parent.name}/{path.stem}',
            lambda m=model, a=about: {
                'seeds': [a | job.scores(m, job.prepared.test.student)],
                'curves': [],
            },
        )
    report.write(folder)
    return job.results.values
