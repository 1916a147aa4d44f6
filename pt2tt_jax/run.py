"""The whole job: template transfer, choice, tuning with its comparison, evaluation, report.

Each part writes what it found to `results.json` before the next one starts, and the training loops
keep checkpoints: the same command, started again, goes on where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import datetime
from importlib import metadata as distribution
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pt2tt_jax import backbone as backbones
from pt2tt_jax import data, evaluate, features, report, saved, sharding, transfer, tune
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Encoded
from pt2tt_jax.methods import prompt
from pt2tt_jax.methods.initialisers import array
from pt2tt_jax.settings import Settings
from pt2tt_jax.tuning import Tuned, attach

logger = logging.getLogger('pt2tt')


class Results:
    """`results.json` of a folder: each section is computed once, then read.

    Raises:
      UserError: when the folder holds a run with other settings.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.path = folder / 'results.json'
        folder.mkdir(parents=True, exist_ok=True)
        self.values: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        wanted = json.loads(json.dumps(settings.as_dict()))
        if self.values.setdefault('settings', wanted) != wanted:
            raise UserError(
                f'{folder} holds a run with other settings ({_difference(self.values["settings"], wanted)}). '
                'Choose another folder with --out, or delete this one.'
            )

    def section(self, name: str, compute: Callable[[], Any]) -> Any:
        """The value at `name` ('part' or 'part/name'), unless an earlier start computed it."""
        part, _, inner = name.partition('/')
        values, key = (self.values.setdefault(part, {}), inner) if inner else (self.values, part)
        if key not in values:
            start = time.monotonic()
            values[key] = compute()
            seconds = self.values.setdefault('seconds', {})
            seconds[name] = round(time.monotonic() - start, 1)
            self.write()
        return values[key]

    def write(self) -> None:
        part = self.path.with_suffix('.part')
        try:
            part.write_text(json.dumps(self.values, indent=1))
            part.replace(self.path)
        except OSError as error:
            raise UserError(
                f'{self.path} could not be written ({error.strerror}); make room and start the '
                'same command again.'
            ) from error


def _difference(old: dict, new: dict) -> str:
    changed = [
        f'{section}.{name}: {old.get(section, {}).get(name)!r} there, {value!r} now'
        for section, values in new.items()
        for name, value in values.items()
        if old.get(section, {}).get(name) != value
    ]
    return '; '.join(changed[:3])


def machine() -> dict[str, Any]:
    """What the run was made on."""
    return {
        'platform': platform.platform(terse=True),
        'cpu_count': os.cpu_count(),
        'devices': [str(device) for device in jax.devices()],
        'jax': jax.__version__,
        'python': platform.python_version(),
    }


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
        labels = self.prepared.label_ids
        if labels is None:
            return {'cross_entropy': evaluate.cross_entropy(model, split)}
        picked = evaluate.label_log_probs(model, split, labels).argmax(axis=1)
        return summary(picked, split.labels, len(labels)) | self._decoded(model, split)

    def _decoded(self, model: evaluate.Model, split: Encoded) -> dict[str, float]:
        assert self.prepared.label_ids is not None
        vocabulary = self.backbone.vocabulary
        longest = max(map(len, self.prepared.label_ids)) + 1
        written = evaluate.decode(model, split, longest, vocabulary_size=vocabulary.size)
        texts = [vocabulary.decode(ids) for ids in written]
        picked = np.array([evaluate.nearest_label(t, self.prepared.labels) for t in texts])
        return {
            'decoded_accuracy': float(np.mean(picked == split.labels)),
            'invalid': float(np.mean(picked < 0)),
        }


def summary(picked: np.ndarray, labels: np.ndarray, count: int) -> dict[str, Any]:
    """Accuracy, its standard error, macro F1, and the majority class beside them."""
    from sklearn.metrics import f1_score  # half a second that only evaluation needs

    found = evaluate.accuracy(picked, labels)
    macro = f1_score(labels, picked, labels=range(count), average='macro', zero_division=0.0)
    return dataclasses.asdict(found) | {'stderr': found.stderr, 'macro_f1': float(macro)}


def start(settings: Settings, folder: Path, *, with_templates: bool = True) -> Job:
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
    longest = max(settings.tune.length, settings.transfer.length)
    prepared = data.prepare(
        settings.data, backbone, prompt_length=longest, with_templates=with_templates
    )
    job = Job(settings, folder, results, backbone, prepared, mesh)
    _describe(job)
    return job


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
    sizes = {name: len(lesson.student) for name, lesson in prepared.splits().items()}
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
            'cut': {name: lesson.student.cut for name, lesson in prepared.splits().items()},
            'input_format': job.settings.data.input_format,
            'verbaliser': job.settings.data.verbaliser,
            'reported_on': 'test',
            'majority': evaluate.accuracy(labels, labels).majority,
            'note': prepared.note,
        },
    )
    job.results.write()


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
    rows = np.arange(min(len(held.student), settings.held_out))
    return transfer.transfer(
        job.backbone,
        job.prepared.train,
        held.subset(rows),
        settings,
        job.folder / 'transfer',
        mesh=job.mesh,
    )


def score_stage1(job: Job, done: transfer.Transferred) -> dict[str, Any]:
    """Saves every source prompt, and measures each before the stripped input."""
    length = job.settings.transfer.length
    virtual = features.virtual_tokens(job.backbone.config.vocab_size, length)
    module = Tuned(job.backbone.module, prompt(length))
    params = attach(module, job.backbone.params, jax.random.key(0))
    scores = {}
    for name, rows in done.prompts.items():
        params['token_embedder']['prompt'] = {'embedding': rows}
        model = evaluate.Model(module, params, virtual)
        scores[name] = job.scores(model, job.prepared.test.student)
        about = {'stage': 1, 'template': name, 'kl': done.kl[name], **scores[name]}
        save_prompt(job, f'transfer/{slug(name)}', rows, about)
    return {'chosen': done.chosen, 'kl': done.kl, 'curves': done.curves, 'scores': scores}


def slug(name: str) -> str:
    """A template's name as a file name."""
    return ''.join(c if c.isalnum() or c in '-_' else '-' for c in name)


def save_prompt(job: Job, name: str, rows: np.ndarray, about: dict[str, Any]) -> Path:
    """Writes `<folder>/prompts/<name>.safetensors`, complete with how to use it."""
    path = job.folder / 'prompts' / f'{name}.safetensors'
    metadata = saved.identity(job.backbone) | {
        'method': 'prompt',
        'length': len(rows),
        'task': job.prepared.name,
        'fields': job.prepared.fields,
        'labels': job.prepared.labels,
        'input_format': job.settings.data.input_format,
        'verbaliser': job.settings.data.verbaliser,
        'settings': job.settings.as_dict(),
        **about,
    }
    saved.save(path, {saved.PROMPT: np.asarray(rows, np.float32)}, metadata)
    return path


def stage2(job: Job, method: str, source: np.ndarray | None) -> dict[str, Any]:
    """Trains `method` with every seed, saves the results and measures them."""
    settings = job.settings.tune
    init = tune.initialiser(settings.init, job.backbone, job.prepared.labels)
    learned, curves = tune.tune(
        job.backbone,
        tune.tuning(method, settings, init, source),
        job.prepared.train.student,
        job.prepared.validation.student,
        settings,
        job.folder / 'tune' / method,
        method=method,
        labels=job.prepared.label_ids,
        mesh=job.mesh,
    )
    seeds = []
    for one in learned:
        found = {'seed': one.seed, 'step': one.step}
        found |= job.scores(one.model, job.prepared.test.student)
        rows = tune.as_one_prompt(one)
        if rows is not None:
            save_prompt(job, f'{method}/seed{one.seed}', rows, {'stage': 2, **found})
        seeds.append(found)
    trained = sum(
        leaf.size for path, leaf in learned[0].trained.items() if 'source_prompt' not in path
    )
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
        source = source_rows(job, first['chosen']) if method == 'pt2tt' else None
        results.section(f'tuned/{method}', lambda m=method, s=source: stage2(job, m, s))
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
    job = start(settings, folder, with_templates=False)
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


def evaluate_prompts(settings: Settings, folder: Path, prompts: list[Path]) -> dict[str, Any]:
    """Measures saved prompts on the test set of a task; see `run`."""
    job = start(settings, folder, with_templates=False)
    job.results.section('zero_shot', lambda: {'stripped': job.scores(job.plain, job.prepared.test.student)})
    for path in prompts:
        rows = _checked_source(job, str(path))
        virtual = features.virtual_tokens(job.backbone.config.vocab_size, len(rows))
        module = Tuned(job.backbone.module, prompt(len(rows), init=array(rows)))
        params = attach(module, job.backbone.params, jax.random.key(0))
        model = evaluate.Model(module, params, virtual)
        job.results.section(
            f'tuned/{path.stem}',
            lambda m=model: {'seeds': [job.scores(m, job.prepared.test.student)], 'curves': []},
        )
    report.write(folder)
    return job.results.values
