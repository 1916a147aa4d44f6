"""Tuning methods, one a file, named as in their papers."""

from pt2tt_jax.methods.full import full
from pt2tt_jax.methods.prompt import prompt
from pt2tt_jax.methods.pt2tt import pt2tt

__all__ = ['full', 'prompt', 'pt2tt']
