"""Populations in parts: at most so many members at once, and fewer where memory ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pt2tt_jax.errors import OutOfMemory

logger = logging.getLogger('pt2tt')

Member = TypeVar('Member')
Trained = TypeVar('Trained')


def in_parts(
    train: Callable[[Sequence[Member], Path], Sequence[Trained]],
    members: Sequence[Member],
    directory: Path,
    most: int = 0,
) -> Iterator[Trained]:
    """What `train` makes of all members, in their order.

    Args:
      train: trains some members at once, with checkpoints in a folder.
      members: of the whole population.
      directory: for all at once; parts have folders below it.
      most: members at once; 0 for all.

    Raises:
      OutOfMemory: when there is not even room for one.
    """
    if most and len(members) > most:
        for start in range(0, len(members), most):
            part = members[start : start + most]
            yield from in_parts(train, part, directory / f'part{start}', most)
        return
    try:
        yield from train(members, directory)
    except OutOfMemory:
        if len(members) == 1:
            raise
        fewer = -(-len(members) // 2)
        logger.warning('%d models do not fit into memory; training %d.', len(members), fewer)
        yield from in_parts(train, members, directory, fewer)


def joined(curves: Sequence[list[dict]]) -> list[dict]:
    """Metric rows of several parts as one: those of a step come together."""
    rows: dict[int, dict] = {}
    for row in (row for part in curves for row in part):
        rows.setdefault(row['step'], {}).update(row)
    return [rows[step] for step in sorted(rows)]
