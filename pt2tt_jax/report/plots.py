"""The panels of a report: how stage 1 went, how the templates rank, and what tuning reached.

A panel knows how to draw itself on any figure, so that the page shows each on its own and the
picture shows all of them. Colours are those of Okabe and Ito, which colour-blind readers tell
apart; in the page they are CSS variables, so that it can be read on light and dark ground.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pt2tt_jax.report.numbers import DIVERGED, by_value, number, percent
from pt2tt_jax.report.rows import METHODS, Row

COLOURS = {
    'ink': '#1b1b1c',
    'muted': '#75757a',
    'faint': '#c4c4c9',
    'paper': '#fffffe',
    'blue': '#0072b2',
    'orange': '#e69f00',
    'green': '#009e73',
    'red': '#d55e00',
    'purple': '#cc79a7',
    'sky': '#56b4e9',
}
INK, MUTED, FAINT, PAPER, BLUE, ORANGE, GREEN, *OTHERS = COLOURS.values()
STYLE = {
    'font.size': 9,
    'text.parse_math': False,  # a '$' in a template's name is a '$'
    'text.color': INK,
    'axes.labelcolor': MUTED,
    'axes.edgecolor': FAINT,
    'axes.linewidth': 0.8,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.titlesize': 10,
    'axes.titlelocation': 'left',
    'xtick.color': FAINT,
    'ytick.color': FAINT,
    'xtick.labelcolor': MUTED,
    'ytick.labelcolor': MUTED,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'pt2tt',  # the same results give the same file
}
SIZE = (4.8, 3.5)  # inches; at 9 points the text of a panel can be read on a phone
MOST = 16  # templates that are drawn; the table has all


@dataclasses.dataclass(frozen=True)
class Panel:
    """One part of the picture.

    Attributes:
      title, caption: above it, and what a reader needs to read it.
      draw: draws on a matplotlib figure or subfigure.
    """

    title: str
    caption: str
    draw: Callable[[Any], None]


def panels(results: Mapping[str, Any], rows: Sequence[Row], main: Sequence[Row]) -> list[Panel]:
    """The panels that these results have numbers for.

    Args:
      results: the contents of results.json.
      rows: the table.
      main: its rows that go side by side in one panel.
    """
    stage1, tuned = results.get('transfer', {}), results.get('tuned', {})
    made = [_curves(stage1), _ranking(rows), _accuracies(main, results['data']), _tuning(tuned)]
    return [panel for panel in made if panel]


def svg(panel: Panel) -> str:
    """The panel as an SVG element whose colours are CSS variables and whose text is text."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    out = io.StringIO()
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=SIZE, layout='constrained')
        panel.draw(figure)
        figure.savefig(out, format='svg', transparent=True, metadata={'Date': None})
    text = out.getvalue()
    text = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1>', text[text.index('<svg') :], count=1
    )
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f'var(--{name})')
    return text


def png(panels: Sequence[Panel], title: str) -> bytes:
    """All panels in one picture, 200 dots per inch."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    across = min(2, max(1, len(panels)))
    down = max(1, math.ceil(len(panels) / across))
    out = io.BytesIO()
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(
            figsize=(SIZE[0] * across, (SIZE[1] + 0.3) * down + 0.4), layout='constrained'
        )
        figure.suptitle(title if panels else f'{title}: nothing measured yet', fontsize=13)
        parts = figure.subfigures(down, across, squeeze=False, wspace=0.06, hspace=0.06).flat
        for part, panel in zip(parts, panels, strict=False):
            part.suptitle(panel.title, fontsize=10, x=0.02, ha='left')
            panel.draw(part)
        figure.savefig(out, format='png', dpi=200)
    return out.getvalue()


def short(names: Iterable[str], width: int = 18) -> dict[str, str]:
    """Name -> its last two parts, cut in front; the whole name where that would be ambiguous."""
    names = list(names)
    tails = {name: '/'.join(name.split('/')[-2:]) for name in names}
    tails = {n: t if len(t) <= width else '…' + t[1 - width :] for n, t in tails.items()}
    cut = list(tails.values())
    return {name: tail if cut.count(tail) == 1 else name for name, tail in tails.items()}


def series(curves: Iterable[Mapping[str, float]], metric: str) -> dict[str, dict[int, float]]:
    """Member -> step -> value of a metric or NaN, from rows with keys 'metric/member'."""
    found: dict[str, dict[int, float]] = {}
    for row in curves:
        for key, value in row.items():
            name, _, member = key.partition('/')
            if name == metric and member:
                found.setdefault(member, {})[int(row['step'])] = number(value)
    return found


# The four panels.


def _curves(stage1: Mapping[str, Any]) -> Panel | None:
    lines = series(stage1.get('curves', ()), 'kl')
    if not lines:
        return None
    chosen = stage1.get('chosen')
    caption = 'Each line is the prompt that learns one template, on held-out texts.'
    if chosen:
        caption += f' Blue: {chosen}, which was chosen.'
    return Panel(
        'Stage 1: KL to the templated teacher, nats per token',
        caption,
        functools.partial(_draw_curves, lines=lines, chosen=chosen),
    )


def _draw_curves(figure, lines: dict[str, dict[int, float]], chosen: str | None) -> None:
    axes = figure.subplots()
    names = short(lines)
    ends = {}
    for name, line in lines.items():
        values = [line[step] for step in sorted(line)]
        ends[name] = _end(names[name], values, BLUE if name == chosen else MUTED)
    for name, line in sorted(lines.items(), key=lambda item: item[0] == chosen):
        mine = name == chosen
        style = {'color': BLUE, 'linewidth': 2.4} if mine else {'color': FAINT, 'linewidth': 1.2}
        axes.plot(*zip(*sorted(line.items()), strict=True), solid_capstyle='round', **style)
    axes.set(yscale='log', xlabel='steps')
    axes.margins(x=0)
    _plain_log(axes)
    shown = sorted(lines, key=lambda name: (name != chosen, by_value(ends[name][1])))[:MOST]
    _label_ends(axes, [ends[name] for name in shown])


def _ranking(rows: Sequence[Row]) -> Panel | None:
    measured = [row for row in rows if row.kl is not None]
    student = sorted(measured, key=lambda row: by_value(row.kl))[:MOST]
    teacher = {row.key: row for row in rows if row.group == 'zero-shot'}
    if not student:
        return None
    pairs = [(row, teacher.get(row.key)) for row in student]
    return Panel(
        'Templates by KL, and what each is worth',
        'Left: held-out KL of the kept prompt, nats per token; shorter is a better imitation. '
        'Right: accuracy under the template itself and with its prompt before the bare text.',
        functools.partial(_draw_ranking, pairs=pairs),
    )


def _draw_ranking(figure, pairs: list[tuple[Row, Row | None]]) -> None:
    scored = any('accuracy' in row.scores for row, _ in pairs)
    grid = figure.subplots(1, 1 + scored, sharey=True, squeeze=False)[0]
    names = short(row.key for row, _ in pairs)
    colours = [BLUE if row.chosen else FAINT for row, _ in pairs]
    places = np.arange(len(pairs))
    lengths = np.nan_to_num([row.kl or 0.0 for row, _ in pairs])
    bars = grid[0].barh(places, lengths, 0.6, color=colours)
    texts = [f'{row.kl:.3f}' if math.isfinite(row.kl or 0.0) else DIVERGED for row, _ in pairs]
    grid[0].bar_label(bars, texts, padding=3, fontsize=8)
    grid[0].set_yticks(places, [names[row.key] for row, _ in pairs], fontsize=8)
    grid[0].set(xlabel='KL, nats per token', ylim=(len(pairs) - 0.4, -0.6))
    grid[0].margins(x=0.28)
    for label, (row, _) in zip(grid[0].get_yticklabels(), pairs, strict=True):
        label.set(color=BLUE if row.chosen else INK, weight='bold' if row.chosen else 'normal')
    for axes in grid:
        axes.tick_params(axis='y', length=0)
        axes.spines['left'].set_visible(False)
    if scored:
        _draw_worth(grid[1], pairs)


def _draw_worth(axes, pairs: list[tuple[Row, Row | None]]) -> None:
    """A dot for the teacher, a dot for the student, and the way from one to the other."""
    for place, (row, teacher) in enumerate(pairs):
        student = 100 * row.scores.get('accuracy', math.nan)
        taught = 100 * teacher.scores.get('accuracy', math.nan) if teacher else math.nan
        axes.plot([taught, student], [place, place], color=FAINT, linewidth=2, zorder=1)
        axes.plot(taught, place, 'o', color=GREEN, markerfacecolor=PAPER, markeredgewidth=1.5)
        axes.plot(student, place, 'o', color=BLUE)
    axes.set(xlabel='accuracy, %')
    axes.margins(x=0.12)
    axes.text(0, 1.0, '○ template', color=GREEN, transform=axes.transAxes, fontsize=8)
    axes.text(1, 1.0, '● prompt', color=BLUE, transform=axes.transAxes, fontsize=8, ha='right')


def _accuracies(main: Sequence[Row], data: Mapping[str, Any]) -> Panel | None:
    rows = [row for row in main if 'accuracy' in row.scores and row.group != 'guessing']
    if not rows:
        return None
    majority = data.get('majority', 0.0)
    return Panel(
        f'Accuracy on {data.get("reported_on", "test")}, beyond the majority class',
        f'Bars begin at the majority class ({percent(majority)} %). Thin whiskers: standard error '
        'from the number of examples. Thick ones: standard deviation over seeds; dots are seeds.',
        functools.partial(_draw_accuracies, rows=rows, majority=majority),
    )


def _draw_accuracies(figure, rows: Sequence[Row], majority: float) -> None:
    axes = figure.subplots()
    left = 100 * majority
    values = [100 * row.scores['accuracy'] for row in rows]
    colours = method_colours(row.key for row in rows if row.group == 'tuned')
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        if math.isfinite(value):
            colour = _bar_colour(row, colours)
            axes.barh(place, value - left, 0.62, left=left, color=colour, alpha=0.45)
            axes.plot([value, value], [place - 0.31, place + 0.31], color=colour, linewidth=2)
        _draw_spread(axes, place, value, row)
        spread = f' ± {percent(row.spread)}' if row.spread is not None else ''
        text = percent(row.scores['accuracy']) + spread
        axes.text(1.02, place, text, va='center', transform=axes.get_yaxis_transform())
    axes.axvline(left, color=MUTED, linewidth=1)
    axes.annotate(
        f'majority {left:.1f}', (left, 1), xycoords=axes.get_xaxis_transform(), color=MUTED,
        xytext=(3, 2), textcoords='offset points', fontsize=8,
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [_bar_name(row) for row in rows])
    axes.tick_params(axis='y', length=0, labelcolor=INK)
    axes.spines['left'].set_visible(False)
    axes.set(xlabel='accuracy, %', ylim=(len(rows) - 0.5, -0.6))


def _draw_spread(axes, place: int, value: float, row: Row) -> None:
    if row.stderr is not None:
        axes.errorbar(value, place, xerr=100 * row.stderr, color=MUTED, elinewidth=0.8, capsize=2)
    if row.spread is not None:
        axes.errorbar(value, place, xerr=100 * row.spread, color=INK, elinewidth=2.2)
    dots = [100 * accuracy for accuracy in row.seeds.values()]
    offsets = np.linspace(-0.17, 0.17, len(dots)) if len(dots) > 1 else np.zeros(len(dots))
    axes.plot(dots, place + offsets, 'o', markersize=4.5, color=INK, markeredgecolor=PAPER)


def _bar_name(row: Row) -> str:
    if row.group == 'tuned' or not row.key:
        return row.name
    what = 'stage 1' if row.group == 'stage 1' else 'best template'
    return f'{what}\n{short([row.key])[row.key]}'


def _bar_colour(row: Row, methods: Mapping[str, str]) -> str:
    if row.group == 'tuned':
        return methods[row.key]
    return {'stage 1': BLUE, 'zero-shot': GREEN if row.key else MUTED}[row.group]


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """Method -> colour: blue for PT2TT, orange for prompt tuning, the rest in turn."""
    fixed = {'pt2tt': BLUE, 'prompt': ORANGE}
    others = [method for method in methods if method not in fixed]
    return fixed | {m: OTHERS[i % len(OTHERS)] for i, m in enumerate(others)}


def _tuning(tuned: Mapping[str, Any]) -> Panel | None:
    for metric, name in (('accuracy', 'accuracy, %'), ('cross_entropy', 'cross entropy, nats')):
        found = {m: series(part.get('curves', ()), metric) for m, part in tuned.items()}
        lines = {method: members for method, members in found.items() if members}
        if lines:
            return Panel(
                f'Stage 2: validation {name}',
                'Lines are means over seeds, bands reach from the lowest to the highest seed.',
                functools.partial(_draw_tuning, lines=lines, scale=100 if '%' in name else 1),
            )
    return None


def _draw_tuning(figure, lines: dict[str, dict[str, dict[int, float]]], scale: int) -> None:
    axes = figure.subplots()
    colours = method_colours(lines)
    ends = []
    for method, members in lines.items():
        steps = sorted(set.intersection(*(set(member) for member in members.values())))
        values = scale * np.array([[member[step] for step in steps] for member in members.values()])
        axes.fill_between(
            steps, values.min(0), values.max(0), color=colours[method], alpha=0.2, lw=0
        )
        axes.plot(steps, values.mean(0), color=colours[method], linewidth=2.2)
        ends.append(_end(METHODS.get(method, method), values.mean(0).tolist(), colours[method]))
    axes.set(xlabel='steps')
    axes.margins(x=0)
    _label_ends(axes, ends)


def _plain_log(axes) -> None:
    """Ticks of a log axis as plain decimals, and enough of them on a short one."""
    from matplotlib import ticker

    low, high = axes.get_ylim()
    short_axis = high / low < 10
    locator = ticker.MaxNLocator(5) if short_axis else ticker.LogLocator(subs=(1, 2, 5))
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:g}'))


End = tuple[str, float, str]  # the label of a line, the value beside which it stands, its colour


def _end(label: str, values: Sequence[float], colour: str) -> End:
    """The end of a line; of one that diverged, its last finite value, or NaN if it has none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return label, math.nan, colour
    whole = math.isfinite(values[-1])
    return label if whole else f'{label}, {DIVERGED}', finite[-1], colour


def _label_ends(axes, ends: Iterable[End], gap: float = 0.055) -> None:
    """Writes labels beside the ends of lines, moved so that none overlap."""
    axes.set_ylim(axes.get_ylim())  # which a logarithm of 0 is far below
    to_axes = axes.transScale + axes.transLimits
    ends = sorted((end for end in ends if math.isfinite(end[1])), key=lambda end: end[1])
    wanted = [float(np.clip(to_axes.transform((1, value))[1], 0, 1)) for _, value, _ in ends]
    if not ends:
        axes.text(0.5, 0.5, DIVERGED, ha='center', transform=axes.transAxes)
    for (label, _, colour), at, place in zip(ends, wanted, _apart(wanted, gap), strict=True):
        axes.annotate(
            label, (1, at), xycoords='axes fraction', xytext=(1.06, place), color=colour,
            textcoords='axes fraction', va='center', fontsize=8,
            arrowprops={'arrowstyle': '-', 'color': FAINT, 'lw': 0.6, 'shrinkA': 0, 'shrinkB': 0},
        )  # fmt: skip


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Sorted places in [0, 1], moved up and then down until neighbours are `gap` apart."""
    up = list(places)
    for i in range(1, len(up)):
        up[i] = max(up[i], up[i - 1] + gap)
    for i in reversed(range(len(up))):
        up[i] = min(up[i], up[i + 1] - gap if i + 1 < len(up) else 1.0)
    return up
