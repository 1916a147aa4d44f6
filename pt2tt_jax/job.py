"""A run before it starts: settings checked, backbone and data loaded, and how a model is scored."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata as distribution
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pt2tt_jax import backbone as backbones
from pt2tt_jax import data, evaluate, methods, processes, report, saved, sharding, tune
from pt2tt_jax import prepared as prepared_data
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Encoded
from pt2tt_jax.results import Results, machine
from pt2tt_jax.sections import Model
from pt2tt_jax.settings import Settings
from pt2tt_jax.tasks import metrics
from pt2tt_jax.tuning import Tuned, Tuning, flatten, shapes

logger = logging.getLogger('pt2tt')


@dataclasses.dataclass
class Job:
    """One run: its settings, its backbone and data, and the folder that takes the results.

    `sources` are saved prompts of other tasks, for methods that draw on several.
    """

    settings: Settings
    folder: Path
    results: Results
    backbone: Backbone
    prepared: data.Prepared
    mesh: jax.sharding.Mesh
    sources: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def tuning(self, method: str, source: np.ndarray | None = None) -> Tuning:
        """The tuning of a method for this task; `source` is P_in of PT2TT."""
        return tune.tuning(
            method,
            self.settings,
            self.backbone,
            self.prepared.labels,
            source=source,
            sources=self.sources,
        )

    @property
    def plain(self) -> evaluate.Model:
        return evaluate.Model(self.backbone.module, self.backbone.params)

    def zero_shot(self) -> dict[str, Any]:
        """The frozen model on the bare input and under every template of stage 1, if any."""
        test = self.prepared.test
        return {
            'stripped': self.scores(self.plain, test.student),
            'templates': {n: self.scores(self.plain, text) for n, text in test.teachers.items()},
            'patterns': self.prepared.patterns,
        }

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
        picked = log_probs.argmax(axis=1)
        found = self._measures([self.prepared.labels[label] for label in picked])
        found |= summary(picked, split.labels, len(labels))
        return found | {
            'decoded_accuracy': float(np.mean(decoded == split.labels)),
            'invalid': float(np.mean(decoded < 0)),
        }

    def _written(self, model: evaluate.Model, split: Encoded) -> dict[str, Any]:
        """The metrics of a task whose targets are free text."""
        vocabulary = self.backbone.vocabulary
        length = self.settings.data.target_length
        ids = evaluate.decode(model, split, length, vocabulary_size=vocabulary.size)
        texts = [vocabulary.decode(one) for one in ids]
        return {
            **self._measures(texts),
            'cross_entropy': evaluate.cross_entropy(model, split),
            'constant': texts[0] if len(set(texts)) == 1 else None,
            'examples': len(split),
        }

    def _measures(self, texts: Sequence[str]) -> dict[str, float]:
        """The measures of the data set's tables, as shares: Matthews for CoLA, F1 for MultiRC."""
        found = metrics.score(self.prepared.source, self.prepared.examples, texts)
        return {name: value / 100 for name, value in found.items()}

    def write_report(self) -> None:
        """Draws what the folder holds so far; one process does it."""
        if processes.first():
            report.write(self.folder)


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


def keep(job: Job, one: tune.Learned, template: str | None = None, **made: Any) -> dict[str, Any]:
    """Saves a tuned model as the simplest method that does the same, and scores it as saved.

    Args:
      job: the run.
      one: what was learned.
      template: that P_in was learned from.
      made: more of how the method is made again, beside what `tune.portable` says.
    """
    tensors, how = tune.portable(one, job.settings, job.sources)
    about = {'tuning': how | made, 'labels': job.prepared.labels}
    simpler = one.tuning.simpler is not None
    model = evaluate.restored(job.backbone, tensors, about) if simpler else one.model
    found = {'seed': one.seed, 'step': one.step} | job.scores(model, job.prepared.test.student)
    about = {'stage': 2, 'method': one.method, 'template': template, 'tuning': how | made, **found}
    save(job, f'{one.method}/seed{one.seed}', tensors, about)
    return found


def summary(picked: np.ndarray, labels: np.ndarray, count: int) -> dict[str, Any]:
    """Accuracy, its standard error, macro F1, and the majority class beside them."""
    from sklearn.metrics import f1_score  # half a second that only evaluation needs

    found = evaluate.accuracy(picked, labels)
    macro = f1_score(labels, picked, labels=range(count), average='macro', zero_division=0)  # pyright: ignore
    return dataclasses.asdict(found) | {'stderr': found.stderr, 'macro_f1': float(macro)}


def start(
    settings: Settings,
    folder: Path,
    *,
    stage1_too: bool = True,
    backbone: Backbone | None = None,
) -> Job:
    """Loads the data of a run, and its backbone unless it is given.

    Raises:
      UserError: for anything that can be known to be wrong before training starts.
    """
    check(settings, stage1_too)
    results = Results(folder, settings)
    model = settings.model
    mesh = sharding.mesh(model.data_parallel, model.model_parallel, model.population_parallel)
    backbone = backbone or backbones.load(model.name, model.dtype, model.param_dtype)
    backbone = sharding.place(_as_run(backbone, model), mesh)
    prepared = prepared_task(settings, backbone, stage1_too)
    sources = {n: prompt_rows(backbone, p) for n, p in _named(settings.tune.sources).items()}
    job = Job(settings, folder, results, backbone, prepared, mesh, sources)
    _check_job(job, stage1_too)  # before anything is written: a mistake must not claim the folder
    _describe(job)
    return job


def _as_run(backbone: Backbone, model: Model) -> Backbone:
    """`backbone`, to be computed as the settings say."""
    config = backbone.config.replace(
        remat=model.remat, attention=model.attention, scan_layers=model.scan_layers
    )
    if model.attention == 'fused' and config.dtype == 'float32' and jax.default_backend() == 'gpu':
        raise UserError(
            "Model.attention = 'fused' needs a 16-bit type; set Model.dtype = 'bfloat16' too."
        )
    return dataclasses.replace(backbone, config=config)


def _check_layers(job: Job, method: str, tuning: Tuning) -> None:
    """Raises UserError if `scan_layers` would pass by what a method inserts into layers."""
    if not job.backbone.config.scan_layers:
        return
    made = flatten(shapes(Tuned(job.backbone.module, tuning)))
    inside = [path for path in made if tuning.owns(path) and '/layers_' in path]
    if inside:
        raise UserError(
            f'The method {method!r} puts parameters into layers ({inside[0]}), which '
            'Model.scan_layers passes by; set it to False.'
        )


def _named(paths: Sequence[str]) -> dict[str, str]:
    """Files by their short names, or by their paths where two are called the same (seed0)."""
    short = {Path(path).stem: path for path in paths}
    return short if len(short) == len(paths) else {path: path for path in paths}


def _check_job(job: Job, stage1_too: bool) -> None:
    """What can only be told with the backbone and the data at hand, but before any training."""
    stage1, stage2 = job.settings.transfer, job.settings.tune
    tune.initialiser(stage1.init, job.backbone.vocabulary, job.prepared.labels)
    width = job.backbone.config.emb_dim
    later = {'stage 1': np.zeros((stage1.length, width), np.float32)} if stage1_too else {}
    trial = dataclasses.replace(job, sources=job.sources or later)
    for method in stage2.methods:
        chosen = trial.tuning(method, np.zeros((1, width), np.float32))
        _check_layers(job, method, chosen)
    for recipe in (stage1, *(job.settings.of(method) for method in stage2.methods)):
        sharding.check_divides(recipe.batch_size // recipe.accumulate, job.mesh)
    sharding.check_members(len(stage2.seeds), job.mesh)
    if stage1_too:
        sharding.check_members(len(job.prepared.lesson.teachers), job.mesh)


def prepared_task(settings: Settings, backbone: Backbone, stage1_too: bool) -> data.Prepared:
    """The task of `settings`: read back where it was prepared, otherwise made from its texts."""
    if settings.data.prepared:
        found = prepared_data.manifest(settings.data.prepared)
        if found.get('vocabulary') != backbone.vocabulary.fingerprint:
            raise UserError(
                f'{settings.data.prepared} was prepared with another vocabulary than that of '
                f'{backbone.name!r}; prepare it again with this --model.'
            )
        return prepared_data.read_task(settings.data.prepared)
    around = [_framed(method, settings, backbone) for method in settings.tune.methods]
    longest = max(settings.transfer.length, *around)
    seen = settings.transfer.steps * settings.transfer.batch_size if stage1_too else 0
    return data.prepare(settings.data, backbone, prompt_length=longest, lesson_rows=seen)


def _framed(method: str, settings: Settings, backbone: Backbone) -> int:
    """The tokens that a method puts around each text, whatever the task."""
    length = settings.of(method).length
    rows = np.zeros((length, backbone.config.emb_dim), np.float32)
    known = methods.known(
        backbone.config, backbone.vocabulary, length, source=rows[:1], sources={'': rows}
    )
    chosen = methods.build(method, known, settings.options)
    return chosen.frame(backbone.config.vocab_size).length


def prompt_rows(backbone: Backbone, path: str | Path) -> np.ndarray:
    """The rows of a saved soft prompt that was made for `backbone`.

    Raises:
      UserError: when it was made for another one, or the file holds something else.
    """
    rows, about = saved.load_prompt(path)
    saved.check_fits(path, about, backbone)
    return rows


def check(settings: Settings, stage1_too: bool = True) -> None:
    """Settings that exclude each other.

    Raises:
      UserError: with the first contradiction.
    """
    stage1, stage2 = settings.transfer, settings.tune
    named = {part for method in stage2.methods for part in method.split('+')}
    if stage1_too and 'pt2tt' in named and stage1.length >= stage2.length:
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
    if prepared.keys and processes.first() and not keys.exists():
        keys.write_text(json.dumps(prepared.keys))
