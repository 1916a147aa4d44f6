"""The command line: `pt2tt demo | run | transfer | tune | eval | predict | tasks | ...`.

Parsing is done before anything heavy is imported, so that `--help` answers at once. Settings are
gin's, with T5X's spelling: `--gin_file=runs/demo.gin --gin.Tune.steps=300`. The plain flags are
short ways to write the most common ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pt2tt_jax import settings as gin_settings
from pt2tt_jax.convert import flags as convert_flags
from pt2tt_jax.errors import UserError

SHORT = {  # flag -> (setting, what it takes)
    'model': ('Model.name', str),
    'task': ('Data.task', str),
    'data_dir': ('Data.data_dir', str),
    'train': ('Data.train', str),
    'validation': ('Data.validation', str),
    'test': ('Data.test', str),
    'fields': ('Data.fields', tuple),
    'label': ('Data.label', str),
    'labels': ('Data.labels', tuple),
    'input_format': ('Data.input_format', str),
    'templates': ('Data.templates', tuple),
    'prepared': ('Data.prepared', str),
    'methods': ('Tune.methods', tuple),
    'seeds': ('Tune.seeds', tuple),
    'source': ('Tune.source', str),
}
COMMANDS = {
    'demo': 'the whole job on a real T5 and texts that come with the package, in minutes',
    'run': 'both stages, evaluation and report on your task',
    'transfer': 'stage 1: learn a source prompt from every template, keep the best',
    'tune': 'stage 2 or a baseline: tune on labels; several tasks, with commas, train together',
    'suite': 'methods x tasks x seeds from one gin file, and one table',
    'methods': 'list the tuning methods, and how many parameters each trains',
    'eval': 'measure saved prompts on a task',
    'predict': 'read texts, write a label and its probability for each',
    'report': 'draw the report of a finished or running folder again',
    'tasks': 'list the known tasks, or show one with real examples',
    'prepare': 'write a task as token ids, to train where its data or TensorFlow is not',
    'search-templates': 'let the model find templates of the format lmbff (LM-BFF) for a task',
    'convert': 'models and soft prompts from and to T5X, Hugging Face, PEFT and numpy',
}
TRAINING = ('demo', 'run', 'transfer', 'tune', 'suite', 'eval')
CONFIGURED = (*TRAINING, 'prepare', 'search-templates', 'methods')  # commands that take settings


def parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    top = argparse.ArgumentParser(
        prog='pt2tt', description=(__doc__ or '').splitlines()[0], allow_abbrev=False
    )
    commands = top.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + '.',
            epilog=_defaults() if name in CONFIGURED else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _ADD[name](command)
        command.add_argument('--verbose', action='store_true', help='log every metric and step')
    return top


def _training_flags(command: argparse.ArgumentParser, out: str = '') -> None:
    for flag, (name, kind) in SHORT.items():
        many = ', separated by commas' if kind is tuple else ''
        command.add_argument(f'--{flag}', metavar='X', help=f'{name}{many}')
    command.add_argument('--gin_file', action='append', default=[], help='may be repeated')
    command.add_argument('--gin_search_paths', default='', help='folders, separated by commas')
    command.add_argument(
        '--gin_bindings', action='append', default=[], help='same as --gin.NAME=VALUE'
    )
    command.add_argument('--out', default=out, required=not out, help='folder for all results')
    command.add_argument(
        '--distributed', action='store_true', help='one of several processes: see docs/multihost.md'
    )


def _demo_flags(command: argparse.ArgumentParser) -> None:
    _training_flags(command, out='pt2tt-demo')


def _eval_flags(command: argparse.ArgumentParser) -> None:
    _training_flags(command)
    command.add_argument('--prompt', nargs='+', required=True, help='saved prompts (.safetensors)')


def _predict_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument('--prompt', required=True, help='a saved prompt (.safetensors)')
    command.add_argument('--text', action='append', help='a text; by default lines of stdin')
    command.add_argument('--model', help='the backbone; by default the one the prompt names')
    command.add_argument('--json', action='store_true', help='one JSON object a line')


def _report_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument('--out', required=True, help='folder of the run')


def _tasks_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        'words', nargs='*', metavar='WORD', help='part of a name to list by, or: show NAME'
    )
    command.add_argument('--data_dir', help='folder with the data sets')
    command.add_argument('--split', default='validation')
    command.add_argument('--count', type=int, default=3, help='examples to show')
    command.add_argument('--input_length', type=int, default=512, help='limit in tokens')
    command.add_argument('--model', default='flan-demo', help='whose vocabulary counts tokens')


def _methods_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument('names', nargs='*', metavar='METHOD', help='by default all of them')
    command.add_argument('--size', default='t5_1_0_base', help='of the backbone')
    command.add_argument('--length', type=int, default=100, help='soft tokens')
    command.add_argument('--num_sources', type=int, default=6, help='source prompts')
    command.add_argument('--num_tasks', type=int, default=1, help='tasks trained together')
    command.add_argument('--gin_file', action='append', default=[], help='may be repeated')
    command.add_argument('--gin_search_paths', default='', help='folders, separated by commas')


def _search_flags(command: argparse.ArgumentParser) -> None:
    _training_flags(command, out='lmbff.json')
    command.add_argument('--shots', type=int, default=16, help='examples of each label')
    command.add_argument('--beams', type=int, default=100, help='hypotheses for each place')
    command.add_argument('--length', type=int, default=20, help='tokens of a template at most')
    command.add_argument('--keep', type=int, default=10, help='templates to keep')
    command.add_argument('--seed', type=int, default=13, help='of the choice of examples')


_ADD = {
    'demo': _demo_flags,
    'run': _training_flags,
    'transfer': _training_flags,
    'tune': _training_flags,
    'suite': _training_flags,
    'methods': _methods_flags,
    'eval': _eval_flags,
    'predict': _predict_flags,
    'report': _report_flags,
    'tasks': _tasks_flags,
    'prepare': _training_flags,
    'search-templates': _search_flags,
    'convert': convert_flags.add,
}


def _defaults() -> str:
    lines = ['settings and defaults, each set by --gin.SECTION.NAME=VALUE or in a gin file:']
    for section in gin_settings.SECTIONS:
        for field in dataclasses.fields(section):
            lines.append(f'  {section.__name__ + "." + field.name:26} {field.default!r}')
    return '\n'.join(lines)


def bindings(args: argparse.Namespace, gin_flags: Sequence[str]) -> list[str]:
    """Gin bindings of the plain flags, then of `--gin.NAME=VALUE`, which win."""
    found = []
    for flag, (name, kind) in SHORT.items():
        value = getattr(args, flag)
        if value is not None:
            found.append(f'{name} = {_literal(name, value, kind)}')
    return found + list(args.gin_bindings) + [flag.removeprefix('--gin.') for flag in gin_flags]


def _literal(name: str, value: str, kind: type) -> str:
    if kind is not tuple:
        return repr(value)
    parts = [part.strip() for part in value.split(',') if part.strip()]
    return repr(tuple(int(p) if name == 'Tune.seeds' and p.isdigit() else p for p in parts))


def load_settings(args: argparse.Namespace, gin_flags: Sequence[str]) -> gin_settings.Settings:
    files = ['runs/demo.gin', *args.gin_file] if args.command == 'demo' else args.gin_file
    paths = [path for path in args.gin_search_paths.split(',') if path]
    return gin_settings.load(files, bindings(args, gin_flags), paths)


def prepare_jax(distributed: bool = False) -> None:
    """A persistent compilation cache, before the first compilation; the other processes, if any.

    Set JAX_COMPILATION_CACHE_DIR to place it elsewhere, or to '' to do without.
    """
    import jax

    from pt2tt_jax import processes

    if distributed or processes.ADDRESS in os.environ:
        processes.join()
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'pt2tt' / 'xla'
        jax.config.update('jax_compilation_cache_dir', str(cache))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _train(args: argparse.Namespace, gin_flags: Sequence[str]) -> None:
    settings = load_settings(args, gin_flags)
    prepare_jax(args.distributed)
    from pt2tt_jax import processes, report, run

    folder = Path(args.out)
    if args.command in ('demo', 'run'):
        results = run.run(settings, folder)
    elif args.command == 'transfer':
        results = run.transfer_only(settings, folder)
    elif args.command == 'tune':
        results = run.tune_only(settings, folder)
    else:
        results = run.evaluate_prompts(settings, folder, [Path(p) for p in args.prompt])
    if not processes.first():
        return
    several = {args.out: results} if 'settings' in results else results  # tasks trained together
    for one in several.values():
        print(report.summary(one))
    page = 'report.html' if 'settings' in results else '*/report.html'
    print(f'Everything is in {folder}; open {folder / page}.')


def _suite(args: argparse.Namespace, gin_flags: Sequence[str]) -> None:
    prepare_jax()
    from pt2tt_jax import suite

    folder = Path(args.out)
    paths = [path for path in args.gin_search_paths.split(',') if path]
    chosen = gin_settings.load_suite(args.gin_file, bindings(args, gin_flags), paths)
    table = suite.run_suite(*chosen, folder)
    print(suite.grid.markdown(table))
    print(f'Everything is in {folder}; open {folder / "suite.html"}.')


def _methods(args: argparse.Namespace, gin_flags: Sequence[str]) -> None:
    from pt2tt_jax import inventory

    paths = [path for path in args.gin_search_paths.split(',') if path]
    given = [flag.removeprefix('--gin.') for flag in gin_flags]
    settings = gin_settings.load(args.gin_file, given, paths)
    print(
        inventory.table(
            args.size,
            args.names,
            length=args.length,
            sources=args.num_sources,
            tasks=args.num_tasks,
            options=settings.options,
        )
    )


def _predict(args: argparse.Namespace, _: Sequence[str]) -> None:
    prepare_jax()
    from pt2tt_jax import predict

    texts = args.text or [line.rstrip('\n') for line in sys.stdin]
    for line in predict.lines(Path(args.prompt), texts, model=args.model, as_json=args.json):
        print(line)


def _report(args: argparse.Namespace, _: Sequence[str]) -> None:
    from pt2tt_jax import report

    for path in report.write(Path(args.out)).values():
        print(path)


def _tasks(args: argparse.Namespace, _: Sequence[str]) -> None:
    from pt2tt_jax.tasks import catalogue

    if args.words[:1] != ['show']:
        print(catalogue.table(args.data_dir, *args.words[:1]))
        return
    if len(args.words) != 2:
        raise UserError('Say which one task to show, for example: pt2tt tasks show boolq_raw.')
    from pt2tt_jax import backbone

    print(
        catalogue.show(
            args.words[1],
            backbone.vocabulary_of(args.model),
            args.data_dir,
            args.split,
            args.count,
            args.input_length,
        )
    )


def _prepare(args: argparse.Namespace, gin_flags: Sequence[str]) -> None:
    settings = load_settings(args, gin_flags)
    from pt2tt_jax import run

    sizes = run.prepare(settings, Path(args.out))
    print(f'{args.out}: {", ".join(f"{count} {split}" for split, count in sizes.items())}.')


def _search(args: argparse.Namespace, gin_flags: Sequence[str]) -> None:
    settings = load_settings(args, gin_flags)
    prepare_jax()
    from pt2tt_jax import backbone, lmbff

    how = lmbff.Search(args.shots, args.beams, args.length, args.keep, args.seed)
    model = settings.model
    loaded = backbone.load(model.name, model.dtype, model.param_dtype)
    print(lmbff.command(settings.data, loaded, how, Path(args.out)))


def _convert(args: argparse.Namespace, _: Sequence[str]) -> None:
    prepare_jax()
    print(convert_flags.run(args))


_RUN = {**dict.fromkeys(TRAINING, _train), 'predict': _predict, 'report': _report} | {
    'tasks': _tasks,
    'suite': _suite,
    'methods': _methods,
    'prepare': _prepare,
    'search-templates': _search,
    'convert': _convert,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `pt2tt` command; exits with 2 where the user has to mend something."""
    args, rest = parser().parse_known_args(argv)
    gin_flags = [flag for flag in rest if flag.startswith('--gin.') and '=' in flag]
    unknown = [flag for flag in rest if flag not in gin_flags]
    logging.basicConfig(format='%(message)s', level=logging.WARNING)
    logging.getLogger('pt2tt').setLevel(logging.INFO if args.verbose else logging.WARNING)
    started = time.monotonic()
    try:
        if unknown or (gin_flags and args.command not in CONFIGURED):
            raise UserError(
                f'Unknown argument {(unknown or gin_flags)[0]!r}; see pt2tt {args.command} --help. '
                'Settings are written --gin.NAME=VALUE.'
            )
        _RUN[args.command](args, gin_flags)
    except UserError as error:
        print(f'pt2tt: {error}', file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, mostly; what is on it stays
        print(
            f'pt2tt: {error}. Mend that and start the same command again; it goes on from the '
            'last checkpoint.',
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        again = '; the same command goes on from the last checkpoint'
        print(f'pt2tt: interrupted{again if args.command in TRAINING else ""}.', file=sys.stderr)
        sys.exit(130)
    if args.command in TRAINING:
        print(f'Done in {time.monotonic() - started:.0f} s.', file=sys.stderr)


if __name__ == '__main__':
    main()
