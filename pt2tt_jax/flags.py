"""The flags of the `pt2tt` command, and the gin bindings that they stand for.

Free of everything heavy: parsing is done before anything else is imported, so that `--help`
answers at once. The plain flags are short ways to write the most common settings.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from pt2tt_jax import settings as gin_settings
from pt2tt_jax.convert import flags as convert_flags

DESCRIPTION = (
    'The command line: `pt2tt demo | run | transfer | tune | eval | predict | tasks | ...`.'
)
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
    'sources': ('Tune.sources', tuple),
}
COMMANDS = {
    'demo': 'the whole job on a real T5 and texts that come with the package, in minutes',
    'run': 'both stages, evaluation and report on your task',
    'transfer': 'stage 1: learn a source prompt from every template, keep the best',
    'tune': 'stage 2 or a baseline: tune on labels; several tasks, with commas, train together',
    'distill': 'source stage of MPT: one student for several tasks, from a saved prompt of each',
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
TRAINING = ('demo', 'run', 'transfer', 'tune', 'distill', 'suite', 'eval')
CONFIGURED = (*TRAINING, 'prepare', 'search-templates', 'methods')  # commands that take settings


def parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    top = argparse.ArgumentParser(prog='pt2tt', description=DESCRIPTION, allow_abbrev=False)
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


def _settings_flags(
    command: argparse.ArgumentParser, out: str = '', what: str = 'folder for all results'
) -> None:
    for flag, (name, kind) in SHORT.items():
        many = ', separated by commas' if kind is tuple else ''
        command.add_argument(f'--{flag}', metavar='X', help=f'{name}{many}')
    command.add_argument('--gin_file', action='append', default=[], help='may be repeated')
    command.add_argument('--gin_search_paths', default='', help='folders, separated by commas')
    command.add_argument(
        '--gin_bindings', action='append', default=[], help='same as --gin.NAME=VALUE'
    )
    command.add_argument('--out', default=out, required=not out, help=what)


def _training_flags(command: argparse.ArgumentParser, out: str = '') -> None:
    _settings_flags(command, out)
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
    command.add_argument('--out', required=True, help='folder of one run')


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


def _prepare_flags(command: argparse.ArgumentParser) -> None:
    _settings_flags(command, what='folder to write')


def _search_flags(command: argparse.ArgumentParser) -> None:
    _settings_flags(command, 'lmbff.json', 'file to write; default lmbff.json')
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
    'distill': _training_flags,
    'suite': _training_flags,
    'methods': _methods_flags,
    'eval': _eval_flags,
    'predict': _predict_flags,
    'report': _report_flags,
    'tasks': _tasks_flags,
    'prepare': _prepare_flags,
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
    return found + list(args.gin_bindings) + bound(gin_flags)


def bound(gin_flags: Sequence[str]) -> list[str]:
    """The bindings of `--gin.NAME=VALUE`."""
    return [flag.removeprefix('--gin.') for flag in gin_flags]


def search_paths(args: argparse.Namespace) -> list[str]:
    """The folders of `--gin_search_paths`."""
    return [path for path in args.gin_search_paths.split(',') if path]


def _literal(name: str, value: str, kind: type) -> str:
    if kind is not tuple:
        return repr(value)
    parts = [part.strip() for part in value.split(',') if part.strip()]
    return repr(tuple(int(p) if name == 'Tune.seeds' and p.isdigit() else p for p in parts))
