"""Every setting of a run, with its default: values that gin can bind, free of JAX.

`Transfer.steps = 300` in a gin file, or `--gin.Transfer.steps=300` on the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gin

from pt2tt_jax import checks
from pt2tt_jax.errors import UserError, nearest

_PACKAGE = Path(__file__).parent
# In a wheel the gin files lie inside the package, in a checkout beside it.
GIN = next(p for p in (_PACKAGE / 'gin', _PACKAGE.parent / 'gin') if p.exists())


@gin.configurable(module='pt2tt')  # pyright: ignore
@dataclasses.dataclass(frozen=True)
class Model:
    """The frozen backbone.

    Attributes:
      name: 'flan-demo' (from the extra `demo`), a folder with a Hugging Face checkpoint, or a hub
        id such as 'google/t5-v1_1-base'.
      dtype: of activations, 'float32' or 'bfloat16'.
      param_dtype: of the stored backbone; prompts, logits and losses stay float32.
      data_parallel: devices that share a batch; 0 takes what `model_parallel` leaves.
      model_parallel: devices that share the backbone.
      population_parallel: groups of devices that share the templates, or the seeds.
    """

    name: str = 'flan-demo'
    dtype: str = 'float32'
    param_dtype: str = 'float32'
    data_parallel: int = 0
    model_parallel: int = 1
    population_parallel: int = 1

    def __post_init__(self):
        checks.values(self)


@gin.configurable(module='pt2tt')  # pyright: ignore
@dataclasses.dataclass(frozen=True)
class Data:
    """The task: its examples, and how they are written.

    Attributes:
      task: name of a known data set such as 'sst2', read from `data_dir`; empty with files.
      data_dir: folder laid out as <TFDS name>[/<config>]/<split>.jsonl[.gz]; without it, TFDS.
      protocol: 'official' splits, or the 'comparison' splits of ATTEMPT, MPT and DePT.
      train, validation, test: files of one's own (JSON lines, CSV or TSV, also gzipped).
      prepared: a folder that `pt2tt prepare` wrote; the settings above and below are then its own.
      fields: textual fields, in order.
      label: name of the label field.
      labels: label names, in the order of the integer labels.
      input_format: how a row becomes the student's text.
      verbaliser: what the labels are called in the targets.
      templates: families or single templates for stage 1: names, or JSON files.
      holdout: share of the training set that is kept for choosing (template, best step) where
        there is no test set and the validation set is therefore the one that is reported.
      max_train: use at most so many training examples; 0 for all.
      input_length: longest encoder input in tokens, prompt included; longer texts are cut.
      target_length: longest target in tokens.
      seed: of the choice of held-out and of at most `max_train` examples.
    """

    task: str = ''
    data_dir: str = ''
    protocol: str = 'official'
    train: str = ''
    validation: str = ''
    test: str = ''
    prepared: str = ''
    fields: tuple[str, ...] = ()
    label: str = 'label'
    labels: tuple[str, ...] = ()
    input_format: str = 'stripped'
    verbaliser: str = 'names'
    templates: tuple[str, ...] = ()
    holdout: float = 0.1
    max_train: int = 0
    input_length: int = 512
    target_length: int = 64
    seed: int = 0

    def __post_init__(self):
        checks.values(self)
        checks.one_of('protocol', self.protocol, ('official', 'comparison'))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a training loop runs; shared by both stages.

    Attributes:
      steps: optimizer steps.
      batch_size: examples a step.
      learning_rate: peak.
      schedule: 'linear' (down to 0), 'constant' or 'cosine'.
      warmup_steps: linear from 0 to the peak.
      optimizer: 'adamw' or 'adafactor'.
      weight_decay: none by default, since prompts travel far from their start. AdamW multiplies it
        by the learning rate, Adafactor does not.
      rates: (pattern, factor) pairs: parameters whose path matches a pattern in full are trained at
        the factor times the learning rate, by the first that matches; all others at 1.
      clip: largest norm of the gradient; 0 for none.
      accumulate: micro-batches that one step is split into.
      packing: several examples in a row, where that saves padding; what is trained is the same.
      eval_every: steps between evaluations; 0 for a tenth of `steps`.
      checkpoint_every: steps between checkpoints; 0 for as often as evaluations.
      keep: 'best' by the evaluations, or 'last'.
      patience: stop what has not got better for so many steps; 0 to go on to the end.
      writers: where metrics go besides metrics.jsonl: 'tensorboard', 'console' (with --verbose),
        'clu' (needs TensorFlow).
    """

    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 0.3
    schedule: str = 'linear'
    warmup_steps: int = 0
    optimizer: str = 'adamw'
    weight_decay: float = 0.0
    rates: tuple[tuple[str, float], ...] = ()
    clip: float = 0.0
    accumulate: int = 1
    packing: bool = True
    eval_every: int = 0
    checkpoint_every: int = 0
    keep: str = 'best'
    patience: int = 0
    writers: tuple[str, ...] = ('tensorboard', 'console')

    def __post_init__(self):
        checks.values(self)
        checks.one_of('schedule', self.schedule, ('linear', 'constant', 'cosine'))
        checks.one_of('optimizer', self.optimizer, ('adamw', 'adafactor'))
        checks.one_of('keep', self.keep, ('best', 'last'))
        for writer in self.writers:
            checks.one_of('writer', writer, ('tensorboard', 'console', 'clu'))
        if self.batch_size % self.accumulate:
            raise UserError(
                f'A batch of {self.batch_size} does not divide into {self.accumulate} '
                'micro-batches; make accumulate a divisor of batch_size.'
            )

    @property
    def evaluation_period(self) -> int:
        return self.eval_every or max(1, self.steps // 10)

    @property
    def checkpoint_period(self) -> int:
        return self.checkpoint_every or self.evaluation_period


@gin.configurable(module='pt2tt')  # pyright: ignore
@dataclasses.dataclass(frozen=True)
class Transfer(Recipe):
    """Stage 1: one prompt per template, by KL divergence from the templated teacher.

    Attributes:
      length: m, tokens of a source prompt.
      targets: what y is: 'gold' target, 'teacher' (decoded from the teacher, no label needed), or
        'first' (the first target token only, no label needed).
      init: of the prompts; as `Tune.init`.
      top_k: likeliest tokens of the teacher that are kept apart; 0 keeps all of them.
      teacher_cache: folder for the teacher's answers, to be shared by runs; by default each run
        keeps its own.
      held_out: examples that the choice among templates is measured on, at most.
      seed: of initial prompts and batches.
    """

    steps: int = 300
    batch_size: int = 16
    length: int = 20
    targets: str = 'gold'
    init: str = 'vocabulary'
    top_k: int = 512
    teacher_cache: str = ''
    held_out: int = 256
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        checks.one_of('targets', self.targets, ('gold', 'teacher', 'first'))


@gin.configurable(module='pt2tt')  # pyright: ignore
@dataclasses.dataclass(frozen=True)
class Tune(Recipe):
    """Stage 2 and its comparison: tuning on labels.

    Attributes:
      length: n, tokens of the whole prompt; PT2TT trains n - m of them, prompt tuning all.
      methods: what is trained, each with every seed.
      init: of trained prompt rows: 'vocabulary', 'labels', 'uniform', 'text:some words', or a
        .npy file.
      source: a saved source prompt, for `pt2tt tune` without stage 1.
      sources: saved prompts of other tasks, for methods that draw on several.
      seeds: one run each.
      learning_rates: to choose from by validation, every seed with each; by default
        `learning_rate` alone.
      population: models that train at once, at most; 0 for all that fit into memory.
      mixing: of tasks that are trained together: 'equal' parts of each batch, or 'proportional'
        to their sizes.
      task_weights: of their losses, in the order of the tasks; one stands for all.
    """

    length: int = 100
    methods: tuple[str, ...] = ('pt2tt', 'prompt')
    init: str = 'vocabulary'
    source: str = ''
    sources: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rates: tuple[float, ...] = ()
    population: int = 0
    mixing: str = 'equal'
    task_weights: tuple[float, ...] = (1.0,)

    def __post_init__(self):
        super().__post_init__()
        checks.one_of('mixing', self.mixing, ('equal', 'proportional'))
        if self.learning_rates and not self.learning_rate:
            raise UserError('Tune.learning_rates are factors of Tune.learning_rate, which is 0.')
        if min(self.seeds, default=0) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f'Tune.seeds must be different and not negative: {self.seeds!r}.')


@gin.configurable(module='pt2tt')  # pyright: ignore
@dataclasses.dataclass(frozen=True)
class Suite:
    """Several tasks with the same methods; `Tune.methods` and `Tune.seeds` are the other two axes.

    Attributes:
      tasks: names of known data sets, each run alone; one with its own settings has them in its
        scope (`rte/Tune.steps = 500`).
      baseline: the method that the others are compared with.
    """

    tasks: tuple[str, ...] = ()
    baseline: str = 'prompt'

    def __post_init__(self):
        checks.values(self)


SECTIONS = (Model, Data, Transfer, Tune, Suite)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All sections of a run.

    Attributes:
      options: method -> settings of its constructor (`lora.rank = 8`).
      tunes: method -> how it is trained, where it differs (`lora/Tune.learning_rate = 1e-3`).
    """

    model: Model
    data: Data
    transfer: Transfer
    tune: Tune
    options: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    tunes: dict[str, Tune] = dataclasses.field(default_factory=dict)

    def of(self, method: str) -> Tune:
        """How `method` is trained; several joined by '+' are trained as the first."""
        return self.tunes.get(method.partition('+')[0], self.tune)

    def as_dict(self) -> dict[str, dict]:
        """Plain values by section, for JSON; of methods, those that are trained."""
        sections = (self.model, self.data, self.transfer, self.tune)
        values = {type(section).__name__: dataclasses.asdict(section) for section in sections}
        for method in sorted({part for name in self.tune.methods for part in name.split('+')}):
            own = dataclasses.asdict(self.of(method))
            changed = {f'Tune.{k}': v for k, v in own.items() if v != values['Tune'][k]}
            if found := dict(self.options.get(method, {})) | changed:
                values[method] = found
        return values


def load(
    files: Sequence[str] = (),
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    *,
    task: str = '',
    tasks: Sequence[str] = (),
) -> Settings:
    """Settings from gin files and bindings; later ones win.

    The files of `gin/methods/` come first: each method's own learning rate and options. What is
    bound in a method's scope (`lora/Tune.learning_rate`) goes before what is bound for all.

    Args:
      files: gin files, absolute, or below the working folder, a search path or the package's
        own `gin/`.
      bindings: such as 'Transfer.steps = 300'.
      search_paths: further folders to look in.
      task: of a suite; what is bound in its scope goes first.
      tasks: all tasks of the suite.

    Raises:
      UserError: for an unknown file, section or name, or a value that does not parse.
    """
    from pt2tt_jax.methods import METHODS  # imports JAX

    bindings = [*bindings, f'Data.task = {task!r}'] if task else bindings
    with _parsed(files, bindings, search_paths), gin.config_scope(task or None):
        tune = Tune()
        options = {name: gin.get_bindings(f'pt2tt.{name}') for name in METHODS}  # pyright: ignore
        options = {name: bound for name, bound in options.items() if bound}
        tunes = {name: one for name in METHODS if (one := _scoped(name)) != tune}
        loaded = Settings(Model(), Data(), Transfer(), tune, options, tunes)
        for binding in bindings:
            _check_used(binding.partition('=')[0].strip(), tasks)
        return loaded


def load_suite(
    files: Sequence[str] = (), bindings: Sequence[str] = (), search_paths: Sequence[str] = ()
) -> tuple[Suite, dict[str, Settings]]:
    """The suite that gin files and bindings describe, and the settings of each of its tasks."""
    import pt2tt_jax.methods  # noqa: F401  registers the methods' names with gin

    with _parsed(files, bindings, search_paths):
        suite = Suite()
    if not suite.tasks or len(set(suite.tasks)) < len(suite.tasks):
        raise UserError(
            "Suite.tasks must name at least one task, each once, such as ('sst2', 'rte')."
        )
    loaded = {
        task: load(files, bindings, search_paths, task=task, tasks=suite.tasks)
        for task in suite.tasks
    }
    return suite, loaded


@contextlib.contextmanager
def _parsed(
    files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str]
) -> Iterator[None]:
    """Gin knows what the files and bindings say, and forgets it again."""
    gin.clear_config()
    _folders[:] = [Path.cwd(), *map(Path, search_paths), GIN]
    try:
        own = [_find(f'methods/{file.name}') for file in sorted((GIN / 'methods').glob('*.gin'))]
        given = [_find(file) for file in files]
        gin.parse_config_files_and_bindings([*own, *given], list(bindings))
        yield
    except UserError as error:  # gin appends where it was called from
        raise UserError(str(error).splitlines()[0]) from error
    except Exception as error:  # gin raises a dozen classes, from TokenError to ImportError
        raise UserError(_explain(str(error))) from error
    finally:
        _folders.clear()
        gin.clear_config()  # else sections made in Python had the values of this load


def _scoped(method: str) -> Tune:
    with gin.config_scope(method):
        return Tune()


_folders: list[Path] = []  # during a load: where gin files, nested ones too, are looked up


def _find(name: str) -> str:
    for folder in _folders:
        if (folder / name).is_file():
            return str(folder / name)
    here = [str(path.relative_to(GIN)) for path in GIN.rglob('*.gin')]
    folders = ' or '.join(map(str, _folders))
    raise UserError(f'There is no gin file {name!r} in {folders}. {nearest(name, here)}')


def _open(name: str):
    return Path(_find(name)).open()


# Before gin's own readers: its search paths cannot be taken back, and it logs names not found.
_readers: list = gin.config._FILE_READERS  # pyright: ignore
_readers.insert(0, (_open, lambda name: bool(_folders and _find(name))))


def _check_used(name: str, tasks: Sequence[str]) -> None:
    """A binding without a section makes a gin macro, which a file must use. Scopes are those of
    methods, for `Tune`, and those of a suite's tasks.
    """
    from pt2tt_jax.methods import METHODS

    *scopes, rest = name.split('/')
    if scopes and scopes[0] in tasks:
        scopes = scopes[1:]
    scoped = len(scopes) == 1 and scopes[0] in METHODS and rest.startswith('Tune.')
    lone = '.' not in name and f'\n{name} = ' not in gin.operative_config_str()
    if lone or (scopes and not scoped):
        known = [f'{s.__name__}.{field.name}' for s in SECTIONS for field in dataclasses.fields(s)]
        known += [f'{method}/Tune.learning_rate' for method in METHODS]
        raise UserError(f'{name!r} sets nothing; write SECTION.NAME. {nearest(name, known)}')


def _explain(message: str) -> str:
    """Gin's complaint in one sentence, with the nearest name where one is unknown."""
    lines = message.strip().splitlines() or ['no reason given']
    where = next((f' ({line.strip()})' for line in lines if line.startswith('  In file')), '')
    return f'{_reason(lines[0], message)}{where}'


def _reason(first: str, message: str) -> str:
    from pt2tt_jax.methods import METHODS

    by_name = {s.__name__: [field.name for field in dataclasses.fields(s)] for s in SECTIONS}
    by_name |= {name: list(inspect.signature(make).parameters) for name, make in METHODS.items()}
    section = re.search(r"No configurable matching '([\w./]+)'", first)
    if section:
        return f'There is no setting section {section[1]!r}. {nearest(section[1], by_name)}'
    name = re.search(r"Configurable '(\w+)' doesn't have a parameter named '(\w+)'", first)
    if name and name[1] in by_name:
        return f'There is no setting {name[1]}.{name[2]}. {nearest(name[2], by_name[name[1]])}'
    token = re.search(r"Failed to parse token '(.*)' \((.*)\)", message)
    if token:
        return f'{token[1]!r} ({token[2]}) is no value: write text in quotes, numbers without.'
    return f'The settings cannot be used: {first}'
