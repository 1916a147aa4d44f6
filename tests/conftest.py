"""Toy backbones, vocabulary and texts that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# Toy models spend their time in the compiler: half of it goes without LLVM's optimisations, and
# what was compiled once is kept. In the environment, so that processes of tests inherit it.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
_CACHE = Path(__file__).parents[1] / '.pytest_cache' / 'xla'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')

import jax
import numpy as np
import pytest

from pt2tt_jax import backbone as backbones
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.t5.config import T5Config
from pt2tt_jax.t5.vocabulary import Vocabulary

WORDS = (*(f'w{i}' for i in range(93)), 'good', 'bad', 'is', 'it')


def make_config(version: str) -> T5Config:
    """Two layers of width 16 around 100 tokens."""
    gated = {'mlp_activations': ('gelu', 'linear'), 'logits_via_embedding': False}
    return T5Config(
        vocab_size=100,
        emb_dim=16,
        num_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=2,
        head_dim=8,
        mlp_dim=32,
        **(gated if version == '1.1' else {}),
    )


def make_vocabulary() -> Vocabulary:
    """One id a word; words that it does not know are <unk>."""
    pieces = ('<pad>', '</s>', '<unk>', *WORDS)
    ids = {piece: i for i, piece in enumerate(pieces)}

    def encode(texts: list[str]) -> list[list[int]]:
        return [[ids.get(word, 2) for word in text.split()] for text in texts]

    def decode(known: list[int]) -> str:
        return ' '.join(pieces[i] for i in known)

    return Vocabulary(pieces, 'toy', encode, decode)


@pytest.fixture(scope='session')
def toy_config() -> Callable[[str], T5Config]:
    """Version -> configuration."""
    return make_config


@pytest.fixture(scope='session')
def toy_vocabulary() -> Vocabulary:
    return make_vocabulary()


@pytest.fixture(scope='session')
def make_backbone(toy_vocabulary) -> Callable[..., Backbone]:
    """Version and seed -> a backbone whose outputs depend on its inputs visibly."""

    def make(version: str = '1.1', seed: int = 0) -> Backbone:
        config = make_config(version)
        params = backbones.random_params(config, seed=seed)
        lively = jax.tree_util.tree_map_with_path(_lively, params)
        return Backbone.from_parts(f'toy-{version}', config, lively, toy_vocabulary)

    return make


def _lively(path, leaf):
    """Random T5s hardly react to their input; larger outputs of the layers change that."""
    return leaf * 3 if path[-2].key in ('out', 'wo', 'logits_dense') else leaf


@pytest.fixture(scope='session')
def toy_backbone(make_backbone) -> Backbone:
    return make_backbone('1.1')


@pytest.fixture(scope='session')
def toy_batch() -> dict[str, np.ndarray]:
    """T5X's features: rows of unequal length, without virtual tokens."""
    inputs = np.array([[5, 6, 7, 8, 9, 1], [10, 11, 1, 0, 0, 0], [12, 1, 0, 0, 0, 0]], np.int32)
    targets = np.array([[20, 21, 22, 1], [23, 24, 1, 0], [27, 1, 0, 0]], np.int32)
    return {
        'encoder_input_tokens': inputs,
        'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        'decoder_target_tokens': targets,
        'decoder_loss_weights': (targets > 0).astype(np.float32),
    }
