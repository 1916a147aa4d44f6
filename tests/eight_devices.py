"""Trains one prompt under several meshes of 8 devices and prints them; test_train.py runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
import toys

from pt2tt_jax import backbone as backbones
from pt2tt_jax import features, methods, sharding, tune
from pt2tt_jax.errors import UserError
from pt2tt_jax.settings import Tune
from pt2tt_jax.tasks import Example
from pt2tt_jax.tuning import flatten

MESHES = ((1, 1), (4, 2))
PROMPT = 'token_embedder/prompt/embedding'


def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    texts = [' '.join(rng.choice(toys.WORDS, 5)) for _ in range(24)]
    return [Example(text, ('good', 'bad')[i % 2], i % 2, None, '') for i, text in enumerate(texts)]


def main(folder: Path) -> None:
    config, vocabulary = toys.make_config('1.1'), toys.make_vocabulary()
    params = backbones.random_params(config)
    backbone = backbones.Backbone.from_parts('toy', config, params, vocabulary)
    rows = features.encode(examples(), vocabulary, input_length=12, target_length=4)
    labels = [features.with_eos(ids, 4) for ids in vocabulary.encode(['good', 'bad'])]

    def prompt(mesh: jax.sharding.Mesh, batch_size: int) -> np.ndarray:
        settings = Tune(length=3, steps=2, batch_size=batch_size, seeds=(0,), eval_every=2)
        where = folder / f'{mesh.devices.shape}-{batch_size}'
        options = {'method': 'prompt', 'labels': labels, 'mesh': mesh}
        chosen = methods.prompt(3)
        learned, _ = tune.tune(backbone, chosen, rows, rows, settings, where, **options)
        return learned[0].trained[PROMPT]

    found = {f'{d}x{m}': prompt(sharding.mesh(d, m), 16).tolist() for d, m in MESHES}
    try:
        prompt(sharding.mesh(8, 1), 12)
        error = ''
    except UserError as raised:
        error = str(raised)
    split = [
        path
        for path, leaf in flatten(sharding.shard_params(params, sharding.mesh(4, 2))).items()
        if not leaf.sharding.is_fully_replicated
    ]
    report = {'devices': jax.device_count(), 'prompts': found, 'error': error, 'split': split}
    print(json.dumps(report))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
