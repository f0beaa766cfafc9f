"""Every hyper-parameter: its name, default, unit, and where the value comes from.

"SI" is the supporting information of Vu et al., npj Comput. Mater. 9, 215 (2023); "code" is the authors' code,
sinhvt3421/scann--material, version 1.0. A configuration is a TOML file with the four sections below, or made of these
classes; a wrong type or an impossible value is a ConfigError either way.
"""

import dataclasses
import json
import numbers
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from refattn.common.limits import LAYERS
from refattn.common.loss import LOSSES
from refattn.errors import ConfigError, in_one_line

CHOICES = {
    "model.variant": ("scann", "scann+"),
    "model.features": ("atomic", "cgcnn"),
    "model.readout": ("intensive", "published", "sum"),
    "model.head": ("published", "additive"),
    "graph.rule": ("isolated", "upstream"),
    "data.split_by": ("random", "group", "composition", "elements", "size", "cluster", "file"),
    "data.valid_by": ("random", "group"),
    "training.loss": tuple(LOSSES),
    "training.schedule": ("constant", "cosine", "sgdr"),
    "training.dtype": ("float32", "float64"),
}
OF_CLASS = {name for name, loss in LOSSES.items() if loss.of_class}
POSITIVE = {
    *("model.n_layers", "model.width", "model.n_heads", "model.global_width", "model.head_width"),
    *("model.embedding_width", "model.n_elements", "model.n_targets"),
    *("model.n_radial", "model.radial_max", "model.radial_width"),
    *("graph.r_max", "training.epochs", "training.batch_size", "training.huber_delta", "training.learning_rate"),
    *("training.cosine_fraction", "training.sgdr_period", "training.sgdr_factor", "training.sgdr_compression"),
    *("training.epsilon", "training.patience", "training.edges_per_shard"),
    "training.gpu_shards",
}
AT_MOST_ONE = {"graph.min_distance", "graph.weight_min"}
BELOW_ONE = {"model.dropout", "model.attention_dropout", "training.beta_1", "training.beta_2", "training.ema"}
COLLECTIONS = {"data.target", "data.target_weight", "training.attention"}
WEIGHTS = {"data.target_weight", "training.attention_weight"}  # of each target
LARGEST = 2**31 - 1  # of any integer
LARGEST_SIZE = 2**16  # of the numbers of [model], beyond which nothing fits in memory


class Section:
    """What the four sections have in common: their values are checked as they are made."""

    name = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name = f"{self.name}.{field.name}"
            value = getattr(self, field.name)
            if name in COLLECTIONS or (name in WEIGHTS and isinstance(value, list | tuple)):
                object.__setattr__(self, field.name, _collected(value, name))
                continue
            if type(value) is not type(field.default):
                value = _typed(value, type(field.default), name)
                object.__setattr__(self, field.name, value)  # the way into a frozen dataclass
            _check(value, name)


def _typed(value, wanted, name):
    """The value as `wanted`: an integer where a float belongs, a number of NumPy, a path; or ConfigError."""
    if isinstance(value, numbers.Integral) and abs(value) > LARGEST:
        raise ConfigError(f"{name} is too large; it must be at most {LARGEST}")
    kind = {int: numbers.Integral, float: numbers.Real, str: os.PathLike}.get(wanted, wanted)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r:.60}; it must be of type {wanted.__name__}")
    return os.fspath(value) if wanted is str else wanted(value)


def _collected(value, name):
    """A list as a tuple, a table as a tuple of its pairs; ConfigError where these do not hold what they should."""
    _check_texts(value, name)
    if name == "data.target" and isinstance(value, str) and value:
        return value
    if name == "training.attention" and isinstance(value, Mapping):
        value = tuple(value.items())
    items = tuple(value) if isinstance(value, list | tuple) else (None,)
    if name in WEIGHTS:
        right = all(isinstance(w, numbers.Real) and type(w) is not bool and 0 < w <= LARGEST for w in items)
        wanted = "a list of numbers greater than 0"
    elif name == "data.target":
        right = items and len({*items}) == len(items) and all(isinstance(x, str) and x for x in items)
        wanted = "the name of a label, or a list of different ones"
    else:
        right = all(isinstance(x, tuple) and len(x) == 2 and all(isinstance(y, str) and y for y in x) for x in items)
        wanted = 'a table of target = name of a per-site array, such as { homo = "homo_population" }'
    if not right:
        raise ConfigError(f"{name} is {value!r:.60}; it must be {wanted}")
    if name == "data.target" and len(items) == 1:
        return items[0]
    return tuple(map(float, items)) if name in WEIGHTS else items


def _check_texts(value, name):
    """Raise ConfigError for a string, or one in a list or table, that no file could hold."""
    if isinstance(value, str):
        _check(value, name)
    elif isinstance(value, list | tuple | Mapping):
        for item in value.items() if isinstance(value, Mapping) else value:
            _check_texts(item, name)


def _check(value, name):
    """Raise ConfigError for a value of the right type that is impossible."""
    wanted = ""
    if isinstance(value, str):
        if value.encode(errors="replace").decode() != value or "\0" in value:
            wanted = "text in UTF-8 without a zero byte; rename the file if it is a path"
        elif value not in CHOICES.get(name, (value,)):
            wanted = f"one of {', '.join(CHOICES[name])}"
    elif type(value) is int and abs(value) > LARGEST:
        raise ConfigError(f"{name} is too large; it must be at most {LARGEST}")
    elif not 0 <= value < float("inf"):
        wanted = "finite and not negative"
    elif value > LARGEST_SIZE and name.startswith("model."):
        wanted = f"at most {LARGEST_SIZE}"
    elif value > LAYERS and name == "model.n_layers":
        wanted = f"at most {LAYERS} (REFATTN_LAYERS)"
    elif value == 0 and name in POSITIVE:
        wanted = "greater than 0"
    elif value > 1 and name in AT_MOST_ONE:
        wanted = "at most 1"
    elif value >= 1 and name in BELOW_ONE:
        wanted = "below 1"
    elif value < 1 and name == "training.sgdr_factor":
        wanted = "at least 1"
    if wanted:
        raise ConfigError(f"{name} is {value!r:.60}; it must be {wanted}")


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The network (docs/design.md section 3). Widths are the published ones for QM9 (code, configs/qm9)."""

    name = "model"

    variant: str = "scann+"  # "scann+" updates the geometry in every layer; "scann" does not
    n_layers: int = 7  # local attention layers (code: n_attention)
    width: int = 128  # D, width of the site representation (code: local_dim)
    n_heads: int = 8  # H, heads of the local attention (code: num_head)
    global_width: int = 128  # width of the global attention (code: global_dim)
    head_width: int = 128  # width of the last hidden layer (code: dense_out)
    embedding_width: int = 48  # width of embed[z] (code: embedding_dim)
    features: str = "atomic"  # "atomic": a row of a table per element; "cgcnn": 92 element features
    n_elements: int = 119  # rows of the table, row z for atomic number z (code: n_atoms, 10 for QM9)
    ring: bool = False  # append two flags per site, in a ring and aromatic (code: use_ring)
    n_radial: int = 20  # G, Gaussians of each expansion (code: centers)
    radial_max: float = 4.0  # Å, last centre of the distance expansion (code: gaussian_d)
    radial_width: float = 0.5  # Å and sr; exp(-(x - mu)^2 / radial_width^2) (code: width)
    n_angular: int = 0  # Gaussians of the cosine between edges of a site; 0: it reads no angles (ours)
    residual: bool = True  # the residual block after the local attention (code: use_attn_norm)
    normalise_attention: bool = True  # scale the global scores of a structure (code: use_ga_norm)
    readout: str = "intensive"  # "intensive" (size-consistent), "published", or "sum" over the sites' values
    head: str = "published"  # "published", or "additive": the property is a sum of contributions of the sites
    dropout: float = 0.1  # after the embedding and in the residual blocks (code: fixed)
    attention_dropout: float = 0.0  # of the local attention weights (code: 0.05 with use_drop)
    non_negative: bool = False  # clip the property at zero (code: target e_b)
    n_targets: int = dataclasses.field(default=1, metadata={"derived": True})  # K; a Config takes it from data.target

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.readout == "sum":
            object.__setattr__(self, "head", "additive")  # there is nothing to sum but the sites' values
        if self.n_angular == 1:
            raise ConfigError("model.n_angular is 1; it must be 0, or at least 2, the ends of the cosine")
        if self.width % self.n_heads:
            raise ConfigError(
                f"model.width {self.width} is no multiple of model.n_heads {self.n_heads}; change one of them"
            )

    @property
    def reads_angles(self) -> bool:
        """Whether the network reads more of a graph than distances and solid angles: where the neighbours stand."""
        return self.n_angular > 0

    @property
    def angular_width(self) -> int:
        """Columns of the expansion of the angles: the Gaussians for all other edges, and by the neighbour's element."""
        return 2 * self.n_angular


@dataclasses.dataclass(frozen=True)
class GraphConfig(Section):
    """The neighbour rule (docs/design.md section 4). Thresholds are the published ones for molecules."""

    name = "graph"

    rule: str = "isolated"  # "isolated", or "upstream" for the authors' graphs
    r_max: float = 4.0  # Å, longest edge kept
    omega_min: float = 0.4  # sr, smallest solid angle kept
    weight_min: float = 0.2  # 1, smallest solid angle relative to the site's largest
    min_distance: float = 0.5  # 1, of two atoms over the sum of their covalent radii; nearer is an error; 0: never


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """What to learn from. An empty path means the data set that ships inside the package."""

    name = "data"

    path: str = "fullerene"  # a data set made by `refattn prepare`, or the name of a built-in one
    target: str | tuple[str, ...] = "homo"  # a label of the data set, or several for a network with a read-out of each
    target_weight: tuple[float, ...] = ()  # of each target's loss, in units of its spread; empty: all 1
    weight: str = ""  # a label that weighs the errors of each structure in the loss; empty: all alike
    split: str = ""  # a split.json, or "published:NAME" (splits.py); empty: draw one by the four values below
    n_train: int = 0  # structures to train on; 0: what the other two leave
    n_valid: int = 0  # structures to validate on; 0: a tenth
    n_test: int = 0  # structures to test on; 0: a tenth
    split_seed: int = 0
    # What is new in the test part (groups.py), whole groups that are not trained on; "file": the split of data.split.
    split_by: str = "random"
    # Of "group": a label, a table (.csv) of ids and groups, or a text up to which the ids of a group are the same;
    # empty: ids without the number at the end, which are trajectories. Of "elements": the one to leave out; empty:
    # drawn. Of "cluster": an embedding by `refattn embed`; empty: composition, size and edges.
    split_group: str = ""
    valid_by: str = "random"  # "random": validate on other structures of the groups to train on; "group": on new groups
    test_part: bool = True  # false: no structure is kept to test on
    n_folds: int = 0  # parts of which each is the test part once; 0: none
    fold: int = 0  # the one that is the test part, from 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_folds == 1 or self.fold >= max(self.n_folds, 1):
            raise ConfigError(
                f"data.fold is {self.fold} of data.n_folds {self.n_folds}; give at least 2 folds and a number below, "
                "on the command line --folds N --fold K"
            )
        if self.split_by == "file" and not self.split:
            raise ConfigError('data.split_by is "file"; name the file as data.split')
        if self.split and (self.n_folds or not self.test_part):
            raise ConfigError(f"data.split is {self.split!r:.60}, which has its parts; leave n_folds and test_part out")

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets, one or several."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all labels that a training reads."""
        return (*self.targets, self.weight) if self.weight else self.targets

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each target's loss."""
        return self.target_weight or (1.0,) * len(self.targets)


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    """How to learn. Optimiser constants are those of the authors' code (Keras's legacy Adam)."""

    name = "training"

    epochs: int = 100
    batch_size: int = 32  # structures
    edges_per_shard: int = 2500  # at most, on average, of what a thread computes at a time; decides about rounding
    gpu_shards: int = 1  # of a batch, for the GPUs of several ranks to share out; decides about rounding
    loss: str = "rmse"  # "rmse" (as published), "mse", "mae", "huber"; "cross_entropy" of a class, 0 or 1
    huber_delta: float = 1.0  # in units of the scaled target
    weight_decay: float = 1e-4  # times the squared norm of the decayed kernels (code: l2(1e-4))
    learning_rate: float = 5e-4  # code: hyper.lr
    learning_rate_min: float = 1e-4  # code: hyper.min_lr
    schedule: str = "cosine"  # "constant", "cosine", "sgdr" (warm restarts)
    cosine_fraction: float = 1.0  # part of the training over which the cosine falls (code: see experiments)
    sgdr_period: int = 50  # epochs to the first restart (code: t0)
    sgdr_factor: float = 2.0  # growth of the period (code: tmult)
    sgdr_compression: float = 1.2  # fall of the peak (code: lr_max_compression)
    sgdr_trigger: float = 300.0  # the schedule starts below this validation MAE, in scaled units (code)
    beta_1: float = 0.9  # Kingma & Ba 2015
    beta_2: float = 0.999  # Kingma & Ba 2015
    epsilon: float = 1e-7  # Keras
    rate_decay: float = 1e-5  # learning rate / (1 + rate_decay * step) (code: decay)
    warmup_epochs: int = 0  # over which the rate rises in a line to what the schedule says
    ema: float = 0.0  # decay of the moving average of the parameters that predicts in their place; 0: none (average.py)
    scale_target: bool = True  # learn (y - mean) / std of the training labels
    attention: tuple[tuple[str, str], ...] = ()  # table: target -> per-site array that its global attention is taught
    attention_weight: float | tuple[float, ...] = 0.4  # of the cross entropy with that; also a list, one of each target
    patience: int = 200  # epochs without a better validation MAE before stopping (code)
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule != "constant" and self.learning_rate_min > self.learning_rate:
            raise ConfigError(
                f"training.learning_rate_min is {self.learning_rate_min}; it must be at most training.learning_rate, "
                f"{self.learning_rate}"
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """The four sections. `graph` None stands for the neighbour rule of the data set, whatever it is.

    of_class : bool     whether the targets are classes, 0 or 1, and predictions the probabilities of 1; of the loss
    """

    model: ModelConfig = ModelConfig()
    graph: GraphConfig | None = None
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    of_class: bool = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, section in SECTIONS.items():
            found = getattr(self, name)
            if not (isinstance(found, section) or (name == "graph" and found is None)):
                raise ConfigError(f"{name} is {found!r:.60}; it must be a {section.__name__}")
        targets = self.data.targets
        weights = {"data.target_weight": self.data.weights, "training.attention_weight": self.attention_weights}
        for name, found in weights.items():
            if len(found) != len(targets):
                n = len(found)
                raise ConfigError(f"{name} has {n} weights for {len(targets)} targets; give each target one")
        for target, _ in self.training.attention:
            if target not in targets:
                raise ConfigError(f"training.attention names {target!r:.60}; it must name one of {', '.join(targets)}")
        object.__setattr__(self, "of_class", self.training.loss in OF_CLASS)
        if self.of_class and self.model.non_negative:
            raise ConfigError("model.non_negative is true, and the log odds of a class are negative too; leave it out")
        object.__setattr__(self, "model", dataclasses.replace(self.model, n_targets=len(targets)))

    @property
    def attention_weights(self) -> tuple[float, ...]:
        """The weight of each target's attention in the loss."""
        weight = self.training.attention_weight
        return weight if isinstance(weight, tuple) else (weight,) * len(self.data.targets)


SECTIONS = {section.name: section for section in (ModelConfig, GraphConfig, DataConfig, TrainingConfig)}
# What tomllib raises: its own error is a ValueError, as are those of text that is not UTF-8 and of integers too long.
UNREADABLE = (OSError, ValueError, RecursionError)


def config_from_dict(sections: Mapping[str, dict], where: str = "configuration") -> Config:
    """Build and check a Config from nested dictionaries; missing keys keep their defaults.

    Raises ConfigError, naming `where`, for an unknown section or key, a wrong type or an impossible value.
    """
    parts = {}
    for section, values in sections.items():
        if section not in SECTIONS or not isinstance(values, dict):
            raise ConfigError(f"{where}: there is no section [{section}]; the sections are {', '.join(SECTIONS)}")
        known = [field.name for field in dataclasses.fields(SECTIONS[section]) if not field.metadata]
        for key in values:
            if key not in known:
                raise ConfigError(f"{where}: [{section}] has no key {key!r}; it has {', '.join(known)}")
        try:
            parts[section] = SECTIONS[section](**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return Config(**parts)


def load_config(path: Path | str) -> Config:
    """Read a TOML configuration. Raises ConfigError for a file that is missing, not TOML or not valid."""
    try:
        sections = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise ConfigError(
            f"{path}: cannot be read as TOML ({in_one_line(error)}); check the path and the syntax"
        ) from None
    return config_from_dict(sections, str(path))


def override(config: Config, assignments: Iterable[str], where: str = "--set") -> Config:
    """Apply `section.key=value` strings (a TOML value, or a bare word for a string).

    Raises ConfigError, naming `where` they are given.
    """
    sections = _sections(config)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot):
            raise ConfigError(
                f"{where} {assignment}: is no assignment; write section.key=value, such as model.n_heads=4"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except UNREADABLE:
            value = text.strip()
        sections.setdefault(section, {})[key] = value
    return config_from_dict(sections, where)


def to_toml(config: Config) -> str:
    """The whole configuration as TOML text; load_config reads it back unchanged."""
    lines = []
    for section, values in _sections(config).items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_in_toml(value)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _in_toml(value):
    """A value, or the pairs of a table, as TOML, whose strings are those of JSON with DEL escaped."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_in_toml(key)} = {_in_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _sections(config):
    """The sections as nested dictionaries, without a [graph] that is not given and keys that are derived."""
    found = {}
    for section, kind in SECTIONS.items():
        part = getattr(config, section)
        fields = [] if part is None else [field for field in dataclasses.fields(kind) if not field.metadata]
        values = {field.name: getattr(part, field.name) for field in fields}
        if "attention" in values:
            values["attention"] = dict(values["attention"])
        if part is not None:
            found[section] = values
    return found
