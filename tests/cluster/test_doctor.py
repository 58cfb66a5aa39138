"""The doctor's verdicts, each beside the fault that it is for, and the doctor on this machine."""

from __future__ import annotations

import json
import platform
import ssl
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ray import cloudpickle

from cluster import checks, probe
from cluster.checks import Check
from cluster.cli import main
from cluster.doctor import DoctorReport, probe_sent_as_code, tracking_check
from cluster.errors import ClusterError
from cluster.probe import NodeFacts, Probe
from tests.certificates import Certificate, certificate, needs_openssl

pytestmark = pytest.mark.timeout(120)

GIB = 1 << 30
VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.14.1", "mlflow": "3.17.2"}


def node(**facts: object) -> NodeFacts:
    whole = {"host": "a", "versions": VERSIONS, "gpus_seen": 1, "gpu_kinds": ("H100 (9.0)",), "torch_said": "built for CUDA 13.0",
             "shared_memory_bytes": 8 * GIB, "auth_mode": "token"}  # fmt: skip
    return NodeFacts(**whole | facts)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


class Tracker(BaseHTTPRequestHandler):
    """MLflow, as far as the doctor looks: alive for all, its API for user `me` alone."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Basic bWU6c2VjcmV0"  # me:secret
        self.send_response(200 if self.path == "/health" or known else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def tracker_server(made: Certificate | None = None) -> Iterator[str]:
    """The address of a tracker, with TLS if it has a certificate."""
    server = HTTPServer(("127.0.0.1", 0), Tracker)
    if made:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http{'s' if made else ''}://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def tracker() -> Iterator[str]:
    with tracker_server() as address:
        yield address


def test_versions_that_differ_are_named_with_both_nodes() -> None:
    other = node(versions=VERSIONS | {"ray": "2.59.0"})
    check = checks.versions({"head": node(), "worker": other}, "head")
    assert (check.status, check.detail) == ("failed", "worker: ray 2.59.0, head has 2.60.0")
    assert "one image on all nodes" in check.fix
    assert checks.versions({"head": node(), "worker": node()}, "head").status == "ok"


def test_a_package_that_is_missing_everywhere_is_no_agreement() -> None:
    bare = node(versions=VERSIONS | {"torch": "not installed"})
    assert checks.versions({"head": bare, "worker": bare}, "head").detail == "head: torch is not installed"


@pytest.mark.parametrize(
    ("facts", "claimed", "status", "said"),
    [
        ({}, 1, "ok", "1 GPUs, each multiplied matrices: 1 × H100 (9.0)"),
        ({"gpus_seen": 0, "torch_said": "CUDA driver too old"}, 1, "failed", "w: 1 GPUs, torch sees 0 (CUDA driver too old)"),
        ({"gpu_faults": ("T4 (7.5): no kernel image is available",)}, 1, "failed", "w: T4 (7.5): no kernel image is available"),
        ({"gpus_seen": None, "torch_said": "No module named 'torch'"}, 0, "failed", "w: torch cannot be queried: No module named 'torch'"),
        ({"gpus_seen": 0}, 0, "ok", "1 node, none with a GPU: trials run on cores"),
    ],
)  # fmt: skip
def test_gpus(facts: dict[str, object], claimed: int, status: str, said: str) -> None:
    check = checks.gpus({"w": node(**facts)}, {"w": claimed})
    assert (check.status, check.detail) == (status, said)


FAKE_TORCH = """
import sys
import torch
real = torch.device
torch.device = lambda kind, index: real("cpu")
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_capability = lambda device: (7, 5)
torch.cuda.get_device_name = lambda device: "Tesla T4"
torch.allclose = lambda *_, **__: {right}
"""


@pytest.mark.parametrize("right", [True, False])
def test_each_gpu_multiplies_matrices(right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own program, on cores that pass for two GPUs."""
    monkeypatch.setattr("cluster.probe._TRY_GPUS", FAKE_TORCH.format(right=right) + probe._TRY_GPUS)
    facts = NodeFacts(**Probe().facts(own_devices=True))
    kind = "Tesla T4 (compute capability 7.5, no bf16)"
    assert (facts.gpus_seen, facts.gpu_kinds) == (2, (kind, kind))
    wrong = f"{kind}: a matrix product in torch.float32 is wrong"
    assert facts.gpu_faults == (() if right else (wrong, wrong))
    assert checks.gpus({"w": facts}, {"w": 2}).status == ("ok" if right else "failed")


def test_a_containers_64_mib_of_shared_memory() -> None:
    check = checks.shared_memory({"w": node(shared_memory_bytes=64 << 20)})
    assert (check.status, check.detail) == ("failed", "w: /dev/shm has 64 MiB, 1024 needed")
    assert "--shm-size" in check.fix


def test_clocks_are_judged_beyond_what_the_measurement_may_be_off_by() -> None:
    def status(*skews: tuple[float, float]) -> str:
        return checks.clocks({str(place): skew for place, skew in enumerate(skews)}).status

    assert status((0.0, 0.01), (1.5, 0.01)) == "failed"
    assert status((0.0, 0.01), (-1.5, 0.01)) == "failed"
    assert status((0.0, 0.01), (1.5, 0.6)) == "ok"
    assert status((9.0, 0.0)) == "skipped"


def test_storage_that_is_a_folder_of_each_nodes_own() -> None:
    check = checks.storage("/mnt/x", {"a": "", "b": ""}, {"a": ["b"], "b": ["a"]}, 9 * GIB)
    assert (check.status, check.detail) == ("failed", "a cannot read the files of b; b cannot read the files of a")
    assert checks.storage("/mnt/x", {"a": "", "b": ""}, {"a": [], "b": []}, 9 * GIB).status == "ok"
    assert checks.storage("/mnt/x", {"a": ""}, {"a": []}, GIB // 2).detail == "/mnt/x: 0.50 GiB free, 1 needed"
    assert "b cannot write: /mnt/x: Permission denied" in checks.storage(
        "/mnt/x", {"a": "", "b": "/mnt/x: Permission denied"}, {"a": []}, GIB).detail  # fmt: skip


def test_locks_that_do_not_cross_nodes() -> None:
    assert "can be taken again on b" in checks.locks("/mnt/x", ["b"], "").detail
    assert checks.locks("/mnt/x", [], "").status == "ok"


@pytest.mark.parametrize(
    ("statuses", "status", "said"),
    [
        ((200, "OK", 200), "ok", "accepts this login"),
        ((200, "OK", 404), "ok", "accepts this login"),
        ((0, "Connection refused", 0), "failed", "Connection refused"),
        ((200, "OK", 401), "failed", "answers 401 with this login"),
        ((200, "OK", 500), "failed", "its API answers 500"),
    ],
)
def test_mlflow(statuses: tuple[int, str, int], status: str, said: str) -> None:
    check = checks.tracking("http://m:5000", *statuses)
    assert check.status == status
    assert said in check.detail


@pytest.mark.parametrize(("statuses", "status"), [((401, 403), "ok"), ((200, 200), "failed"), ((500, 500), "warn")])
def test_access(statuses: tuple[int, int], status: str) -> None:
    assert checks.access("http://h:8265", *statuses).status == status


def test_nodes_without_token_authentication_and_ports_that_are_shut() -> None:
    assert checks.node_tokens({"a": node(), "b": node(auth_mode="disabled")}).detail == "b: RAY_AUTH_MODE is disabled"
    assert checks.ports({"a": ["10.0.0.2:8076"], "b": []}, 2).detail == "a cannot reach 10.0.0.2:8076"


def test_every_check_that_fails_has_a_mend() -> None:
    bad = node(versions={**VERSIONS, "ray": "0"}, gpus_seen=0, shared_memory_bytes=0, auth_mode="not set")
    nodes = {"a": node(), "b": bad}
    failed = [checks.versions(nodes, "a"), checks.gpus(nodes, {"a": 1, "b": 1}), checks.shared_memory(nodes),
              checks.clocks({"a": (0, 0), "b": (9, 0)}), checks.storage("/x", {"a": "no"}, {}, 0), checks.locks("/x", ["b"], ""),
              checks.tracking("http://m", 0, "", 0), checks.ports({"a": ["b:1"]}, 1), checks.node_tokens(nodes),
              checks.access("http://h", 200, 200)]  # fmt: skip
    assert [check.status for check in failed] == ["failed"] * len(failed)
    assert all(check.fix for check in failed)


def test_a_lock_is_seen_by_another_probe_until_it_is_let_go(tmp_path: Path) -> None:
    holder, other = Probe(), Probe()
    path = str(tmp_path / "lock")
    assert holder.hold(path) == ""
    assert other.is_held(path)
    holder.release()
    assert not other.is_held(path)


def test_files_that_do_not_show_are_named(tmp_path: Path) -> None:
    probe = Probe()
    assert probe.write(str(tmp_path), "one") == ""
    assert probe.unread(str(tmp_path), ["one", "two"], 0.0) == ["two"]
    assert probe.write("/proc/nowhere", "one") == "/proc/nowhere: No such file or directory"
    probe.remove(str(tmp_path), ["one", "two"])
    assert not list(tmp_path.iterdir())


def test_the_folder_of_sweeps_is_made_but_not_the_mount_that_it_is_in(tmp_path: Path) -> None:
    runs, unmounted = tmp_path / "mount/runs", tmp_path / "unmounted/runs"
    runs.parent.mkdir()
    for name in ("one", "two"):
        assert Probe().write(str(runs), name) == ""
    assert Probe().unread(str(runs), ["one", "two"], 0.0) == []
    assert Probe().write(str(unmounted), "one") == f"{unmounted}: No such file or directory"


def test_a_node_without_the_project_is_measured(tmp_path: Path) -> None:
    """Ray sends the probe as cloudpickle pickles it; the child process imports nothing of this folder."""
    with probe_sent_as_code():
        (tmp_path / "probe").write_bytes(cloudpickle.dumps(Probe))
    libraries = sysconfig.get_path("purelib")  # without the file there that names the project's folder
    script = f"""
import importlib.util, pickle, sys
sys.path.append({libraries!r})
assert importlib.util.find_spec("fer_common") is None
with open("probe", "rb") as file:
    print(pickle.load(file)().facts(True)["versions"]["python"])
"""
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=tmp_path, env={"HOME": str(tmp_path)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, platform.python_version()), done.stderr


def test_mlflow_is_asked_with_the_login_that_its_client_would_use(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Probe().tracking(tracker, 5.0) == (200, "", 401)
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = secret\n"
    )
    assert Probe().tracking(tracker, 5.0) == (200, "", 200)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "you")
    assert Probe().tracking(tracker, 5.0)[2] == 401


@needs_openssl
def test_mlflow_is_asked_with_the_authority_that_its_client_would_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificate(tmp_path / "tls", "127.0.0.1")
    monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH", raising=False)
    with tracker_server(made) as address:
        status, text, _ = Probe().tracking(address, 5.0)
        assert (status, "certificate verify failed" in text) == (0, True)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(made.authority))
        assert Probe().tracking(address, 5.0) == (200, "", 401)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/nowhere/ca.crt")
        missing = (0, "certificate authority /nowhere/ca.crt: No such file or directory", 0)
        assert Probe().tracking(address, 5.0) == missing


def test_a_login_in_the_uri_is_used_and_its_password_not_shown(
    tracker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for password, status in (("secret", "ok"), ("other", "failed")):
        check = tracking_check(tracker.replace("//", f"//me:{password}@"), Probe().tracking)
        assert check.status == status
    main(["doctor", "--json", "--tracking-uri", tracker.replace("//", "//me:secret@")])
    shown = capsys.readouterr().out
    (check,) = [Check(**check) for check in json.loads(shown)["checks"] if check["name"] == "MLflow"]
    assert check.status == "ok"
    assert check.detail.startswith("http://me:…@127.0.0.1:")
    assert "secret" not in shown


@pytest.mark.parametrize("uri", ["127.0.0.1:5000", "http://me:se#cret@h", "http://h:99999", "http://[h"])
def test_a_tracking_uri_that_is_no_address_fails_its_check(uri: str) -> None:
    check = tracking_check(uri, Probe().tracking)
    assert (check.status, check.detail) == ("failed", "the tracking URI is not an address")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--tracking-uri http://me:secret@h", "http://me:…@h"),
        ("--traking-uri=http://me:secret@h", "http://me:…@h"),
        ("--tracking-uri postgresql://h/db?password=secret", "postgresql://h/db?password=…: has a password"),
    ],
)
def test_a_password_is_shown_by_no_message_and_is_no_word_of_a_job(
    word: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--address", "http://127.0.0.1:9", *word.split()]) == 2
    message = capsys.readouterr().err
    assert shown in message
    assert "secret" not in message


def test_this_machine_passes_and_is_left_as_it_was(
    tmp_path: Path, tracker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {check["name"]: check["status"] for check in report["checks"]}
    assert set(found) == {"versions", "gpus", "shared memory", "storage", "locks", "MLflow", "clocks", "ports", "token"}
    assert report["place"] == "this machine"
    assert found["storage"] == found["locks"] == found["MLflow"] == "ok"
    assert code == (0 if "failed" not in found.values() else 1)
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_fails_is_shown_with_its_mend_and_exits_1(
    tracker: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.probe._tried_gpus", lambda own: ([], "built for CUDA 13.0"))
    assert main(["doctor", "--tracking-uri", tracker]) == 1
    shown = capsys.readouterr().out
    assert f"failed   MLflow         {tracker}: runs, but answers 401 with this login" in shown
    assert "fix: set MLFLOW_TRACKING_USERNAME" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["doctor", "nowhere.yaml"], "error: nowhere.yaml: No such file or directory"),
        (["doctor", "--address", "head"], "error: --address 'head' is not an address"),
        (["doctor", "--address", "http://127.0.0.1:9"], "error: http://127.0.0.1:9: [Errno 111] Connection refused; is the cluster up"),
        (["docter"], "error: argument VERB: unknown 'docter'; did you mean 'doctor'?"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exits_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(said)


def test_a_report_is_found_again_in_what_a_job_printed() -> None:
    report = DoctorReport("2 nodes", (checks.Check("clocks", "failed", "b: +3.0 s", "run chrony"),))
    assert DoctorReport.from_log(f"2026 INFO noise\n{report.as_json()}\nbye\n") == report
    assert not report.healthy
    with pytest.raises(ClusterError, match=r"did not finish.*\nTraceback"):
        DoctorReport.from_log("Traceback: boom")
