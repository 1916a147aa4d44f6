"""One run: what it works with, how a model is scored and saved, and what is known at its start."""

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

from pt2tt_jax import (
    data,
    evaluate,
    inputs,
    processes,
    readiness,
    report,
    saved,
    sharding,
    tune,
)
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.features import Encoded
from pt2tt_jax.readiness import Stages
from pt2tt_jax.results import Results, machine
from pt2tt_jax.settings import Settings
from pt2tt_jax.tasks import metrics
from pt2tt_jax.tuning import Tuning

logger = logging.getLogger('pt2tt')


@dataclasses.dataclass
class Job:
    """One run: its settings, its backbone and data, and the folder that takes the results.

    `source` is P_in, for methods that build on stage 1; `sources` are saved prompts of other tasks,
    for methods that draw on several.
    """

    settings: Settings
    folder: Path
    results: Results
    backbone: Backbone
    prepared: data.Prepared
    mesh: jax.sharding.Mesh
    source: np.ndarray | None = None
    sources: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def with_prompts(self, source: np.ndarray | None, found: dict[str, np.ndarray]) -> Job:
        """The job after stage 1: its prompts are the sources, unless `Tune.sources` names some."""
        return dataclasses.replace(self, source=source, sources=self.sources or found)

    def tuning(self, method: str) -> Tuning:
        """The tuning of a method for this task."""
        return tune.tuning(
            method,
            self.settings,
            self.backbone,
            self.prepared.labels,
            source=self.source,
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
        placed = sharding.shard_params(model.params, self.mesh)
        model = dataclasses.replace(model, params=placed)
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

    def describe(self) -> None:
        """Says in `results.json` what is run on what, and makes the folder.

        Raises:
          UserError: when the folder holds a run of another backbone, on other data, or with other
            prompts, whatever their names are.
        """
        prepared, backbone, values = self.prepared, self.backbone, self.results.values
        made_of = {'the backbone': backbone.fingerprint} | prepared.digests()
        self.results.check_made_of(made_of | inputs.digests(self.settings))
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
                'input_format': self.settings.data.input_format,
                'verbaliser': self.settings.data.verbaliser,
                'reported_on': 'test',
                'majority': evaluate.accuracy(labels, labels).majority,
                'note': prepared.note,
            },
        )
        self.results.write()
        keys = self.folder / 'splits.json'
        if prepared.keys and processes.first() and not keys.exists():
            keys.write_text(json.dumps(prepared.keys))

    def write_report(self) -> None:
        """Draws what the folder holds so far; one process does it."""
        if processes.first():
            report.write(self.folder)


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
    settings: Settings, folder: Path, stages: Stages = Stages.BOTH, backbone: Backbone | None = None
) -> Job:
    """A run that is `ready`, described in `results.json`.

    Raises:
      UserError: for anything that can be known to be wrong before training starts.
    """
    job = ready(settings, folder, stages, backbone)
    job.describe()
    return job


def ready(
    settings: Settings,
    folder: Path,
    stages: Stages,
    backbone: Backbone | None = None,
    room: int | None = None,
) -> Job:
    """Loads the data of a run, and its backbone unless it is given, and writes nothing yet.

    Args:
      settings: all sections.
      folder: of the results.
      stages: those that the command trains.
      backbone: already loaded.
      room: tokens that are kept free around each text; by default as many as the stages need.

    Raises:
      UserError: for anything that can be known to be wrong before training starts.
    """
    readiness.check_settings(settings, stages)
    settings = inputs.as_prepared(settings)
    results = Results(folder, settings)
    backbone, mesh = inputs.placed(settings.model, backbone)
    given = inputs.prompts(settings.tune, backbone) if Stages.TWO in stages else (None, {})
    prepared = inputs.prepared_task(settings, backbone, stages, room)
    job = Job(settings, folder, results, backbone, prepared, mesh, *given)
    readiness.check(job, stages)
    return job
