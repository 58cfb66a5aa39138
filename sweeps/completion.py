"""The script that completes `python -m sweeps …` in bash and zsh, made from the parser.

The script does not start Python: it contains all words, and looks up the names of sweeps and trials in --out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping

_SCRIPT = r"""# Completes `python -m sweeps` and `python -m sweeps.run` in bash, and in zsh through its bashcompinit.
if [ -n "${ZSH_VERSION-}" ]; then
  autoload -Uz compinit bashcompinit
  (( ${+functions[compdef]} )) || compinit
  bashcompinit
fi
# What may come at a place: `VERB` for its options, `VERB --option` for the option's values, `VERB 1` for its first
# argument. @sweeps, @runs and @trials are looked up in --out; @unknown is a file, a number or a text.
_fer_sweeps_words() {
  case "$1" in
@@WORDS@@
  esac
}
_fer_sweeps_names() {
  find "$1" -mindepth 2 -maxdepth 2 -name journal.jsonl 2>/dev/null | while IFS= read -r path; do
    path=${path%/journal.jsonl}
    echo "${path##*/}"
  done
}
_fer_sweeps_trials() {
  find "$1/trials" -mindepth 1 -maxdepth 1 -name '[0-9]*' 2>/dev/null | while IFS= read -r path; do
    path=${path##*/}
    while [ "${path#0}" != "$path" ] && [ "$path" != 0 ]; do path=${path#0}; done
    echo "$2$path"
  done
}
_fer_sweeps() {
  local cur="${COMP_WORDS[COMP_CWORD]}" verb="" option="" name="" out=runs place=0 at=3 word words
  COMPREPLY=()
  [ "${COMP_WORDS[1]-}" = -m ] || return 0
  case "${COMP_WORDS[2]-}" in
    sweeps) ;;
    sweeps.run) verb=run ;;
    *) return 0 ;;
  esac
  [ "$COMP_CWORD" -gt 2 ] || return 0
  while [ "$at" -lt "$COMP_CWORD" ]; do
    word="${COMP_WORDS[at]}"
    at=$((at + 1))
    if [ "$word" = "=" ]; then continue; fi
    if [ -n "$option" ]; then
      [ "$option" = --out ] && out="${word/#\~/$HOME}"
      option=""
    elif [ -z "$verb" ]; then
      verb="$word"
    elif [ "${word#-}" != "$word" ]; then
      [ -n "$(_fer_sweeps_words "$verb $word")" ] && option="$word"
    else
      place=$((place + 1))
      [ "$place" = 1 ] && name="$word"
    fi
  done
  [ "$cur" = "=" ] && cur=""
  if [ -n "$option" ]; then
    words="$(_fer_sweeps_words "$verb $option")"
  elif [ -z "$verb" ]; then
    words="$(_fer_sweeps_words "")"
  elif [ "${cur#-}" != "$cur" ]; then
    words="$(_fer_sweeps_words "$verb")"
  else
    words="$(_fer_sweeps_words "$verb $((place + 1))")"
    [ -n "$words" ] || words="$(_fer_sweeps_words "$verb more")"
  fi
  case "$words" in
    @sweeps) words="$(_fer_sweeps_names "$out")" ;;
    @trials) words="$(_fer_sweeps_trials "$out/$name" "")" ;;
    @runs)
      if [ "${cur%/*}" != "$cur" ]; then
        words="$(_fer_sweeps_trials "$out/${cur%%/*}" "${cur%%/*}/")"
      else
        words="$(_fer_sweeps_names "$out")"
      fi
      ;;
    @*) words="" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _fer_sweeps python python3
"""
_LOOKED_UP = {"NAME": "@sweeps", "RUN": "@runs", "TRIAL": "@trials"}
_UNKNOWN = "@unknown"


def completion_script(parser: argparse.ArgumentParser, known: Mapping[str, Iterable[str]]) -> str:
    """The script. `known` has the values of a metavar, such as SPACE."""
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = [_line("", verbs.choices)]
    for name, verb in verbs.choices.items():
        lines += [_line(key, words) for key, words in _places(name, verb, known)]
    return _SCRIPT.replace("@@WORDS@@", "\n".join(lines))


def _line(key: str, words: Iterable[object]) -> str:
    return f"""    "{key}") echo "{" ".join(map(str, words))}" ;;"""


def _places(
    verb: str, parser: argparse.ArgumentParser, known: Mapping[str, Iterable[str]]
) -> Iterator[tuple[str, Iterable[str]]]:
    yield verb, [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
    positional = 0
    for action in parser._actions:
        metavar = str(action.metavar)
        words = action.choices or known.get(metavar) or [_LOOKED_UP.get(metavar, _UNKNOWN)]
        if not action.option_strings:
            positional += 1
            yield f"{verb} {positional}", words
            if action.nargs in ("*", "+"):
                yield f"{verb} more", words
        elif action.nargs != 0:
            yield from ((f"{verb} {word}", words) for word in action.option_strings)
