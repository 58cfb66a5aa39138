"""The verb `ui`, up to the server that it starts, and what a sweep's end says of the page."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import sweeps.cli.records
from sweeps.cli.main import main
from tracking.mlflow_sync.ui import HOST

Capture = pytest.CaptureFixture[str]


def test_without_a_sweep_it_says_how_to_run_one(capsys: Capture) -> None:
    assert main(["ui"]) == 2
    assert "--out runs: no sweep is there; run one first" in capsys.readouterr().err


def test_the_page_of_the_latest_sweep_is_served_and_shown(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run()
    served = []

    class Ended:
        def wait(self) -> int:
            raise KeyboardInterrupt

    @contextmanager
    def page_server(uri: str, artifacts: Path, port: int) -> Iterator[Ended]:
        served.append((uri, artifacts, port))
        yield Ended()

    monkeypatch.setattr(sweeps.cli.records, "page_server", page_server)
    monkeypatch.setattr("tracking.mlflow_sync.experiment.experiment_page", lambda server, sweep: f"{server}/#/")
    monkeypatch.setattr(sweeps.cli.records, "open_in_browser", lambda page: False)
    assert main(["ui", "--port", "5917"]) == 0
    runs = Path("runs").resolve()
    assert served == [(f"sqlite:///{runs}/mlflow.db", runs / "mlartifacts", 5917)]
    assert f"open in a browser:\n  http://{HOST}:5917/#/" in capsys.readouterr().out


def test_the_end_of_a_sweep_names_the_verb(run: Callable[..., int], out: Path, capsys: Capture) -> None:
    run()
    assert f"python -m sweeps ui night --out {out}   # the MLflow UI" in capsys.readouterr().out
