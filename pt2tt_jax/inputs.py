"""What a run is given: its backbone, its data with room for prompts, and prompts saved before."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pt2tt_jax import backbone as backbones
from pt2tt_jax import data, devices, methods, saved, sharding
from pt2tt_jax import prepared as prepared_data
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.readiness import Stages, stand_ins
from pt2tt_jax.sections import Model
from pt2tt_jax.settings import Data, Settings, Tune
from pt2tt_jax.t5.config import T5Config

FILES = ('.npy', '.safetensors')


def placed(model: Model, backbone: Backbone | None = None) -> tuple[Backbone, jax.sharding.Mesh]:
    """The backbone as the settings say, over the devices, and how these are laid out."""
    mesh = sharding.mesh(model.data_parallel, model.model_parallel, model.population_parallel)
    backbone = backbone or backbones.load(model.name, model.dtype, model.param_dtype)
    as_set = dataclasses.replace(backbone, config=as_run(backbone.config, model))
    return sharding.place(as_set, mesh), mesh


def as_run(config: T5Config, model: Model) -> T5Config:
    """`config`, to be computed as the settings say.

    Raises:
      UserError: for a kernel that the type of activations cannot have.
    """
    if model.attention == 'fused' and config.dtype == 'float32' and devices.backend() == 'gpu':
        raise UserError(
            "Model.attention = 'fused' needs a 16-bit type; set Model.dtype = 'bfloat16' too."
        )
    return config.replace(
        remat=model.remat, attention=model.attention, scan_layers=model.scan_layers
    )


def as_prepared(settings: Settings) -> Settings:
    """`settings`, with those that the folder `Data.prepared` was made with, if one is named.

    Raises:
      UserError: when other settings of the data are given beside it.
    """
    if not settings.data.prepared:
        return settings
    made = prepared_data.manifest(settings.data.prepared).get('settings', {}).get('Data', {})
    names = {field.name for field in dataclasses.fields(settings.data)} - {'prepared'}
    known = {name: _frozen(value) for name, value in made.items() if name in names}
    for name in known.keys() - {'data_dir'}:  # where the texts lay when they were read
        asked = getattr(settings.data, name)
        if asked not in (known[name], getattr(Data(), name)):
            raise UserError(
                f'{settings.data.prepared} was prepared with Data.{name} = {known[name]!r}, not '
                f'{asked!r}: leave that out, or prepare it again.'
            )
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, **known))


def _frozen(value: Any) -> Any:
    """A value of JSON as settings have it."""
    return tuple(value) if isinstance(value, list) else value


def prepared_task(
    settings: Settings, backbone: Backbone, stages: Stages, room: int | None = None
) -> data.Prepared:
    """The task of `settings`: read back where it was prepared, otherwise made from its texts."""
    if settings.data.prepared:
        found = prepared_data.manifest(settings.data.prepared)
        if found.get('vocabulary') != backbone.vocabulary.fingerprint:
            raise UserError(
                f'{settings.data.prepared} was prepared with another vocabulary than that of '
                f'{backbone.name!r}; prepare it again with this --model.'
            )
        needed = room_for(settings, backbone, stages) if room is None else room
        if needed > found.get('room', needed):
            raise UserError(
                f'{settings.data.prepared} leaves room for {found["room"]} tokens around each '
                f'text, and {needed} are asked for; prepare it again with these settings.'
            )
        return prepared_data.read_task(settings.data.prepared)
    first = settings.transfer
    return data.prepare(
        settings.data,
        backbone,
        prompt_length=room_for(settings, backbone, stages) if room is None else room,
        lesson_rows=first.steps * first.batch_size if Stages.ONE in stages else 0,
        training=bool(stages),
    )


def room_for(settings: Settings, backbone: Backbone, stages: Stages) -> int:
    """The most tokens that a stage puts around a text, so that all of them read the same texts."""
    trained = settings.tune.methods if Stages.TWO in stages else ()
    return max([settings.transfer.length, *(_framed(one, settings, backbone) for one in trained)])


def _framed(method: str, settings: Settings, backbone: Backbone) -> int:
    """The tokens that a method puts around each text, whatever the task and the saved prompts."""
    length, width = settings.of(method).length, backbone.config.emb_dim
    source = data.dataset(settings.data)
    names = settings.tune.sources or [
        one.name for one in data.chosen_templates(settings.data, source)
    ]
    known = methods.known(
        backbone.config,
        backbone.vocabulary,
        length,
        data.label_words(settings.data, source),
        source=np.zeros((1, width), np.float32),
        sources=stand_ins(names, length, width),
    )
    chosen = methods.build(method, known, settings.options)
    return chosen.frame(backbone.config.vocab_size).length


def prompts(recipe: Tune, backbone: Backbone) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """The rows of `Tune.source`, if it is given, and of each of `Tune.sources` by its name."""
    source = prompt_rows(backbone, recipe.source) if recipe.source else None
    return source, {name: prompt_rows(backbone, p) for name, p in named(recipe.sources).items()}


def prompt_rows(backbone: Backbone, path: str | Path) -> np.ndarray:
    """The rows of a saved soft prompt that was made for `backbone`.

    Raises:
      UserError: when it was made for another one, or the file holds something else.
    """
    rows, about = saved.load_prompt(path)
    saved.check_fits(path, about, backbone)
    return rows


def digests(settings: Settings) -> dict[str, str]:
    """Each file of prompts or arrays that the settings name -> a hash of its bytes."""
    values = [value for section in settings.as_dict().values() for value in section.values()]
    texts = [text for value in values for text in (value if _several(value) else [value])]
    found = {text for text in texts if isinstance(text, str) and Path(text).suffix in FILES}
    return {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
        for path in sorted(found)
        if Path(path).is_file()
    }


def _several(value: Any) -> bool:
    return isinstance(value, list | tuple)


def named(paths: Sequence[str]) -> dict[str, str]:
    """Files by their short names, or by their paths where two are called the same (seed0)."""
    short = {Path(path).stem: path for path in paths}
    return short if len(short) == len(paths) else {path: path for path in paths}
