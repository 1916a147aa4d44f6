"""Prompt Tuning via Pre-training Task Template Transfer for T5, in JAX and Flax.

    from pt2tt_jax import run, settings
    results = run.run(settings.load(['runs/demo.gin']), Path('pt2tt-demo'))

    t5          the frozen backbone: sizes, network, decoding, checkpoints
    backbone    a backbone by name, with its vocabulary
    tuning      what is tuned, and where; read this first
    methods     one tuning method a file
    features    texts as token ids and virtual tokens
    objectives  cross entropy, divergence from a template teacher
    packing     several examples in a row, and the shapes of a whole run
    populations parts of a population, where memory ends
    train       the loop: a population of trained halves before one frozen backbone
    optimizers  learning rates and optimizers of a recipe
    teacher     the frozen model on templated text, asked once; `answers` keeps what it says
    transfer    stage 1: a prompt for every template, and the choice among them
    tune        stage 2, and every baseline
    evaluate    label scoring, decoding, majority class
    saved       prompt files that say what they fit
    data        a task, read, formatted and tokenised (texts: `pt2tt_jax.tasks`)
    job         a run before it starts: settings checked, backbone and data loaded
    run         the whole job; `report` draws it, `predict` uses what it made
    multitask   tasks that train together
    distill     MPT's loss and training from several teachers; `source_stage` is the whole run
    suite       methods x tasks x seeds, and one table
    inventory   what each method trains, counted
    memory      what a step takes of each device; `devices` describes those that are not here
    settings    every setting from gin; `sections` has names and defaults, `meanings` what they
                mean, `given` what is wrong with them
    files       what is written: whole, or not at all
    convert     models and prompts from and to T5X, Hugging Face, PEFT and numpy
    t5x         what `t5x.train` needs; `bindings` and `held` are the parts that need no T5X
    cli         the `pt2tt` command

Submodules are loaded when first used; none but `t5x` and `bindings` imports TensorFlow.
"""

from __future__ import annotations

import importlib.util


def __getattr__(name: str):
    if not name.startswith('_') and importlib.util.find_spec(f'{__name__}.{name}'):
        return importlib.import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
