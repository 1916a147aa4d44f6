"""Devices: a mesh of data and model axes, and which parameter lies where.

The rules map T5X's logical axis names (`t5x.partitioning.standard_logical_axis_rules`) to the mesh.
One device is the smallest mesh; nothing else in the library knows how many there are.
"""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.tuning import Params, flatten, unflatten

# Path of a backbone parameter -> the axis of its matrix that is split over 'model'.
MODEL_AXIS = (
    (r'.*/(query|key|value|wi|wi_0|wi_1)/kernel', 1),
    (r'.*/(out|wo)/kernel', 0),
    (r'token_embedder/embedding', 0),
    (r'.*/logits_dense/kernel', 1),
    (r'.*/rel_embedding', 0),
)


def mesh(data: int = 0, model: int = 1) -> Mesh:
    """A mesh of `data` x `model` devices; `data` = 0 takes all that are left.

    Raises:
      UserError: when there are not enough devices.
    """
    devices = jax.devices()
    data = data or max(1, len(devices) // model)
    if data * model > len(devices):
        raise UserError(
            f'A mesh of {data} x {model} needs {data * model} devices; there are {len(devices)}. '
            'Lower Model.data_parallel or Model.model_parallel.'
        )
    return Mesh(np.asarray(devices[: data * model]).reshape(data, model), ('data', 'model'))


def replicate(tree, mesh: Mesh):
    """`tree` on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def check_divides(rows: int, mesh: Mesh) -> None:
    """Raises UserError unless a (micro-)batch of `rows` divides among the devices that share it."""
    if rows % mesh.shape['data']:
        raise UserError(
            f'A batch of {rows} examples does not divide among {mesh.shape["data"]} devices; '
            'choose a multiple, or set Model.data_parallel.'
        )


def shard_batch(batch, mesh: Mesh):
    """Arrays [population, batch, ...] with the batch split over 'data'.

    Every process holds the whole batch, since it is a function of the step, and hands its own
    devices their part.

    Raises:
      UserError: when the batch does not divide among the devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, 'data'))
    check_divides(next(iter(batch.values())).shape[1], mesh)
    return {
        name: jax.make_array_from_callback(value.shape, sharding, value.__getitem__)
        for name, value in batch.items()
    }


def shard_params(params: Params, mesh: Mesh) -> Params:
    """The backbone with its large axes split over 'model', where the axis divides."""
    flat = {
        path: jax.device_put(leaf, NamedSharding(mesh, _spec(path, leaf.shape, mesh)))
        for path, leaf in flatten(params).items()
    }
    return unflatten(flat)


def place(backbone: Backbone, mesh: Mesh) -> Backbone:
    """`backbone` with its parameters on the devices of `mesh`; else every call would send them."""
    return dataclasses.replace(backbone, params=shard_params(backbone.params, mesh))


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    for pattern, axis in MODEL_AXIS:
        if re.fullmatch(pattern, path) and shape[axis] % mesh.shape['model'] == 0:
            return PartitionSpec(*('model' if i == axis else None for i in range(len(shape))))
    return PartitionSpec()
