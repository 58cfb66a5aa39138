"""TLS between the nodes of a cluster, with certificates of an authority of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate, certificate, needs_openssl
from tests.cluster.journal_laws import check_finished
from tests.cluster.processes import environment, python

pytestmark = [pytest.mark.slow, needs_openssl]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 2, "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of gRPC says first; a server that takes it answers in kind."""


def tls(made: Certificate) -> dict[str, str]:
    """What `docs/security.md` says to set on every node and driver."""
    return {"RAY_USE_TLS": "1", "RAY_TLS_SERVER_CERT": str(made.certificate), "RAY_TLS_SERVER_KEY": str(made.key),
            "RAY_TLS_CA_CERT": str(made.authority)}  # fmt: skip


@pytest.fixture(scope="module")
def own_address() -> str:
    from ray._private.services import get_node_ip_address

    return str(get_node_ip_address())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, own_address: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and environment of two nodes that speak TLS."""
    folder = tmp_path_factory.mktemp("cluster")
    inside = environment(folder) | tls(certificate(folder / "tls", "127.0.0.1", own_address))
    with (folder / "cluster.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", CLUSTER], env=inside, cwd=folder, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)  # fmt: skip
    assert process.stdin
    assert process.stdout
    address = process.stdout.readline().strip()
    assert address, (folder / "cluster.log").read_text()
    yield address, inside
    process.stdin.close()
    process.wait(60)


def test_a_sweep_runs_over_two_nodes_that_speak_tls(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, inside = cluster
    asked = {"name": "night", "out": str(tmp_path), "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
             "address": address, "trials": 5}  # fmt: skip
    done = python(inside, "-m", "tests.cluster.quick_trials", json.dumps(asked), timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    check_finished(tmp_path / "night", 5)


def answer(address: str, client: Certificate | None) -> bytes:
    """What the control store's port says to a client with this certificate, or to one in the clear."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10) as bare:
        if client is None:
            bare.sendall(GREETING)
            return bare.recv(100)
        context = ssl.create_default_context(cafile=client.authority)
        context.load_cert_chain(client.certificate, client.key)
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(bare, server_hostname=host) as wrapped:
            wrapped.sendall(GREETING)
            return wrapped.recv(100)


def test_the_control_store_answers_the_clusters_own_certificates_alone(
    cluster: tuple[str, dict[str, str]], own_address: str, tmp_path: Path
) -> None:
    address, inside = cluster
    names = ("RAY_TLS_CA_CERT", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY")
    own = Certificate(*(Path(inside[name]) for name in names))
    stranger = certificate(tmp_path / "stranger", "127.0.0.1", own_address)
    assert answer(address, own)[3:4] == b"\x04", "its settings, the first frame of HTTP/2"
    with pytest.raises(ssl.SSLCertVerificationError):  # neither would it be trusted
        answer(address, stranger)
    assert answer(address, Certificate(own.authority, stranger.certificate, stranger.key)) == b""
    with contextlib.suppress(ConnectionError):
        assert answer(address, None) == b""
