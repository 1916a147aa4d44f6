"""Several examples in one row: nothing lost, nothing mixed, the same training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pt2tt_jax import answers, features, methods, objectives, teacher, tune
from pt2tt_jax.errors import UserError
from pt2tt_jax.objectives import TeacherLogits
from pt2tt_jax.packing import Item, Packer
from pt2tt_jax.settings import Transfer, Tune

RNG = np.random.default_rng(0)


def items(count: int, prompt: int = 5) -> list[Item]:
    """Random texts behind virtual tokens; no two alike."""
    made = []
    for number in range(count):
        text = RNG.integers(3, 90, RNG.integers(1, 20))
        inputs = np.concatenate([np.arange(100, 100 + prompt), text, [1]]).astype(np.int32)
        targets = np.array([*RNG.integers(3, 90, RNG.integers(0, 3)), 1], np.int32)
        answer = RNG.normal(size=(len(targets), 2)).astype(np.float32)
        made.append(Item(inputs, targets, 1.0 + number, {'teacher': answer}))
    return made


def unpacked(batch: dict) -> list[tuple]:
    """The examples of a packed batch, told apart by their segments alone."""
    found = []
    for row in range(len(batch['encoder_input_tokens'])):
        read, written = (batch[f'{side}_segment_ids'][row] for side in ('encoder', 'decoder'))
        for segment in range(1, read.max() + 1):
            mine, said = read == segment, written == segment
            found.append(
                (
                    tuple(batch['encoder_input_tokens'][row][mine]),
                    tuple(batch['decoder_target_tokens'][row][said]),
                    tuple(batch['decoder_input_tokens'][row][said]),
                    tuple(batch['decoder_loss_weights'][row][said]),
                    batch['teacher'][row][said].tobytes(),
                )
            )
    return found


@pytest.mark.parametrize('prompt', [0, 5, 40])
def test_every_example_is_there_whole(prompt):
    data = [items(30, prompt), items(30, prompt)]
    orders = [features.Shuffled(30, 6, seed) for seed in (0, 1)]
    packer = Packer(lambda m, row: data[m][row], orders, (prompt + 21, 3), steps=40)
    for step in range(40):
        batch = packer(step)
        for member, order in enumerate(orders):
            one = {name: value[member] for name, value in batch.items()}
            expected = []
            for row in order(step):
                item = data[member][row]
                shifted = (0, *item.targets[:-1])
                weights = (item.weight,) * len(item.targets)
                answer = item.answers['teacher'].tobytes()
                expected.append((tuple(item.inputs), tuple(item.targets), shifted, weights, answer))
            assert sorted(unpacked(one)) == sorted(expected)


def test_few_shapes_and_less_padding():
    """Over a run of examples as long as those of SST-2."""
    lengths = np.clip(RNG.lognormal(2.2, 0.8, 4000).astype(int), 2, 60)
    data = [Item(np.full(20 + n, 7, np.int32), np.array([5, 1], np.int32)) for n in lengths]
    order = features.Shuffled(4000, 8, 0)
    read = lambda _, row: data[row]
    packed = Packer(read, [order], (80, 2), steps=300)
    apart = Packer(read, [order], (80, 2), steps=300, packed=False)
    shapes = [packed(step)['encoder_input_tokens'].shape for step in range(300)]
    plain = [apart(step)['encoder_input_tokens'].shape for step in range(300)]
    assert len(set(shapes)) <= 4
    assert sum(map(np.prod, shapes)) < 0.8 * sum(map(np.prod, plain))


def test_rows_divide_among_devices():
    data = items(20)
    orders = [features.Shuffled(20, 8, 0)]
    packer = Packer(lambda _, row: data[row], orders, (26, 3), steps=30, multiple=4)
    assert all(packer(step)['encoder_input_tokens'].shape[1] % 4 == 0 for step in range(30))


def test_a_batch_that_the_plan_did_not_foresee():
    """A plan looks at some steps; the longest example may come in another."""
    data = [Item(np.full(10, 7, np.int32), np.array([5, 1], np.int32))] * 8
    long = Item(np.full(33, 7, np.int32), np.full(9, 5, np.int32))
    order = lambda step: np.arange(8)
    read = lambda _, row: long if strange else data[row]
    strange = False
    packer = Packer(read, [order], (33, 9), steps=5)
    strange = True
    batch = packer(3)
    assert (batch['encoder_input_tokens'] > 0).sum() == 8 * 33
    assert (batch['decoder_target_tokens'] > 0).sum() == 8 * 9


# What is trained


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ('lora', 'prefix')]


@pytest.mark.parametrize('method', ['prompt', 'attempt', *SLOW])
@pytest.mark.parametrize('accumulate', [1, 2])
def test_packed_training_is_the_same(toy_backbone, toy_vocabulary, tmp_path, method, accumulate):
    rng = np.random.default_rng(1)
    texts = [rng.integers(3, 90, n).astype(np.int32) for n in rng.integers(2, 12, 24)]
    ends = [np.append(text, 1) for text in texts]
    targets = [np.array([96 + i % 2, 1], np.int32) for i in range(24)]
    split = features.Encoded(ends, targets, np.arange(24) % 2, 4)
    known = {
        'length': 4,
        'config': toy_backbone.config,
        'sources': {'a': rng.normal(size=(4, 16)).astype(np.float32)},
    }
    chosen = methods.build(method, known)
    exam = tune.Exam(split, None)
    recipe = Tune(steps=3, batch_size=8, learning_rate=0.01, seeds=(0, 1), keep='last')
    recipe = dataclasses.replace(recipe, accumulate=accumulate, eval_every=3)

    def trained(packing: bool):
        settings = dataclasses.replace(recipe, packing=packing)
        folder = tmp_path / str(packing)
        learned, _ = tune.tune(toy_backbone, chosen, split, [exam], settings, folder, method=method)
        return learned[1].trained

    apart, together = trained(False), trained(True)
    for path, leaf in apart.items():
        np.testing.assert_allclose(together[path], leaf, atol=2e-4, err_msg=path)


# The teacher's answers


def test_answers_are_asked_for_once(toy_backbone, toy_vocabulary, tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    texts = [np.append(rng.integers(3, 90, 5), 1).astype(np.int32) for _ in range(40)]
    targets = [np.append(rng.integers(3, 90, i % 3), 1).astype(np.int32) for i in range(40)]
    student = features.Encoded(texts, targets, np.zeros(40, int), 4)
    lesson = teacher.Lesson(student, {'same': student})
    settings = Transfer(top_k=7)
    one = teacher.Teacher(toy_backbone, settings, features.BARE, tmp_path)
    rows = np.arange(3, 40)
    taught = one.teach(lesson, rows, '')
    for row in (3, 17, 39):  # against the live teacher, each example alone
        alone = features.batch(student, [row])
        live = objectives.forward(toy_backbone.module, toy_backbone.params, alone)[0]
        kept = objectives.compress(live[: len(targets[row])], 7)
        found = taught.item(0, row).answers
        np.testing.assert_array_equal(found['teacher_ids'], kept.ids)
        np.testing.assert_allclose(found['teacher_log_probs'], kept.log_probs, atol=1e-5)
        np.testing.assert_allclose(found['teacher_rest'], kept.log_rest, atol=1e-4)
    monkeypatch.setattr(teacher, '_teach', None)  # whoever asks again fails
    again = one.teach(lesson, rows, '')
    np.testing.assert_array_equal(
        again.item(0, 9).answers['teacher_ids'], taught.item(0, 9).answers['teacher_ids']
    )
    other = dataclasses.replace(one, settings=Transfer(top_k=8))
    with pytest.raises(TypeError):
        other.teach(lesson, rows, '')


def test_interrupted_answers_are_made_again(tmp_path):
    folder = tmp_path / 'one'
    answer = TeacherLogits(np.ones((2, 3)), np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(KeyboardInterrupt), answers.open_answers(folder, [2, 1], 3, 100) as store:
        store.put(0, answer)
        raise KeyboardInterrupt
    assert answers.read_answers(folder) is None
    with answers.open_answers(folder, [2, 1], 3, 100) as store:
        store.put(1, answer)
        store.put(0, answer)
    known = answers.read_answers(folder)
    assert known is not None
    assert known[0].ids.shape == (2, 3)
    assert known[1].ids.tolist() == [[1, 1, 1]]
    (folder / 'ids.npy').write_bytes(b'damaged')
    with pytest.raises(UserError, match='remove that folder'):
        answers.read_answers(folder)


@pytest.mark.parametrize('change', ['inputs', 'targets', 'backbone', 'order'])
def test_keys_tell_everything_apart(change):
    about, ids = ('f', 'float32', 5), [np.array([1, 2]), np.array([3])]
    other = {
        'inputs': (about, [np.array([1, 4]), ids[1]]),
        'targets': (about, [np.array([1]), np.array([2, 3])]),
        'backbone': (('g', 'float32', 5), ids),
        'order': (about, ids[::-1]),
    }[change]
    assert answers.key_of(about, ids) != answers.key_of(*other)
    assert answers.key_of(about, ids) == answers.key_of(about, [one.copy() for one in ids])
