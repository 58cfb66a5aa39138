"""Finds a space by its name, or in a user's own file."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from fer_common.errors import did_you_mean
from sweeps.config import TrialConfig, explain
from sweeps.errors import InputError
from sweeps.space import Space
from sweeps.spaces import SPACES
from sweeps.spaces.rows import ROWS
from sweeps.spec import space_label


def find_space(name: str) -> Space:
    """The built-in space of that name, the `SPACE` of a user's file (`./my_space.py`), or a space of one configuration.

    The last is a row of `sweeps reproduce` (`lenet_inv`) or a configuration file (`….json`).
    """
    if name.endswith(".json"):
        return _of_configuration(_where_it_is(Path(name)))
    if _is_a_file(name):
        return _load_file(_where_it_is(Path(name)))
    if name in ROWS:
        return ROWS[name].as_space(name)
    if name not in SPACES:
        raise InputError(f"unknown space '{name}'{did_you_mean(name, SPACES)}; your own space is a file: ./my_space.py")
    return replace(SPACES[name], name=name)


def recordable(name: str) -> str:
    """A space as a sweep records it: a user's file by its absolute path, since a resume may start in any folder."""
    return str(_where_it_is(Path(name)).absolute()) if _is_a_file(name) else name


def _is_a_file(name: str) -> bool:
    return name.endswith((".py", ".json")) or "/" in name


def _where_it_is(path: Path) -> Path:
    """The path, or a file of that name in the working folder, where a cluster's job has the files sent with it."""
    shipped = Path(path.name)
    return shipped if path.is_absolute() and not path.is_file() and shipped.is_file() else path


def _load_file(path: Path) -> Space:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a space is a Python file that defines SPACE = Space(...)")
    spec = importlib.util.spec_from_file_location(f"fer_space_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file; a space is a file that defines SPACE = Space(...)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if (folder := str(path.parent.absolute())) not in sys.path:
        sys.path.append(folder)  # last, so that files beside it are found but hide nothing
    try:
        spec.loader.exec_module(module)
    except (InputError, KeyboardInterrupt):
        raise
    except ValidationError as error:
        raise InputError(f"{path}: {error.title}: {explain(error)}") from error
    except BaseException as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        raise InputError(f"{path}: defines no SPACE; add SPACE = Space(suggest=..., baselines=[...])")
    return replace(space, name=path.stem)


def _of_configuration(path: Path) -> Space:
    """A space of one configuration, from the file in a trial's folder."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a trial's configuration is in its folder, as config.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a configuration as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a configuration as JSON: expected an object with net and recipe")
    config = TrialConfig.parse(content, str(path))
    return Space(suggest=lambda _: config, trials=1, name=space_label(str(path)))
