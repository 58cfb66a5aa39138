"""Real Ray on this machine: a head with a token and its Jobs API, and a cluster of two nodes."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.processes import TOKEN, environment, needs_ray_default, python, ray_head, wait_for
from tests.ports import free_port

pytestmark = [pytest.mark.slow, needs_ray_default]


@dataclass(frozen=True)
class Head:
    """A head that runs on this machine, and where its Jobs API is."""

    url: str
    gcs: str
    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder, dashboard = tmp_path_factory.mktemp("head"), free_port()
    url = f"http://127.0.0.1:{dashboard}"
    jobs = (f"--dashboard-port={dashboard}", "--include-dashboard=true", "--dashboard-host=127.0.0.1")
    with ray_head(folder, *jobs) as gcs:
        wait_for(lambda: status(url, TOKEN) == 200, 120, lambda: (folder / "head.log").read_text())
        yield Head(url, gcs, folder, environment(folder))


def status(url: str, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/api/jobs/", headers=headers), timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_jobs_api_answers_401_without_a_token_403_to_a_wrong_one_and_200_to_the_right_one(head: Head) -> None:
    assert [status(head.url, token) for token in (None, "wrong", TOKEN)] == [401, 403, 200]


def test_a_node_with_a_wrong_token_cannot_join(head: Head, tmp_path: Path) -> None:
    wrong = environment(tmp_path)
    (tmp_path / "token").write_text("ab" * 32)
    done = python(wrong, "-c", f"import ray; ray.init(address='{head.gcs}')", timeout=120)
    assert done.returncode != 0
    assert re.search(r"[Aa]uth|[Tt]oken", done.stderr)


SUBMIT = """
import sys, pathlib
from cluster.config import ClusterConfig
from cluster.submit import Jobs, exit_code
jobs = Jobs(ClusterConfig(address=sys.argv[1]))
own = pathlib.Path("space_of_mine.py")
own.write_text("print('shipped', __file__)")
job = jobs.submit("night", ["python", "-c", sys.argv[2]], files=[own])
print("submitted", job.submission_id, flush=True)
sys.exit(exit_code(jobs.follow("night", lambda piece: print(piece, end="", flush=True))))
"""
LONG = """
import os, signal, sys, time, runpy
import sweeps, cluster
print("code from", os.path.dirname(sweeps.__file__))
runpy.run_path("space_of_mine.py")
print("secrets", [n for n in os.environ if "TOKEN" in n and "PATH" not in n])
signal.signal(signal.SIGTERM, lambda *_: (print("saving"), time.sleep(6), print("saved"), sys.exit(143)))
for step in range(120):
    print("step", step, flush=True); time.sleep(0.5)
"""


def test_a_sweep_is_handed_over_watched_left_stopped_and_taken_up_again(head: Head) -> None:
    """`follow` is killed, as a laptop that is closed: the job continues; stop gives it the time to save."""
    follower = subprocess.Popen([sys.executable, "-c", SUBMIT, head.url, LONG], env=head.environment, cwd=head.folder,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    assert follower.stdout
    shown = []
    for line in follower.stdout:
        shown.append(line)
        if line.startswith("step 3"):
            break
    follower.kill()
    follower.wait()
    text = "".join(shown)
    assert "submitted night\n" in text
    assert "/working_dir_files/" in text.partition("code from ")[2].splitlines()[0]
    assert "shipped space_of_mine.py" in text
    assert "secrets []" in text

    from_afar = f"""
from cluster.config import ClusterConfig
from cluster.submit import Jobs
jobs = Jobs(ClusterConfig(address={head.url!r}))
print(jobs.find("night").status)
try:
    jobs.submit("night", ["true"])
except Exception as error:
    print(error)
try:
    jobs.find("nigth")
except Exception as error:
    print(error)
print(jobs.stop("night"))
job = jobs.follow("night", lambda piece: None)
print(job.status, "saved" in jobs.logs("night"), jobs.stop("night"))
again = jobs.submit("night", ["python", "-c", "import sys; print('again'); sys.exit(3)"])
done = jobs.follow("night", lambda piece: print(piece, end=""))
print(again.submission_id, done.status, done.exit_code)
"""
    done = python(head.environment, "-c", from_afar)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == "RUNNING"
    assert "sweep 'night' is running" in lines[1]
    assert "did you mean 'night'?" in lines[2]
    assert lines[3:5] == ["True", "STOPPED True False"]
    assert "again" in lines
    assert lines[-1] == "night.2 FAILED 3"


def test_the_doctor_looks_from_afar_and_from_within(head: Head) -> None:
    storage = head.folder / "runs"
    config = head.folder / "cluster.yaml"
    config.write_text(f"metadata:\n  fer_sweeps:\n    address: {head.url}\n    storage: {storage}\n")
    done = python(head.environment, "-m", "cluster", "doctor", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok       access" in done.stdout
    assert f"ok       storage        {storage}: written and read by 1 node" in done.stdout
    assert "ok       token          1 node with RAY_AUTH_MODE=token" in done.stdout
    assert list(storage.iterdir()) == []


def test_a_tunnel_that_breaks_and_comes_back_loses_and_repeats_no_line(head: Head) -> None:
    tunnel = Tunnel(int(head.url.rpartition(":")[2]))
    counting = "import time\nfor n in range(40):\n print('line', n, flush=True); time.sleep(0.25)"
    follower = subprocess.Popen([sys.executable, "-c", SUBMIT.replace("night", "count"), tunnel.url, counting],
                                env=head.environment, cwd=head.folder, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert follower.stdout
    shown: list[str] = []
    for line in follower.stdout:
        shown.append(line)
        if line == "line 8\n":
            tunnel.cut()
            threading.Timer(4.0, tunnel.mend).start()
    assert follower.wait(60) == 0
    assert [line for line in shown if line.startswith("line")] == [f"line {n}\n" for n in range(40)]


class Tunnel:
    """A TCP proxy on the loopback that can be cut: living connections break and new ones are refused."""

    def __init__(self, port: int) -> None:
        self._target, self._living = port, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._own = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._own}"
        self._serve()

    def cut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._living:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._own))
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._target))
            self._living += [here, there]
            for a, b in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


TWO_NODES = """
import sys, json
from pathlib import Path
from ray.cluster_utils import Cluster
from cluster.config import ClusterConfig
from cluster.doctor import examine
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000})
cluster.add_node(num_cpus=1, num_gpus=int(sys.argv[2]), object_store_memory=80_000_000)
report = examine(ClusterConfig(address=cluster.address, storage=sys.argv[1]), Path("runs"), None)
print(report.as_json())
cluster.shutdown()
"""


@pytest.mark.parametrize("gpus", [0, 2])
def test_two_nodes_are_looked_over_each(tmp_path: Path, gpus: int) -> None:
    """The second node claims GPUs that torch does not see: the doctor says on which."""
    storage = tmp_path / "runs"
    done = python(environment(tmp_path), "-c", TWO_NODES, str(storage), str(gpus))
    report = json.loads(done.stdout.splitlines()[-1]) if done.stdout else pytest.fail(done.stderr)
    found = {check["name"]: check for check in report["checks"]}
    assert report["place"].startswith("2 nodes")
    assert found["storage"]["detail"].startswith(f"{storage}: written and read by 2 nodes")
    assert [found[name]["status"] for name in ("versions", "locks", "clocks", "ports", "token")] == ["ok"] * 5
    assert found["gpus"]["status"] == ("failed" if gpus else "ok")
    assert not gpus or "2 GPUs, torch sees 0" in found["gpus"]["detail"]
    assert list(storage.iterdir()) == []
