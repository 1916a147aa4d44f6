"""The training loop on a model of a few hundred numbers: optimizers, populations, resuming.

Run as a script, this file trains in a process of its own, which may kill itself on the way.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from pt2tt_jax import objectives, train
from pt2tt_jax.checkpoints import Checkpoints
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Shuffled
from pt2tt_jax.settings import Recipe
from pt2tt_jax.tuning import merge

ROWS, LENGTH, VOCABULARY, EMBED = 24, 5, 11, 4


class Toy(nn.Module):
    """Logits from the mean of a frozen embedding, moved by a trained prompt; called like a T5."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs, decoder_inputs, targets, *, enable_dropout, **_):
        normal = nn.initializers.normal(1.0)
        table = self.param('table', normal, (VOCABULARY, EMBED))
        prompt = self.param('prompt', normal, (3, EMBED))
        x = jnp.tanh(table[inputs].mean(axis=1, keepdims=True) + prompt.sum(axis=0))
        x = nn.Dropout(self.dropout, deterministic=not enable_dropout)(x * table[decoder_inputs])
        return x @ table.T


def data() -> dict[str, np.ndarray]:
    """Rows whose target tokens count differently."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.integers(1, VOCABULARY, (2, ROWS, LENGTH)).astype(np.int32)
    return {
        'encoder_input_tokens': inputs,
        'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        'decoder_target_tokens': targets,
        'decoder_loss_weights': rng.integers(0, 3, targets.shape).astype(np.float32),
    }


def prompts(members: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(members, 3, EMBED)).astype(np.float32)


def make_problem(
    starts: np.ndarray, recipe: Recipe, *, dropout: float = 0.0, stop=None, evaluate=True
) -> train.Problem:
    """Members that start at `starts`; `stop(step)` is called before each batch."""
    module, rows = Toy(dropout), data()
    tokens = rows['encoder_input_tokens'][:1]
    params = module.init(jax.random.key(0), tokens, tokens, tokens, enable_dropout=False)['params']
    frozen = {'table': params['table']}
    orders = [Shuffled(ROWS, recipe.batch_size, seed) for seed in range(len(starts))]

    def batches(step):
        if stop:
            stop(step)
        return {k: np.stack([v[order(step)] for order in orders]) for k, v in rows.items()}

    @jax.jit
    def nats(trained):
        total, weight = objectives.cross_entropy(
            objectives.forward(module, merge(trained, frozen), rows), rows
        )
        return total / weight

    def scores(trained):
        return [{'score': -float(n), 'nats': float(n)} for n in jax.vmap(nats)(trained)]

    return train.Problem(
        module=module,
        frozen=frozen,
        trained={'prompt': jnp.asarray(starts)},
        objective=objectives.cross_entropy,
        batches=batches,
        evaluate=scores if evaluate else None,
        names=tuple(f'm{i}' for i in range(len(starts))),
        seed=3,
    )


RECIPE = Recipe(steps=10, batch_size=8, learning_rate=0.1, eval_every=3, checkpoint_every=2)


def fit(folder: Path, recipe: Recipe = RECIPE, members: int = 2, **options) -> train.Fitted:
    return train.fit(make_problem(prompts(members), recipe, **options), recipe, folder)


def same_bits(one: train.Fitted, other: train.Fitted) -> bool:
    return (
        one.trained['prompt'].tobytes() == other.trained['prompt'].tobytes()
        and one.steps.tolist() == other.steps.tolist()
        and one.curves == other.curves
    )


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> train.Fitted:
    """A run that nothing interrupts, with dropout."""
    return fit(tmp_path_factory.mktemp('whole'), dropout=0.3)


# Recipes


@pytest.mark.parametrize(
    ('schedule', 'warmup', 'expected'),
    [
        ('constant', 0, [1, 1, 1, 1, 1]),
        ('linear', 0, [1, 0.75, 0.5, 0.25, 0]),
        ('cosine', 0, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
        ('constant', 4, [0, 0.5, 1, 1, 1]),
        ('linear', 4, [0, 0.5, 1, 0.5, 0]),
    ],
)
def test_schedules(schedule, warmup, expected):
    """Values at steps 0, 2, 4, 6 and 8 of 8, as shares of the peak."""
    recipe = Recipe(steps=8, learning_rate=0.5, schedule=schedule, warmup_steps=warmup)
    found = [float(train.schedule(recipe)(step)) for step in range(0, 9, 2)]
    np.testing.assert_allclose(found, 0.5 * np.array(expected), atol=1e-6)


PLAIN = {
    'adamw': optax.adamw(0.1, weight_decay=0.01),
    'adafactor': optax.adafactor(
        0.1, multiply_by_parameter_scale=False, decay_rate=0.8, weight_decay_rate=0.01
    ),
    'clipped': optax.chain(optax.clip_by_global_norm(0.05), optax.adamw(0.1, weight_decay=0.01)),
}


@pytest.mark.parametrize('name', PLAIN)
def test_loop_is_that_of_plain_optax(tmp_path, name):
    optimizer = 'adafactor' if name == 'adafactor' else 'adamw'
    clip = 0.05 if name == 'clipped' else 0.0
    recipe = dataclasses.replace(
        RECIPE, optimizer=optimizer, weight_decay=0.01, clip=clip, schedule='constant', keep='last'
    )
    fitted = fit(tmp_path, recipe, members=1)
    problem = make_problem(prompts(1), recipe)

    @jax.jit
    def update(prompt, state, batch):
        def loss(prompt):
            params = {'prompt': prompt, **problem.frozen}
            total, weight = objectives.cross_entropy(
                objectives.forward(problem.module, params, batch), batch
            )
            return total / weight

        updates, state = PLAIN[name].update(jax.grad(loss)(prompt), state, prompt)
        return optax.apply_updates(prompt, updates), state

    prompt = jnp.asarray(prompts(1)[0])
    state = PLAIN[name].init(prompt)
    for step in range(recipe.steps):
        batch = {key: value[0] for key, value in problem.batches(step).items()}
        prompt, state = update(prompt, state, batch)
    np.testing.assert_allclose(fitted.trained['prompt'][0], prompt, atol=1e-5)
    assert not np.allclose(prompt, prompts(1)[0], atol=0.1)


def test_accumulation_equals_the_whole_batch(tmp_path):
    """Also where the micro-batches have different numbers of target tokens."""
    one, two, eight = (
        fit(tmp_path / str(n), dataclasses.replace(RECIPE, accumulate=n)).trained['prompt']
        for n in (1, 2, 8)
    )
    np.testing.assert_allclose(one, two, atol=1e-5)
    np.testing.assert_allclose(one, eight, atol=1e-5)


def test_micro_batches_drop_different_units(tmp_path):
    """Equal rows, dropped alike, would have the gradient of one row."""
    recipe = dataclasses.replace(RECIPE, batch_size=2, accumulate=2, steps=1, keep='last')
    rows = {k: np.repeat(v[None, :1], 2, axis=1) for k, v in data().items()}

    def norms(accumulate):
        problem = make_problem(prompts(1), recipe, dropout=0.5, evaluate=False)
        step = train.make_step(
            problem.module, problem.objective, dataclasses.replace(recipe, accumulate=accumulate)
        )
        batch = rows if accumulate == 2 else {k: v[:, :1] for k, v in rows.items()}
        state = train.initial_state(problem, recipe)
        return float(step(state, problem.frozen, batch)[1]['gradient_norm'][0])

    assert norms(2) != pytest.approx(norms(1), rel=1e-3)


def test_a_population_is_its_members(tmp_path):
    together = fit(tmp_path / 'both', members=2)
    problem = make_problem(prompts(2), RECIPE)
    for member in (0, 1):
        alone = dataclasses.replace(
            problem,
            trained=jax.tree.map(lambda leaf, m=member: leaf[m : m + 1], problem.trained),
            batches=lambda step, m=member: {
                k: v[m : m + 1] for k, v in problem.batches(step).items()
            },
            names=(f'm{member}',),
        )
        single = train.fit(alone, RECIPE, tmp_path / str(member))
        np.testing.assert_allclose(
            together.trained['prompt'][member], single.trained['prompt'][0], atol=1e-6
        )
        assert together.steps[member] == single.steps[0]


def test_a_problem_can_be_fitted_twice(tmp_path):
    problem = make_problem(prompts(1), RECIPE)
    first = train.fit(problem, RECIPE, tmp_path / 'a')
    assert same_bits(first, train.fit(problem, RECIPE, tmp_path / 'b'))


# What is kept


def scripted(scores):
    """An evaluation that gives one row of `scores` a call."""
    rows = iter(scores)
    return lambda trained: [{'score': score} for score in next(rows)]


def test_each_member_keeps_its_best_step(tmp_path):
    """Evaluations at steps 0, 3, 6, 9 and 10; NaN and ties do not replace what is kept."""
    recipe = dataclasses.replace(RECIPE, schedule='constant')
    nan = float('nan')
    scores = [(0.0, 0.1), (0.5, nan), (0.7, 0.4), (0.7, 0.3), (0.1, 0.2)]
    problem = dataclasses.replace(make_problem(prompts(2), recipe), evaluate=scripted(scores))
    fitted = train.fit(problem, recipe, tmp_path / 'best')
    assert fitted.steps.tolist() == [6, 6]
    assert [row['step'] for row in fitted.curves] == [0, 3, 6, 9, 10]
    until_6 = dataclasses.replace(recipe, steps=6, keep='last')
    last = train.fit(make_problem(prompts(2), recipe), until_6, tmp_path / 'last')
    assert last.steps.tolist() == [6, 6]
    np.testing.assert_array_equal(fitted.trained['prompt'], last.trained['prompt'])


def test_members_keep_different_steps(tmp_path):
    scores = [(0.0, 1.0), (0.5, 0.1), (0.2, 0.1), (0.2, 0.1), (0.1, 0.1)]
    problem = dataclasses.replace(make_problem(prompts(2), RECIPE), evaluate=scripted(scores))
    fitted = train.fit(problem, RECIPE, tmp_path)
    assert fitted.steps.tolist() == [3, 0]
    np.testing.assert_array_equal(fitted.trained['prompt'][1], prompts(2)[1])


def test_metrics_name_their_member(tmp_path):
    fitted = fit(tmp_path)
    assert set(fitted.curves[0]) == {
        'step',
        *(f'{n}/m{i}' for n in ('score', 'nats') for i in '01'),
    }
    assert {'loss/m0', 'gradient_norm/m1'} <= set(fitted.curves[1])
    assert fitted.curves[-1]['nats/m0'] < fitted.curves[0]['nats/m0']


# Interruptions


class Interruption(Exception):
    pass


def interrupted_at(step: int):
    def stop(number):
        if number == step:
            raise Interruption

    return stop


@pytest.mark.parametrize('step', [1, 6])
def test_resumed_training_ends_with_the_same_bits(tmp_path, whole, step):
    """Interrupted before the first checkpoint, and just after one that is no evaluation."""
    with pytest.raises(Interruption):
        fit(tmp_path, dropout=0.3, stop=interrupted_at(step))
    assert same_bits(whole, fit(tmp_path, dropout=0.3))
    assert same_bits(whole, fit(tmp_path, dropout=0.3, stop=interrupted_at(0)))  # only read back


def run_in_process(folder: Path, kill_at: int = -1) -> int:
    command = [sys.executable, __file__, str(folder), str(kill_at)]
    return subprocess.run(command, check=False, timeout=120).returncode


def test_killed_training_ends_with_the_same_bits(tmp_path, whole):
    assert run_in_process(tmp_path, kill_at=7) == -signal.SIGKILL
    assert run_in_process(tmp_path) == 0
    assert (tmp_path / 'prompts').read_bytes() == whole.trained['prompt'].tobytes()
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in lines] == whole.curves


def test_a_line_cut_in_half_is_dropped(tmp_path, whole):
    with pytest.raises(Interruption):
        fit(tmp_path, dropout=0.3, stop=interrupted_at(7))
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 9, "loss/m0": 0.')
    assert same_bits(whole, fit(tmp_path, dropout=0.3))


# Checkpoints


def newest(folder: Path) -> Path:
    steps = [path for path in (folder / 'checkpoints').iterdir() if path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name))


def test_a_damaged_checkpoint_is_named(tmp_path, whole):
    """And removing it, as the message says, goes on from the one before."""
    with pytest.raises(Interruption):
        fit(tmp_path, dropout=0.3, stop=interrupted_at(7))
    damaged = newest(tmp_path)
    assert damaged.name == '6'
    for file in (path for path in damaged.rglob('*') if path.is_file()):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=rf'{damaged} .* Remove that folder') as raised:
        fit(tmp_path, dropout=0.3)
    assert '\n' not in str(raised.value)
    shutil.rmtree(damaged)
    assert same_bits(whole, fit(tmp_path, dropout=0.3))


def test_a_checkpoint_of_another_run_is_named(tmp_path):
    fit(tmp_path, dataclasses.replace(RECIPE, steps=1), members=2)
    with pytest.raises(
        UserError, match=r'another run \(best/prompt: \(2, 3, 4\) there, \(3, 3, 4\)'
    ):
        fit(tmp_path, members=3)


def test_checkpoints_of_a_prompt_for_t5_base_are_small(tmp_path):
    """100 tokens with both moments of AdamW and the best so far: below 2 MB."""
    problem = dataclasses.replace(
        make_problem(prompts(1), RECIPE), trained={'prompt': jnp.ones((1, 100, 768))}
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, train.initial_state(problem, RECIPE))
    assert sum(path.stat().st_size for path in tmp_path.rglob('*') if path.is_file()) < 2e6


def main(folder: str, kill_at: str) -> None:
    def stop(step):
        if step == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    fitted = fit(Path(folder), dropout=0.3, stop=stop)
    (Path(folder) / 'prompts').write_bytes(fitted.trained['prompt'].tobytes())


if __name__ == '__main__':
    main(*sys.argv[1:])
