"""A sweep handed over to a cluster: what its job is told. The handing over itself is in tests/cluster."""

import pytest

from cluster.config import ClusterConfig
from sweeps.cli import arguments
from sweeps.cli.cluster_verbs import job_arguments
from sweeps.cli.main import main


def job(*said: str, verb: tuple[str, ...] = (), **config: str) -> list[str]:
    parser = arguments.parser() if verb else arguments.run_parser()
    given = parser.parse_args([*verb, *said])
    return job_arguments(given, arguments.options(given), ClusterConfig(address="http://head:8265", **config))


def test_the_job_gets_the_command_line_but_for_the_address() -> None:
    said = ["lenet_space", "--name", "lenet_space", "--address", "http://head:8265", "--trials", "3", "--set", "lr=0.1"]
    expected = ["--trials", "3", "--set", "recipe.lr=0.1", "--address", "auto", "--name", "lenet_space"]
    assert job(*said) == ["lenet_space", *expected]
    assert job(*said, verb=("run",)) == ["lenet_space", *expected]
    assert job("lenet_space", "--dry-run", "--resume", "--name=n") == [
        "lenet_space", "--address", "auto", "--name", "n", "--resume", "--dry-run"
    ]  # fmt: skip


def test_the_cluster_file_says_where_only_where_the_command_line_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_DATA", "/here/fer2013.csv")
    places = {"storage": "/mnt/runs", "tracking_uri": "http://m:5000", "data": "/mnt/f.csv"}
    assert job("lenet_space", **places) == [
        "lenet_space", "--data", "/mnt/f.csv", "--address", "auto", "--out", "/mnt/runs",
        "--tracking-uri", "http://m:5000",
    ]  # fmt: skip
    said = ["--data=/mnt/other.csv", "--out=/mnt/mine"]
    assert job("lenet_space", *said, **places)[:7] == [
        "lenet_space", "--data", "/mnt/other.csv", "--address", "auto", "--out", "/mnt/mine"
    ]  # fmt: skip


def test_shipped_files_go_by_their_bare_names() -> None:
    expected = ["my_space.py", "--cluster", "aws.yaml", "--trials", "3", "--address", "auto"]
    assert job("mine/my_space.py", "--cluster=cluster/aws.yaml", "--trials", "3") == expected
    assert job("./mine/my_space.py", "--cluster", "./cluster/aws.yaml", "--trials", "3") == expected


def test_looking_afar_needs_a_place(capsys) -> None:
    assert main(["logs", "night"]) == 2
    assert "no sweep 'night'" in capsys.readouterr().err
