"""Trains under meshes of 8 devices, given as DATAxMODEL or DATAxMODELxPOPULATION; prints prompts.

test_sharding.py runs it in one process, test_multihost.py in two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
import toys

from pt2tt_jax import backbone as backbones
from pt2tt_jax import features, methods, processes, sharding, transfer, tune
from pt2tt_jax.errors import UserError
from pt2tt_jax.settings import Transfer, Tune
from pt2tt_jax.tasks import Example
from pt2tt_jax.teacher import Lesson
from pt2tt_jax.tuning import flatten

PROMPT = 'token_embedder/prompt/embedding'


def backbone():
    config = toys.make_config('1.1')
    params = backbones.random_params(config)
    return backbones.Backbone.from_parts('toy', config, params, toys.make_vocabulary())


def encoded(pattern: str = '{}') -> features.Encoded:
    rng = np.random.default_rng(0)
    texts = [pattern.format(' '.join(rng.choice(toys.WORDS, 5))) for _ in range(24)]
    rows = [Example(text, ('good', 'bad')[i % 2], i % 2, None, '') for i, text in enumerate(texts)]
    return features.encode(rows, toys.make_vocabulary(), input_length=12, target_length=4)


def tuned(folder: Path, mesh: jax.sharding.Mesh) -> list:
    """Stage 2 with two seeds."""
    ids = toys.make_vocabulary().encode(['good', 'bad'])
    exams = [tune.Exam(encoded(), [features.with_eos(one, 4) for one in ids])]
    settings = Tune(length=3, steps=2, batch_size=16, seeds=(0, 1), eval_every=2)
    options = {'method': 'prompt', 'mesh': mesh}
    learned, _ = tune.tune(
        backbone(), methods.prompt(3), encoded(), exams, settings, folder, **options
    )
    return [one.trained[PROMPT].tolist() for one in learned]


def transferred(folder: Path, mesh: jax.sharding.Mesh) -> dict:
    """Stage 1 with two templates."""
    lesson = Lesson(encoded(), {'a': encoded('w1 w2 {}'), 'b': encoded('{} w3')})
    settings = Transfer(length=3, steps=2, batch_size=16, eval_every=1)
    done = transfer.transfer(backbone(), lesson, lesson, settings, folder, mesh=mesh)
    rows = {name: prompt.tolist() for name, prompt in done.prompts.items()}
    return {'prompts': rows, 'kl': done.kl}


def found(folder: Path, shape: str) -> dict:
    mesh = sharding.mesh(*map(int, shape.split('x')))
    return {
        'tuned': tuned(folder / f'{shape}-tune', mesh),
        'transferred': transferred(folder / f'{shape}-transfer', mesh),
    }


def mistake(make) -> str:
    try:
        make()
    except UserError as error:
        return str(error)
    return ''


def main(folder: Path, shapes: list[str]) -> None:
    params = sharding.shard_params(backbone().params, sharding.mesh(4, 2))
    report = {
        'devices': jax.device_count(),
        'meshes': {shape: found(folder, shape) for shape in shapes},
        'batch': mistake(lambda: sharding.check_divides(12, sharding.mesh(8, 1))),
        'members': mistake(lambda: tuned(folder / 'wrong', sharding.mesh(1, 1, 8))),
        'part': mistake(lambda: sharding.mesh(4, 1)),
        'split': [p for p, leaf in flatten(params).items() if not leaf.is_fully_replicated],
    }
    if processes.first():
        print(json.dumps(report))


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2:])
