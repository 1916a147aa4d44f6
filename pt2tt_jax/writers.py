"""Where metrics go: a JSON-lines file that reports are drawn from, and TensorBoard.

The interface is that of clu's `MetricWriter` (`write_scalars`, `flush`, `close`). clu's own writers
import TensorFlow, so they are not the default; pass one as `more` to have it too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter

logger = logging.getLogger('pt2tt')


class MetricWriter(Protocol):
    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class MetricLog:
    """`metrics.jsonl` and TensorBoard event files in one folder.

    Rows after `resume_at` belong to steps that an interrupted run did not keep; they are dropped,
    so that the file reads as if nothing had happened.
    """

    def __init__(self, directory: Path, resume_at: int = 0, more: Sequence[MetricWriter] = ()):
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / 'metrics.jsonl'
        rows = [row for row in self.rows() if row['step'] <= resume_at and resume_at]
        self._path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        self._file = self._path.open('a')
        self._board = SummaryWriter(
            str(directory / 'tensorboard'), purge_step=resume_at + 1 if resume_at else None
        )
        self._more = more

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._file.write(json.dumps({'step': step, **scalars}) + '\n')
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        for writer in self._more:
            writer.write_scalars(step, scalars)
        logger.info('step %d: %s', step, ', '.join(f'{k} {v:.4g}' for k, v in scalars.items()))

    def flush(self) -> None:
        self._file.flush()
        self._board.flush()
        for writer in self._more:
            writer.flush()

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far; a line that a kill cut in half is left out."""
        if not self._path.exists():
            return []
        if hasattr(self, '_file') and not self._file.closed:
            self._file.flush()
        return list(_whole_rows(self._path.read_text()))

    def close(self) -> None:
        self.flush()
        self._file.close()
        self._board.close()
        for writer in self._more:
            writer.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _whole_rows(text: str):
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
