"""The report of a run: `results.json` as a page, a picture, Markdown and CSV.

Free of JAX and TensorFlow. A run that was stopped half-way has a report too, which names what is
missing. Scores are shares from 0 to 1 in report.csv, as in results.json, and per cent elsewhere.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pt2tt_jax.errors import UserError
from pt2tt_jax.report import plots
from pt2tt_jax.report.numbers import DIVERGED, by_value, number, percent
from pt2tt_jax.report.rows import (
    Results,
    Row,
    compare,
    findings,
    headline,
    method_name,
    missing,
)

__all__ = ['Row', 'compare', 'summary', 'write']

TEMPLATE = Path(__file__).with_name('report.html.jinja')
OBJECTS = ('machine', 'settings', 'backbone', 'data', 'zero_shot', 'transfer', 'tuned', 'seconds')
SHARES = {
    'accuracy': 'accuracy, %',
    'decoded_accuracy': 'decoded, %',
    'macro_f1': 'macro F1, %',
    'majority': 'majority, %',
}
GROUPS = {
    'guessing': 'Guessing',
    'zero-shot': 'Frozen model, no training',
    'stage 1': 'Stage 1 alone: source prompt and bare text',
    'tuned': 'Tuned on labels',
}
LEGEND = (
    'accuracy: the likeliest label is right; decoded: the written text is the right label; '
    '±: standard deviation over seeds; s.e.: standard error from the number of examples alone.'
)


def write(folder: Path) -> dict[str, Path]:
    """Writes report.html, .png, .md and .csv beside `folder`/results.json; returns their paths.

    Raises:
      UserError: when results.json is missing or is not what a run writes.
    """
    results = load(folder / 'results.json')
    rows = compare(results)
    panels = plots.panels(results, rows, headline(rows))
    contents = {
        'html': page(results, rows, panels).encode(),
        'png': plots.png(panels, title(results)),
        'md': markdown(results, rows).encode(),
        'csv': comma_separated(rows).encode(),
    }
    paths = {kind: folder / f'report.{kind}' for kind in contents}
    for kind, path in paths.items():
        path.write_bytes(contents[kind])
    return paths


def load(path: Path) -> dict[str, Any]:
    """The contents of a results.json.

    Raises:
      UserError: when it is missing, cut off, or something else.
    """
    try:
        results = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise UserError(
            f'There is no {path}; give the folder of a run that has at least started.'
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path} cannot be read ({error}); delete it and start the same command again.'
        ) from error
    if not isinstance(results, dict) or not {'settings', 'data'} <= results.keys():
        raise UserError(f"{path} is not a run's results: it lacks 'settings' or 'data'.")
    wrong = [name for name in OBJECTS if not isinstance(results.get(name, {}), dict)]
    if wrong:
        raise UserError(f"{path} is not a run's results: {wrong[0]!r} in it is not an object.")
    return results


def title(results: Results) -> str:
    backbone = results.get('backbone', {}).get('name')
    return f'PT2TT on {results["data"].get("name", "a task")}' + (
        f', {backbone}' if backbone else ''
    )


def columns(rows: Sequence[Row]) -> dict[str, str]:
    """Metric -> header, of the metrics that some row has; unknown ones follow as they are named."""
    found = {metric for row in rows for metric in row.scores}
    return {m: h for m, h in SHARES.items() if m in found} | {
        metric: metric.replace('_', ' ') for metric in sorted(found - SHARES.keys())
    }


def cells(row: Row, metrics: Mapping[str, str]) -> list[str]:
    """The numbers of a row as text: its metrics, the standard error after the first, parameters."""
    texts = [_score(row, metric) for metric in metrics]
    error = '' if row.stderr is None else percent(row.stderr)
    trained = '' if row.parameters is None else f'{row.parameters:,}'
    return [*texts[:1], error, *texts[1:], trained]


def headers(metrics: Mapping[str, str]) -> list[str]:
    names = list(metrics.values())
    return [*names[:1], 's.e.', *names[1:], 'trained parameters']


def _score(row: Row, metric: str) -> str:
    if metric not in row.scores:
        return ''
    if not math.isfinite(row.scores[metric]):
        return DIVERGED
    if metric not in SHARES:
        return f'{row.scores[metric]:.4g}'
    spread = f' ± {percent(row.spread)}' if metric == 'accuracy' and row.spread is not None else ''
    return percent(row.scores[metric]) + spread


# In the terminal.


def summary(results: Results) -> str:
    """The short table at the end of a run, and how far to trust it; 100 columns at most."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = headline(compare(results))
    metrics = {m: h for m, h in columns(rows).items() if m != 'majority'}
    table = Table(box=box.SIMPLE_HEAD, title=Text(title(results)), title_justify='left')
    table.add_column('', min_width=14, overflow='fold')
    for header in headers(metrics)[:-1]:
        table.add_column(header, justify='right', no_wrap=True)
    table.add_column('trained', justify='right', no_wrap=True)
    table.add_column('note', ratio=1)
    for row in rows:
        texts = (_where(row), *cells(row, metrics), row.note)
        table.add_row(*map(Text, texts))
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    for sentence in [*findings(results), *_incomplete(results)]:
        console.print(Text(sentence))
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore


def _where(row: Row) -> str:
    """A row's name when it stands without its group's heading."""
    if row.group == 'stage 1':
        return f'stage 1 only, {row.name}'
    return f'template {row.name}' if row.group == 'zero-shot' and row.key else row.name


def _incomplete(results: Results) -> list[str]:
    parts = missing(results)
    return [f'Not in these results: {"; ".join(parts)}.'] if parts else []


# As files.


def comma_separated(rows: Sequence[Row]) -> str:
    """All rows with plain numbers: shares from 0 to 1, KL in nats per token."""
    metrics = list(columns(rows))
    aside = ('stderr', 'spread', 'kl', 'parameters')
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator='\n')
    sheet.writerow(['group', 'name', *metrics, *aside, 'seeds', 'best', 'chosen', 'note'])
    for row in rows:
        numbers = [row.scores.get(metric) for metric in metrics]
        numbers += [getattr(row, name) for name in aside]
        seeds = ' '.join(f'{seed}:{value}' for seed, value in row.seeds.items())
        flags = [int(row.best), int(row.chosen)]
        sheet.writerow([row.group, row.name, *numbers, seeds, *flags, row.note])
    return out.getvalue()


def markdown(results: Results, rows: Sequence[Row]) -> str:
    """The table and the sentences below it."""
    metrics = columns(rows)
    head = ['', *headers(metrics), 'note']
    lines = [f'# {_literal(title(results))}', '', _line(head)]
    lines.append(_line([':--', *['--:'] * (len(head) - 2), ':--']))
    for row in rows:
        name = _literal(_where(row))
        name = f'**{name}**' if row.chosen or row.group == 'tuned' else name
        lines.append(_line([name, *cells(row, metrics), _literal(row.note)]))
    sentences = [LEGEND, *findings(results), *_incomplete(results)]
    return '\n'.join([*lines, '', *(f'- {_literal(sentence)}' for sentence in sentences), ''])


def _line(texts: Sequence[str]) -> str:
    return f'| {" | ".join(texts)} |'


def _literal(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r'([\\`*_\[\]<>|~&#])', r'\\\1', ' '.join(text.split()))


def page(results: Results, rows: Sequence[Row], panels: Sequence[plots.Panel]) -> str:
    """The whole page: nothing in it is fetched, and everything from the data is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    metrics = columns(rows)
    groups = {
        heading: [(row, cells(row, metrics)) for row in rows if row.group == group]
        for group, heading in GROUPS.items()
    }
    return environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(
        title=title(results),
        about=_about(results),
        cards=[(_where(row), _score(row, 'accuracy'), row) for row in headline(rows)],
        findings=findings(results),
        missing=missing(results),
        figures=[(panel, plots.svg(panel)) for panel in panels],
        headers=headers(metrics),
        groups={heading: lines for heading, lines in groups.items() if lines},
        legend=LEGEND,
        templates=_templates(results, rows),
        seeds=_seeds(results),
        made=_made(results),
        colours=plots.COLOURS,
        diverged=DIVERGED,
    )


def _about(results: Results) -> str:
    """What was trained on what, in a sentence or two."""
    data, backbone = results['data'], results.get('backbone', {})
    sizes = ', '.join(f'{data[k]} {k}' for k in ('train', 'validation', 'test') if k in data)
    size = f' ({backbone["parameters"]:,} frozen parameters)' if 'parameters' in backbone else ''
    note = f' {data["note"].capitalize()}.' if data.get('note') else ''
    return f'{backbone.get("name", "")}{size} on {data.get("name", "")}: {sizes} examples.{note}'


def _templates(results: Results, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every template with its wording and both accuracies, the lowest KL first."""
    patterns = results.get('zero_shot', {}).get('patterns', {})
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.key and row.group in ('zero-shot', 'stage 1'):
            blank = {'name': row.key, 'kl': None, 'chosen': row.chosen}
            entry = found.setdefault(row.key, blank | {'zero-shot': '', 'stage 1': ''})
            entry[row.group] = _score(row, 'accuracy')
            entry['kl'] = row.kl if row.kl is not None else entry['kl']
            entry['pattern'] = patterns.get(row.key, '')
    ordered = sorted(found.values(), key=lambda entry: by_value(entry['kl']))
    return [entry | {'kl': _kl(entry['kl'])} for entry in ordered]


def _kl(kl: float | None) -> str:
    if kl is None:
        return ''
    return f'{kl:.4f}' if math.isfinite(kl) else DIVERGED


def _seeds(results: Results) -> list[list[str]]:
    """One line per tuned model: method, seed, kept step, accuracies."""
    return [
        [method_name(results, method), str(run['seed']), str(run.get('step', ''))]
        + [
            percent(number(run[m])) if m in run else ''
            for m in ('accuracy', 'decoded_accuracy', 'macro_f1')
        ]
        for method, found in results.get('tuned', {}).items()
        for run in found.get('seeds', ())
    ]


def _made(results: Results) -> dict[str, dict[str, str]]:
    """Everything that answers 'how was this made', by section."""
    run = {key: results[key] for key in ('command', 'created', 'version') if key in results}
    sections = {
        'Run': run,
        'Machine': results.get('machine', {}),
        'Backbone': results.get('backbone', {}),
        'Data': results['data'],
        **{f'Settings: {name}': values for name, values in results['settings'].items()},
        'Seconds': results.get('seconds', {}),
    }
    return {
        heading: {key: _plain(value) for key, value in values.items()}
        for heading, values in sections.items()
        if values
    }


def _plain(value: Any) -> str:
    """A JSON value as a person writes it."""
    if isinstance(value, dict):
        return ', '.join(f'{key} {_plain(inner)}' for key, inner in value.items())
    if isinstance(value, list):
        return ', '.join(map(_plain, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f'{value:,}'
    return str(value)
