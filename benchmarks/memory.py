"""Memory of a step of prompt tuning by XLA's own analysis, without making a single number.

    python benchmarks/memory.py --size t5_1_1_xxl --dtype bfloat16 --remat full

Nothing is allocated: the step is compiled for shapes alone. Parameters of the backbone, what the
step needs beside them at its peak, and the trained half with its optimizer are shown apart. The
analysis is that of the device it is compiled on.
"""

from __future__ import annotations

import argparse
import math
import time

import jax
import jax.numpy as jnp
import measure
from rich.table import Table

from pt2tt_jax import methods, objectives, train
from pt2tt_jax.methods import initialisers
from pt2tt_jax.settings import Tune
from pt2tt_jax.t5 import config as sizes
from pt2tt_jax.t5.network import Transformer
from pt2tt_jax.tuning import Tuned, shapes, split


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--size', default='t5_1_1_xxl')
    parser.add_argument('--batch_size', type=int, default=8)
    parser.add_argument('--length', type=int, default=256, help='input, prompt included')
    parser.add_argument('--target_length', type=int, default=8)
    parser.add_argument('--prompt_length', type=int, default=100)
    parser.add_argument('--population', type=int, default=1)
    parser.add_argument('--dtype', default='bfloat16', help='of the backbone and of activations')
    parser.add_argument('--remat', default='none', choices=sizes.REMAT)
    parser.add_argument('--scan_layers', action='store_true')
    parser.add_argument('--accumulate', type=int, default=1, help='micro-batches of a step')
    return parser.parse_args()


def compiled(args: argparse.Namespace):
    """The compiled step, and the bytes of the backbone and of the training state."""
    config = sizes.size(args.size).replace(
        dtype=args.dtype, remat=args.remat, scan_layers=args.scan_layers
    )
    tuning = methods.prompt(args.prompt_length, init=initialisers.uniform())
    module = Tuned(Transformer(config), tuning)
    half, frozen = split(shapes(module), tuning)
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, args.dtype), frozen)
    members = args.population
    recipe = Tune(batch_size=args.batch_size, steps=100, accumulate=args.accumulate)

    def state(trained):
        problem = train.Problem(
            module, {}, trained, objectives.cross_entropy, lambda _: {}, None, ('m',) * members
        )
        return train.initial_state(problem, recipe)

    stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((members, *x.shape), jnp.float32), half)
    initial = jax.eval_shape(state, stacked)
    of = (members, args.batch_size)
    inputs = jax.ShapeDtypeStruct((*of, args.length), jnp.int32)
    targets = jax.ShapeDtypeStruct((*of, args.target_length), jnp.int32)
    batch = {
        'encoder_input_tokens': inputs,
        'decoder_input_tokens': targets,
        'decoder_target_tokens': targets,
        'decoder_loss_weights': jax.ShapeDtypeStruct(targets.shape, jnp.float32),
    }
    step = train.make_step(module, objectives.cross_entropy, recipe)
    made = step.lower(initial, frozen, batch).compile()
    return made, size(frozen), size(initial)


def size(tree) -> int:
    return sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def main() -> None:
    args = arguments()
    begun = time.perf_counter()
    made, backbone, state = compiled(args)
    seconds = time.perf_counter() - begun
    found = made.memory_analysis()
    made_of = {
        'backbone': backbone,
        'trained half, optimizer, best so far': state,
        'beside them, at the peak': found.temp_size_in_bytes,
    }
    table = Table('', 'GB', box=None)
    for name, count in (*made_of.items(), ('together', sum(made_of.values()))):
        table.add_row(name, f'{count / 1e9:.2f}')
    about = f'{args.size}, batch {args.batch_size} x {args.length}, {args.dtype}'
    about += f', {args.accumulate} micro-batches' if args.accumulate > 1 else ''
    about += f', remat {args.remat}{", scan_layers" * args.scan_layers}'
    table.add_row('seconds to trace and compile', f'{seconds:.0f}')
    measure.show(table, f'{about}, population {args.population}')


if __name__ == '__main__':
    main()
