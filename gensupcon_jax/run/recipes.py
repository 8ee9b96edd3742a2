"""Recipes by name or path, with the fields that a command line changes. Imports no jax, so a mistake is reported at once."""

import argparse
import difflib
import importlib.util
import inspect
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from gensupcon_jax import command_line, configs
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.configs.rules import Rule
from gensupcon_jax.data.list_forms import LIST_FORMS, list_form_of
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import field_names
from gensupcon_jax.text import flatten, one_line

EXAMPLE = "for example --config digits"
PHOTOS = "photos"  # the recipe of a folder of images, which may stand in place of a recipe
FOLDER_LAYOUT = "<folder>/<class>/<image>"
_FOLDER = "folder:"
_SOURCES = (_FOLDER, "csv:", "parquet:")  # of photos, also in place of a recipe


def names() -> list[str]:
    """The recipes of the package: its files that have a function get_config."""
    return sorted(
        path.stem for path in _folder().glob("*.py") if re.search(r"^def get_config\b", path.read_text(), re.M)
    )


def _folder() -> Path:
    return Path(next(iter(configs.__path__)))


class _Named(NamedTuple):
    """A recipe as the user named it, the file it is read from, and its variant (None: not given)."""

    name: str
    file: str
    variant: str | None


def _find(argument: str) -> _Named:
    """`imagenet:supcon` or `configs/imagenet.py:supcon`: a bare name is one of the package, whatever the current folder holds."""
    name, colon, variant = argument.partition(":")
    is_bare = re.fullmatch(r"\w+", name) is not None
    if is_bare and name in names():
        return _Named(name, str(_folder() / f"{name}.py"), variant if colon else None)
    if Path(name).is_file():
        _refuse_data(name)
        return _Named(name, name, variant if colon else None)
    found = f"--config is {name or repr(name)}, which is not a file"
    if Path(name).suffix.lower() in LIST_FORMS:
        raise UserError(
            f"{found}; allowed: a list of images ({', '.join(LIST_FORMS)}) that exists, a folder of images, {FOLDER_LAYOUT}, "
            f"or a recipe, {EXAMPLE}"
        )
    if "/" in name and not Path(name).suffix:
        raise UserError(f"{found} or a folder; allowed: a folder of images, {FOLDER_LAYOUT}, or a recipe, {EXAMPLE}")
    if not re.fullmatch(r"\w[\w-]*", name):
        close = difflib.get_close_matches(Path(name).stem, names(), n=1, cutoff=0.6)
        raise UserError(
            f"{found}; {command_line.did_you_mean([f'--config {each}' for each in close]) if close else EXAMPLE}"
        )
    close = difflib.get_close_matches(name, names(), n=1, cutoff=0.6)
    suggestion = f"{command_line.did_you_mean(close)} " if close else ""
    raise UserError(
        f"{found}, a folder or a recipe; {suggestion}allowed: {', '.join(names())}, the path of a file, or a folder of images"
    )


def _refuse_data(name: str) -> None:
    """UserError for arrays and images in place of a recipe, which Python could not read."""
    suffix = Path(name).suffix.lower()
    if suffix == ".npz":
        raise UserError(
            f"--config is {name}, which holds arrays; allowed: a recipe, {EXAMPLE}; on the arrays: --config common "
            f"{shlex.quote(f'--config.dataset.name=arrays:{name}')}"
        )
    if b"\0" in Path(name).read_bytes():
        raise UserError(
            f"--config is {name}, which is no text; allowed: a recipe, {EXAMPLE}, a folder of images, {FOLDER_LAYOUT}, or a list "
            f"of images ({', '.join(LIST_FORMS)})"
        )


def read_recipe(argument: str) -> Any:
    """The ConfigDict of a recipe's `get_config()`, or `get_config(variant)` for `recipe:variant`, locked.

    A recipe is a name of `names()` or the path of a file. Raises UserError with the recipe, and the line if it
    is known, for every mistake in it.
    """
    recipe = _find(argument)
    arguments = () if recipe.variant is None else (recipe.variant,)
    try:
        get_config = _get_config_of(_load_module(recipe.file), recipe.name)
        _check_variant(get_config, arguments, recipe.name)
        config = get_config(*arguments)
        fields = _field_names(config) if hasattr(config, "to_dict") else None
    except UserError:
        raise
    except Exception as error:  # a recipe may raise anything
        raise UserError(f"{_place(error, recipe)}: {_reason(error, recipe.file)}") from error
    if fields is None:
        raise UserError(
            f"{recipe.name}: get_config returned {one_line(repr(config))[:40]} ({type(config).__name__}); "
            "allowed: the ConfigDict of common.get_config(), changed"
        )
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise UserError(
            f"{recipe.name}: get_config leaves out {len(missing)} fields, first {missing[0]}; "
            "start from common.get_config()"
        )
    return config.lock()


def _load_module(file: str) -> ModuleType:
    loader = SourceFileLoader("gensupcon_jax_recipe", file)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None  # it is None only for a loader without a file
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # a recipe's own classes look their module up
    loader.exec_module(module)
    return module


def _get_config_of(recipe: ModuleType, name: str) -> Callable:
    get_config = getattr(recipe, "get_config", None)
    if not callable(get_config):
        raise UserError(f"{name} has no function get_config; allowed: a recipe like configs/digits.py")
    return get_config


def _check_variant(get_config: Callable, arguments: tuple[str, ...], name: str) -> None:
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        allowed = f"{name}, without a variant" if arguments else f"{name}:<variant>"
        found = "takes no variant" if arguments else "needs a variant"
        raise UserError(
            f"--config is {':'.join((name, *arguments))}, but its get_config {found}; allowed: {allowed}"
        ) from error


def _place(error: Exception, recipe: _Named) -> str:
    """configs/mine.py, line 7: the last line of the recipe that the error came through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == recipe.file]
    if isinstance(error, SyntaxError) and error.filename == recipe.file:
        lines = [error.lineno]
    return f"{recipe.name}, line {lines[-1]}" if lines and lines[-1] else recipe.name


def _reason(error: Exception, file: str) -> str:
    """Type and message in one line, without the position, which `_place` gives."""
    if isinstance(error, SyntaxError) and error.filename == file:
        message = error.msg
    else:
        message = error
        # The str() of a KeyError has quotes around it, and ConfigDict's AttributeErrors hold a KeyError.
        while isinstance(message, Exception) and len(message.args) == 1:
            message = message.args[0]
    return ": ".join(filter(None, (type(error).__name__, one_line(message))))


def is_of_photos(recipe: str) -> bool:
    """Whether it is a folder or a list of images, or the recipe for one, whose fields are chosen by `run.choices`."""
    return _source_of_photos(recipe) is not None or _find(recipe).file == str(_folder() / f"{PHOTOS}.py")


def _source_of_photos(recipe: str) -> str | None:
    """The `dataset.name` of a folder of images, or of a list of them, in place of a recipe; None for a recipe.

    A recipe of the package takes precedence over a folder of its name.
    """
    if recipe.startswith(_SOURCES) and recipe.partition(":")[2].strip():
        return recipe
    if not recipe.strip() or recipe in names():
        return None
    if Path(recipe).is_dir():
        return f"{_FOLDER}{os.path.normpath(recipe)}"
    form = list_form_of(recipe)
    return f"{form}:{os.path.normpath(recipe)}" if form else None


def run_name(recipe: str, source: str = "") -> str:
    """configs/cifar10.py:supcon, or cifar10:supcon -> cifar10_supcon; for photos the name of the folder or list.

    source: the `dataset.name`.
    """
    if source.startswith(_SOURCES) and is_of_photos(recipe):
        path = Path(source.partition(":")[2]).resolve()
        return (path.name if source.startswith(_FOLDER) else path.stem) or PHOTOS
    path, _, variant = recipe.partition(":")
    return "_".join(filter(None, (Path(path).stem, variant)))


def default_workdir(options: argparse.Namespace) -> Path:
    """The workdir of a run with these options if none is given."""
    return Path("runs") / run_name(options.recipe, options.config.dataset.name)


# ---- a recipe on the command line: RECIPE or --config RECIPE, and --config.field=value


class _Override(NamedTuple):
    """--config.field=value; value None: --config.field, or --noconfig.field where it is switched off."""

    field: str
    value: str | None
    is_off: bool


def add_flags(parser: command_line.Parser) -> None:
    """The flags of every command that reads a recipe."""
    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="RECIPE",
        help=f"a recipe of the package ({', '.join(names())}) or a file, as --config; or a folder with one folder of images per "
        "class; or a list of images, .csv or .parquet",
    )
    parser.add_argument(
        "--config", metavar="RECIPE", help="recipe, for example digits, imagenet:supcon or configs/digits.py"
    )
    fields = parser.add_argument_group("fields of the recipe")
    # For --help alone: these arguments are taken out before argparse sees them.
    fields.add_argument(
        "--config.field=value",
        dest=argparse.SUPPRESS,
        action="store_true",
        help="change one field, for example --config.epochs=60",
    )


def parse_with_recipe(parser: command_line.Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command with `add_flags`: `recipe` is its name, `config` the locked ConfigDict with the changes.

    given: the fields that the arguments change.  A folder or a list of images is the recipe `photos` of these images.
    Raises UserError for every mistake.
    """
    own, overrides = _split(arguments)
    options = parser.parse(own, other_flags=[f"--config.{field}" for field in FIELDS])
    for override in overrides:
        if override.field not in FIELDS:
            raise UserError(f"{override.field} is not a field of the config{field_names.hint(override.field)}")
    if options.recipe is not None and options.config is not None:
        raise UserError(
            f"both the recipe {options.recipe} and --config {options.config} are given; leave one of them out"
        )
    options.recipe = options.config if options.recipe is None else options.recipe
    if options.recipe is None:
        raise UserError(f"--config is missing; {EXAMPLE}")
    options.given = frozenset(override.field for override in overrides)
    photos = _source_of_photos(options.recipe)
    if photos is None:
        options.config = _changed(read_recipe(options.recipe), overrides)
        return options
    if "dataset.name" in options.given:
        what = "folder" if photos.startswith(_FOLDER) else "list"
        raise UserError(f"both the {what} {options.recipe} and --config.dataset.name are given; leave one of them out")
    source = _Override("dataset.name", photos, is_off=False)
    options.config = _changed(read_recipe(PHOTOS), [source, *overrides])
    return options


def parse_with_dataset(
    parser: command_line.Parser, arguments: Sequence[str], saved_fn: Callable[[argparse.Namespace], Mapping[str, Any]]
) -> argparse.Namespace:
    """The options of a command that takes --dataset.field=value; `config` is the default config with these changes.

    saved_fn: the config of a saved run for these options, whose groups `dataset` and `evaluate` take the place of the defaults;
    empty for none.  given: the fields that the arguments change.  Raises UserError for every mistake.
    """
    spelled = [re.sub(r"^(--?(?:no)?)dataset\.", r"\1config.dataset.", argument) for argument in arguments]
    own, overrides = _split(spelled)
    options = parser.parse(own)
    for override in overrides:
        if override.field not in FIELDS:
            raise UserError(f"{override.field} is not a field of the config{field_names.hint(override.field)}")
        if not override.field.startswith("dataset."):
            raise UserError(
                f"{override.field} is not a field of the data set; allowed: --dataset.name=..., and its other fields"
            )
    config = read_recipe("common")
    for name, value in flatten(saved_fn(options)).items():
        group, _, last = name.rpartition(".")
        if name in FIELDS and group in ("dataset", "evaluate"):
            config[group][last] = tuple(value) if isinstance(value, list) else value
    options.given = frozenset(override.field for override in overrides)
    options.config = _changed(config, overrides)
    return options


def _field_names(config: Any) -> list[str]:
    return list(flatten(config.to_dict()))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[_Override]]:
    """-> the arguments without the changes of fields, and these: --config.field=value, or value as the next argument."""
    own, overrides = [], []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        match = re.fullmatch(r"--?(no)?config\.([^=]*)(=.*)?", argument, re.DOTALL)
        if match is None:
            own.append(argument)
            continue
        value = match[3][1:] if match[3] else None
        if value is None and not match[1] and not _is_switch(match[2]) and waiting and waiting[0][:2] != "--":
            value = waiting.pop(0)
        overrides.append(_Override(match[2], value, bool(match[1])))
    return own, overrides


def _is_switch(field: str) -> bool:
    """Whether --config.field alone means True."""
    return field in FIELDS and isinstance(FIELDS[field].default, bool)


def _changed(config: Any, overrides: Sequence[_Override]) -> Any:
    """The config with the overrides, as ml_collections parses them by the type of each field."""
    from absl import flags
    from ml_collections import config_flags

    for override in overrides:
        if override.value is None and not override.is_off and not _is_switch(override.field):
            raise UserError(f"Missing value for flag --config.{override.field}")
    spelled = [
        f"--{'no' if override.is_off else ''}config.{override.field}"
        + ("" if override.value is None else f"={override.value}")
        for override in overrides
    ]
    own = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=own, sys_argv=["", *spelled])
        own(["", *spelled])
    except (flags.Error, ValueError) as error:
        raise _wrong_value(error, overrides) from error
    return own["config"].value


def _wrong_value(error: Exception, overrides: Sequence[_Override]) -> UserError:
    for field, value, _ in overrides:
        if str(error).startswith(f"flag --config.{field}={value}: "):
            allowed = FIELDS[field].allowed
            words = allowed.words if isinstance(allowed, Rule) else f"one of the {allowed.table}"
            return UserError(f"{field} is {value!r}; allowed: {words}")
    return UserError(one_line(error))
