"""What a cluster's file says, and what is answered to one that says it wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import ClusterConfig, find_token, load_cluster_config, reach
from cluster.connect import ClusterSize, cluster_size
from cluster.errors import ClusterError
from tests import ROOT

CLUSTER = ROOT / "cluster"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def written(folder: Path, block: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(
        "cluster_name: x\nmetadata:\n  fer_sweeps:\n" + "".join(f"    {line}\n" for line in block.splitlines())
    )
    return path


def fault(folder: Path, block: str) -> str:
    with pytest.raises(ClusterError) as caught:
        load_cluster_config(written(folder, block))
    return str(caught.value)


@pytest.mark.parametrize("name", ["on_prem.yaml", "aws.yaml", "gcp.yaml", "kuberay/client.yaml", "mlflow/client.yaml"])
def test_every_file_that_the_project_ships_says_where_it_is(name: str) -> None:
    config = load_cluster_config(CLUSTER / name)
    assert config.address == "http://127.0.0.1:8265"
    assert config.submits
    assert config.storage == "/mnt/fer-sweeps/runs"
    assert config.token is not None


def test_only_its_own_block_is_read(tmp_path: Path) -> None:
    config = load_cluster_config(written(tmp_path, "address: head:6379"))
    assert config == ClusterConfig(address="head:6379")
    assert not config.submits


def test_unknown_keys_are_named_with_the_nearest(tmp_path: Path) -> None:
    said = fault(tmp_path, "adress: auto\ntrackinguri: http://x:1")
    assert "'adress'; did you mean 'address'?" in said
    assert "'trackinguri'; did you mean 'tracking_uri'?" in said


def test_a_password_in_the_options_of_a_uri_is_refused_too(tmp_path: Path) -> None:
    said = fault(tmp_path, "address: auto\ntracking_uri: postgresql://h/db?password=secret")
    assert "MLFLOW_TRACKING_PASSWORD" in said
    assert "secret" not in said


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = fault(
        tmp_path,
        "address: head\nstorage: s3://bucket/runs\ntracking_uri: http://me:secret@mlflow:5000\ntoken: 0123abcd\ngpus: -1",
    )
    assert "'head' is not an address; write auto, HOST:6379 or http://HOST:8265" in said
    assert "'s3://bucket/runs' is not an absolute path" in said
    assert "NFS" in said
    assert "MLFLOW_TRACKING_PASSWORD" in said
    assert "file:PATH or env:NAME, never the token itself" in said
    assert "gpus: must be at least 0" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", ": not one YAML document: "),
        ("metadata: {fer_sweep: {address: auto}}", "no metadata.fer_sweeps, which says how to reach the cluster (it has fer_sweep)"),
        ("- a list", "no metadata.fer_sweeps"),
        ("metadata: {fer_sweeps: auto}", "no metadata.fer_sweeps"),
        ("a: 1\n---\nb: 2", "cluster.yaml:2: not one YAML document: "),
    ],
)  # fmt: skip
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError) as caught:
        load_cluster_config(path)
    assert said in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"No such file.*cluster/on_prem\.yaml"):
        load_cluster_config(tmp_path / "nowhere.yaml")


def test_an_address_wins_over_the_files_and_local_is_no_cluster(tmp_path: Path) -> None:
    path = written(tmp_path, "address: http://head:8265\nstorage: /mnt/runs")
    assert reach(path, "auto") == ClusterConfig(address="auto", storage="/mnt/runs")
    assert reach(None, "http://head:8265/") == ClusterConfig(address="http://head:8265")
    assert reach(None, None) is None
    assert reach(path, "local") is None


def test_ray_client_is_turned_away_with_the_way_to_submit() -> None:
    with pytest.raises(ClusterError, match="submit it instead: http://head:8265"):
        reach(None, "ray://head:10001")


def test_a_token_comes_from_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "token"
    own.write_text("from-file\n")
    own.chmod(0o600)
    monkeypatch.setenv("MINE", "from-env")
    assert find_token(f"file:{own}") == "from-file"
    assert find_token("file:~/token") == "from-file"
    assert find_token("env:MINE") == "from-env"
    assert find_token() is None


def test_without_a_source_it_comes_from_where_ray_looks_and_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ray").mkdir()
    for name in (".ray/auth_token", "other"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
    assert find_token() == ".ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert find_token() == "other"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "first")
    assert find_token() == "first"


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "token"
    own.write_text("x")
    own.chmod(0o640)
    with pytest.raises(ClusterError, match=f"mode 640 lets others read it; chmod 600 {own}"):
        find_token(f"file:{own}")


@pytest.mark.parametrize("source", ["env:NOT_SET", "file:/nowhere/token"])
def test_a_source_that_holds_nothing(source: str) -> None:
    with pytest.raises(ClusterError, match=r"nothing there|No such file"):
        find_token(source)


def test_a_cluster_without_workers_has_the_size_that_its_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[dict[str, Any]] = [{"Alive": True, "Resources": {"node:10.0.0.1": 1.0}}]
    monkeypatch.setattr("ray.nodes", lambda: there)
    assert cluster_size(64, 8) == ClusterSize((64,), (8,))
    with pytest.raises(ClusterError, match=r"no core for trials yet; .* metadata\.fer_sweeps\.cpus and \.gpus"):
        cluster_size()
    there += [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 32.0}},
        {"Alive": True, "Resources": {"CPU": 2.0}},
    ]
    assert cluster_size() == ClusterSize((4, 2), (1,))
    assert cluster_size(2, 0) == ClusterSize((4, 2), (1,)), "what is there counts where it is more"
    assert cluster_size(10, 2) == ClusterSize((4, 2, 4), (1, 1))
