"""A sweep handed over to a cluster: what its job is told. The handing over itself is in tests/cluster."""

from pathlib import Path

from sweeps.cli.cluster_verbs import job_arguments
from sweeps.cli.main import main


def test_the_job_gets_the_command_line_but_for_the_address() -> None:
    said = ["lenet_space", "--name", "lenet_space", "--address", "http://head:8265", "--trials", "3"]
    assert job_arguments(said, []) == ["lenet_space", "--name", "lenet_space", "--trials", "3"]
    assert job_arguments(["run", *said], []) == ["lenet_space", "--name", "lenet_space", "--trials", "3"]
    assert job_arguments(["lenet_space", "--address=auto"], []) == ["lenet_space"]


def test_shipped_files_go_by_their_bare_names() -> None:
    shipped = [Path("mine/my_space.py"), Path("cluster/aws.yaml")]
    said = ["mine/my_space.py", "--cluster=cluster/aws.yaml", "--trials", "3"]
    assert job_arguments(said, shipped) == ["my_space.py", "--cluster=aws.yaml", "--trials", "3"]
    said[1:2] = ["--cluster", "cluster/aws.yaml"]
    assert job_arguments(said, shipped) == ["my_space.py", "--cluster", "aws.yaml", "--trials", "3"]


def test_looking_afar_needs_a_place(capsys) -> None:
    assert main(["logs", "night"]) == 2
    assert "say which cluster" in capsys.readouterr().err


def test_a_space_in_a_folder_is_renamed_however_it_is_written() -> None:
    shipped = [Path("./dir/my_space.py"), Path("./cluster/aws.yaml")]
    said = ["./dir/my_space.py", "--cluster=./cluster/aws.yaml", "--trials", "3"]
    assert job_arguments(said, shipped) == ["my_space.py", "--cluster=aws.yaml", "--trials", "3"]
