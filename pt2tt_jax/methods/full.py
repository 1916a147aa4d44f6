"""Fine-tuning of the whole backbone, the baseline that tunes everything."""

from __future__ import annotations

from pt2tt_jax.tuning import Tuning


def full() -> Tuning:
    """Trains every parameter of the backbone."""
    return Tuning(unfreeze=('.*',))
