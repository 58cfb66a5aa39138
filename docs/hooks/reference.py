"""Pages of the site that are made from the code when the site is built: commands, API, contributing, changelog."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from cluster.cli import parser as cluster_parser
from fer_data.cli import parser as data_parser
from fer_models.__main__ import parser as models_parser
from sweeps.cli.main import parser as sweeps_parser
from tracking.mlflow_sync.serve import parser as serve_parser

ROOT = Path(__file__).parents[2]
API = {
    "sweeps": ("sweeps",),
    "fer_data": ("fer_data",),
    "fer_models": ("fer_models",),
    "tracking": (
        "tracking.errors",
        "tracking.record.layout",
        "tracking.record.journal",
        "tracking.record.events",
        "tracking.record.history",
        "tracking.metrics.scores",
        "tracking.metrics.summary",
    ),
}
PARSERS = (sweeps_parser, data_parser, models_parser, serve_parser, cluster_parser)
FROM_THE_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those in docs/."""
    pages = {"commands.md": command_reference()}
    pages |= {f"api/{package}.md": api_page(package, modules) for package, modules in API.items()}
    pages |= {page: (ROOT / source).read_text().replace("](docs/", "](") for page, source in FROM_THE_ROOT.items()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def api_page(package: str, modules: Sequence[str]) -> str:
    """One heading per public name of the modules; mkdocstrings fills in signatures and docstrings."""
    return f"# {package}\n\n" + "\n".join(block for module in modules for block in _module(module))


def _module(name: str) -> Iterator[str]:
    """What a module exports, where it says so, else every public name that is defined in it."""
    exported = getattr(importlib.import_module(name), "__all__", None)
    if exported is None:
        yield f"::: {name}\n    options:\n      show_root_full_path: true\n"
        return
    yield f"::: {name}\n    options:\n      members: false\n      show_root_heading: false\n"
    yield from (f"::: {name}.{member}\n" for member in exported)


def command_reference() -> str:
    """Every command with its options, from the parsers that read them."""
    intro = (
        "# Commands\n\nEvery command prints the same with `--help`. "
        "`python -m sweeps.run …` is short for `python -m sweeps run …`.\n\n"
    )
    return intro + "\n".join(section for make in PARSERS for section in _sections(make()))


def _sections(parser: argparse.ArgumentParser) -> Iterator[str]:
    verbs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not verbs:
        yield _section(parser, parser.description or "")
    for action in verbs:
        summaries = {choice.dest: _help(choice) for choice in action._choices_actions}
        for name, verb in action.choices.items():
            nested = any(isinstance(one, argparse._SubParsersAction) for one in verb._actions)
            yield from _sections(verb) if nested else (_section(verb, summaries.get(name, "")),)


def _section(parser: argparse.ArgumentParser, summary: str) -> str:
    rows = [row for group in parser._action_groups for action in group._group_actions if (row := _row(action))]
    table = ["| argument | meaning |", "|---|---|", *rows]
    more = f"\n\n{parser.epilog}" if parser.epilog else ""
    return f"## {parser.prog}\n\n{_sentence(summary)}{more}\n\n" + "\n".join(table) + "\n"


def _row(action: argparse.Action) -> str | None:
    if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
        return None
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest)
    takes_value = action.nargs != 0
    names = [f"{option} {value}" if takes_value else option for option in action.option_strings] or [str(value)]
    choices = f"; one of {', '.join(map(str, action.choices))}" if action.choices and action.metavar else ""
    return f"| `{_cell(', '.join(names))}` | {_cell(_help(action) + choices)} |"


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
