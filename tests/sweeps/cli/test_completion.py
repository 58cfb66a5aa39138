"""The completion script, as bash runs it when Tab is pressed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sweeps.cli.main import main

_ASK = 'COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); . "$1"; _fer_sweeps; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("night", "dusk"):
        (tmp_path / name / "trials/0010").mkdir(parents=True)
        (tmp_path / name / "trials/0000").mkdir()
        (tmp_path / name / "journal.jsonl").touch()
    (tmp_path / "no_sweep").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sweeps", "unp"], {"unpause"}),
        (["sweeps", "inspect", "--me"], {"--method"}),
        (["sweeps", "inspect", "night", "--method", ""], {"gradcam", "occlusion"}),
        (["sweeps", "svm", "--kernel", "=", "r"], {"rbf"}),
        (["sweeps.run", "lenet_s"], {"lenet_space"}),
        (["sweeps.run", "lenet_space", "--runner", ""], {"ray", "inline"}),
        (["sweeps.run", "lenet_space", "--lanes", ""], {"auto", "1", "2", "4"}),
        (["sweeps", "status", "--out", "RUNS", ""], {"night", "dusk"}),
        (["sweeps", "status", "--json", "--out", "=", "RUNS", "n"], {"night"}),
        (["sweeps", "stop", "--out", "RUNS", "night", ""], {"0", "10"}),
        (["sweeps", "compare", "--out", "RUNS", "dusk/0", "night/1"], {"night/10"}),
        (["sweeps", "predict", ""], {""}),
        (["pytest", ""], {""}),
    ],
)
def test_the_next_word(words: list[str], expected: set[str], runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 0
    script = runs / "script"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    typed = ["python", "-m", *(str(runs) if word == "RUNS" else word for word in words)]
    done = subprocess.run(
        ["bash", "--norc", "-c", _ASK, "bash", script, *typed], capture_output=True, encoding="utf-8", check=True
    )
    assert set(done.stdout.splitlines()) == expected
    assert done.stderr == ""
