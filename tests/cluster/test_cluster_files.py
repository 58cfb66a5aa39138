"""The files in cluster/ are what Ray, Kubernetes, Docker and Slurm take, and they keep what docs/security.md promises."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config

from tests import ROOT
from tests.certificates import certificate, needs_openssl

CLUSTER = ROOT / "cluster"
SCHEMAS = Path(__file__).parent / "schemas"
RAY_UP = ("on_prem.yaml", "aws.yaml", "gcp.yaml")
MANIFESTS = sorted(path for path in (CLUSTER / "kuberay").glob("*.yaml") if path.name not in ("client.yaml", "kustomization.yaml"))  # fmt: skip
STARTED = (*RAY_UP, "Dockerfile", "kuberay/kustomization.yaml", "kuberay/rayjob.yaml", "slurm/sweep.sbatch", "mlflow/compose.yaml")  # fmt: skip
SHELL = ("slurm/sweep.sbatch", "mlflow/serve.sh", "mlflow/make_secrets.sh")


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / name).read_text()))


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}:{document['kind']}/{document['metadata']['name']}", document


def pod_specs(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "containers" in node:
            yield path, node
        for key, value in node.items():
            yield from pod_specs(value, f"{path}.{key}")
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from pod_specs(value, f"{path}[{place}]")


PODS = [pytest.param(spec, id=f"{name}{path}") for name, document in documents() for path, spec in pod_specs(document)]


def strict(schema: Any) -> Any:
    """Kubernetes drops a field that it does not know without a word; here it is an error."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        loose = schema.get("x-kubernetes-preserve-unknown-fields") or set(schema["properties"]) <= {"metadata"}
        closed |= {} if loose else {"additionalProperties": False}
    return closed


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    return found or pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", STARTED)
def test_each_header_says_how_to_start_use_watch_and_stop_it_and_what_it_costs(name: str) -> None:
    text = (CLUSTER / name).read_text()
    header = "\n".join(line for line in text.split("\n\n")[0].splitlines() + text.splitlines()[:30] if "#" in line)
    first = ("Build", "Start")
    assert any(f"# {word}:" in header for word in first)
    for word in ("Use", "Watch", "Stop", "Cost"):
        assert f"# {word}:" in header, f"{name} lacks '{word}:'"


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_takes_it(name: str) -> None:
    validate_config(prepare_config(load(name)))


def test_rays_validator_is_awake() -> None:
    filled = prepare_config(load("on_prem.yaml")) | {"idle_timeout_minuets": 3}
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuets"):
        validate_config(filled)


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_spot_is_tried_first_and_the_head_costs_no_gpu(name: str) -> None:
    types = load(name)["available_node_types"]
    assert types["gpu_spot"]["priority"] > types["gpu_on_demand"]["priority"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert all(types[kind]["min_workers"] == 0 for kind in ("gpu_spot", "gpu_on_demand"))
    assert "spot" in json.dumps(types["gpu_spot"]["node_config"]).lower()
    assert "spot" not in json.dumps(types["gpu_on_demand"]["node_config"]).lower()
    assert load(name)["idle_timeout_minutes"] == 10


@pytest.mark.parametrize("name", RAY_UP)
def test_every_ray_start_asks_for_the_token_and_hides_the_dashboard(name: str) -> None:
    config = load(name)
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        if "ray start" in command:
            assert "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in config["setup_commands"])


def test_the_shells_of_ray_up_find_the_image_s_programs(tmp_path: Path) -> None:
    """/etc/profile is that of this machine; what the image adds to it runs after it, as from /etc/profile.d."""
    programs = tmp_path / "venv/bin"
    programs.mkdir(parents=True)
    (programs / "ray").write_text("#!/bin/sh\necho the image\\'s ray $1")
    (programs / "ray").chmod(0o755)
    added = re.search(
        r"^RUN (echo .*) >/etc/profile\.d/\S+\.sh$", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE
    )
    if added:
        profile = subprocess.run(["sh", "-c", added[1]], check=True, capture_output=True, text=True).stdout
        (tmp_path / ".bash_profile").write_text(profile.replace("/opt/venv", str(tmp_path / "venv")))
    done = subprocess.run(
        " ".join(_with_interactive("ray stop")), shell=True, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, start_new_session=True,
        env={"HOME": str(tmp_path), "PATH": f"{programs}:/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "the image's ray stop\n"), done.stderr


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_installs_nothing_that_the_image_could_have(name: str) -> None:
    """Ray's own defaults count: it fills in the commands that a file leaves out."""
    config = prepare_config(load(name))
    lists = [commands for key, commands in config.items() if key.endswith("_commands")]
    assert len(lists) == 6
    assert "pip install" not in json.dumps(lists)


@pytest.mark.parametrize("name", SHELL)
def test_shell_is_clean(name: str) -> None:
    subprocess.run(["bash", "-n", CLUSTER / name], check=True)
    done = subprocess.run([tool("shellcheck"), CLUSTER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Dockerfile", "mlflow/Dockerfile"])
def test_images_are_clean_and_do_not_run_as_root(name: str) -> None:
    done = subprocess.run([tool("hadolint"), CLUSTER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^USER (.*)$", (CLUSTER / name).read_text(), flags=re.MULTILINE) == ["1000:1000"]


def test_the_image_installs_what_the_constraints_pin() -> None:
    pinned = re.search(r"^mlflow==(.*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned
    assert f"mlflow[auth]=={pinned[1]}" in (CLUSTER / "mlflow/Dockerfile").read_text()
    assert "--constraint constraints.txt '.[cluster,clouds]'" in (CLUSTER / "Dockerfile").read_text()
    for package in ("boto3", "google-api-python-client"):
        assert re.search(rf"^{package}==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    ray = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert ray
    assert yaml.safe_load((CLUSTER / "kuberay/raycluster.yaml").read_text())["spec"]["rayVersion"] == ray[1]


def rendered(home: Path, **environment: str) -> dict[str, Any]:
    """compose.yaml as compose starts it."""
    done = subprocess.run(
        [tool("docker-compose"), "-f", CLUSTER / "mlflow/compose.yaml", "--profile", "ray", "config", "--format", "json"],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "HOME": str(home)} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_compose_takes_it_and_publishes_on_the_loopback_alone(tmp_path: Path) -> None:
    subprocess.run([CLUSTER / "mlflow/make_secrets.sh", tmp_path / "secrets"], check=True, capture_output=True)
    services = rendered(tmp_path)["services"]
    assert {"mlflow", "postgres", "minio", "ray-head", "ray-worker"} <= set(services)
    published = {name: [port.get("host_ip") for port in service.get("ports", [])] for name, service in services.items()}
    assert {name: ips for name, ips in published.items() if ips} == {"mlflow": ["127.0.0.1"], "ray-head": ["127.0.0.1"]}
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        words = json.dumps([service.get("environment"), service.get("command"), service.get("entrypoint")])
        assert not re.search(r"(password|token|secret_key)\W+[0-9a-f]{16,}", words, flags=re.IGNORECASE), name


def test_mlflow_has_the_certificate_that_it_is_told_of(tmp_path: Path) -> None:
    """Without TLS no file is named; with it each named file is mounted from the one that the variable gives."""
    names = ("MLFLOW_TLS_CERT", "MLFLOW_TLS_KEY")
    assert not any(rendered(tmp_path)["services"]["mlflow"]["environment"][name] for name in names)
    given = {name: str(tmp_path / name) for name in names}
    mlflow = rendered(tmp_path, **given)["services"]["mlflow"]
    mounted = {one["target"]: one["source"] for one in mlflow["volumes"]}
    assert {name: mounted[mlflow["environment"][name]] for name in names} == given


def test_mlflow_s_own_pages_may_write_to_it(tmp_path: Path) -> None:
    for given, start in (({}, "http"), ({"MLFLOW_TLS_CERT": "/a.crt", "MLFLOW_TLS_KEY": "/a.key"}, "https")):
        environment = rendered(tmp_path, **given)["services"]["mlflow"]["environment"]
        assert environment["ALLOWED_ORIGINS"] == f"{start}://localhost:5000,{start}://127.0.0.1:5000"


@pytest.mark.parametrize("name", RAY_UP)
def test_the_nodes_reach_mlflow_as_the_header_starts_it(name: str, tmp_path: Path) -> None:
    header = (CLUSTER / name).read_text().partition("\ncluster_name:")[0]
    given = dict(re.findall(r"\b(BIND|ALLOWED_HOSTS|ALLOWED_ORIGINS|MLFLOW_TLS_\w+)=(\S+)", header))
    mlflow = rendered(tmp_path, **given)["services"]["mlflow"]
    assert [port["host_ip"] for port in mlflow["ports"]] == ["0.0.0.0"]
    address = load(name)["metadata"]["fer_sweeps"]["tracking_uri"]
    environment = mlflow["environment"]
    assert [f"https://{host}" for host in environment["ALLOWED_HOSTS"].split(",")] == [address]
    assert environment["ALLOWED_ORIGINS"] == address
    assert environment["MLFLOW_TLS_CERT"]
    assert environment["MLFLOW_TLS_KEY"]


@pytest.mark.parametrize("name", RAY_UP)
def test_the_nodes_find_the_authority_of_mlflow_s_certificate_once_it_is_uncommented(name: str) -> None:
    text = (CLUSTER / name).read_text().replace("# - --env MLFLOW", "- --env MLFLOW")
    options = yaml.safe_load(text)["docker"]["run_options"]
    mounted = [option.rpartition(":")[2] for option in options if option.startswith("--volume ")]
    prefix = "--env MLFLOW_TRACKING_SERVER_CERT_PATH="
    assert [
        option.removeprefix(prefix).rpartition("/")[0] for option in options if option.startswith(prefix)
    ] == mounted


@pytest.mark.parametrize("name", RAY_UP)
def test_the_image_is_built_and_pushed_under_the_name_by_which_the_nodes_pull_it(name: str) -> None:
    text, image = (CLUSTER / name).read_text(), load(name)["docker"]["image"]
    assert f"docker build -f cluster/Dockerfile -t {image} .\n" in text
    assert f"docker push {image}\n" in text


@needs_openssl
@pytest.mark.parametrize("tls", [False, True])
def test_mlflow_s_health_is_asked_as_it_is_served(tmp_path: Path, tls: bool) -> None:
    made = certificate(tmp_path / "tls", "192.0.2.1")  # of an authority that the container does not trust
    given = {"MLFLOW_TLS_CERT": str(made.certificate), "MLFLOW_TLS_KEY": str(made.key)} if tls else {}
    _, python, *words = rendered(tmp_path, **given)["services"]["mlflow"]["healthcheck"]["test"]
    assert python == "python"
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = str(server.server_port)
    done = subprocess.run([sys.executable, *(word.replace("5000", port) for word in words)], capture_output=True,
                          text=True, check=False, timeout=20)  # fmt: skip
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr


class Healthy(BaseHTTPRequestHandler):
    """MLflow, as far as its health is asked."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


def test_secrets_are_random_kept_and_private(tmp_path: Path) -> None:
    def make(folder: str) -> dict[str, str]:
        subprocess.run([CLUSTER / "mlflow/make_secrets.sh", tmp_path / folder], check=True, capture_output=True)
        return {path.name: path.read_text() for path in (tmp_path / folder).iterdir()}

    first, again, other = make("a"), make("a"), make("b")
    assert first == again
    assert len(first["ray_auth_token"]) == 64
    assert not {first[name] for name in first if name != "s3_user"} & {other[name] for name in other}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    used = set(load("mlflow/compose.yaml")["secrets"])
    assert used <= set(first)
    assert "secrets/" in (CLUSTER / "mlflow/.gitignore").read_text()


def test_secrets_are_kept_at_a_second_run_by_an_ordinary_user() -> None:
    """Root may write into a file of mode 444, so another user runs the script; pytest's folders are closed to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        user = "nobody" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        script = (CLUSTER / "mlflow/make_secrets.sh").read_text()
        for _ in range(2):
            done = subprocess.run(["sh", "-s", f"{folder}/secrets"], input=script, cwd=folder, user=user,
                                  capture_output=True, text=True, check=False)  # fmt: skip
            assert done.returncode == 0, done.stderr
            token = Path(folder) / "secrets/ray_auth_token.mine"
            assert token.stat().st_mode & 0o777 == 0o600
            assert token.read_text() == (Path(folder) / "secrets/ray_auth_token").read_text()


def test_kubernetes_takes_every_manifest() -> None:
    kinds = set()
    for name, document in documents():
        kinds.add(document["kind"])
        if document["apiVersion"].startswith("ray.io/"):
            packed = gzip.decompress((SCHEMAS / f"{document['kind'].lower()}s.v1.json.gz").read_bytes())
            jsonschema.Draft202012Validator(strict(json.loads(packed))).validate(document)
        else:
            kubernetes_validate.validate(document, "1.31", strict=True)
        assert document["metadata"].get("namespace", "fer-sweeps") == "fer-sweeps", name
    assert kinds == {"Namespace", "PersistentVolumeClaim", "Service", "StatefulSet", "Deployment", "Job",
                     "NetworkPolicy", "RayCluster", "RayJob"}  # fmt: skip


def test_kuberays_schema_is_awake() -> None:
    schema = strict(json.loads(gzip.decompress((SCHEMAS / "rayclusters.v1.json.gz").read_bytes())))
    cluster = load("kuberay/raycluster.yaml")
    cluster["spec"]["enableInTreeAutoscalling"] = True
    with pytest.raises(jsonschema.ValidationError, match="enableInTreeAutoscalling"):
        jsonschema.Draft202012Validator(schema).validate(cluster)


def test_kustomize_names_every_manifest_but_the_job() -> None:
    listed = set(load("kuberay/kustomization.yaml")["resources"])
    assert listed == {path.name for path in MANIFESTS} - {"rayjob.yaml"}


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_a_sweep_is_told_what_the_autoscaler_can_bring_while_nothing_is_there(name: str) -> None:
    config = load(name)
    said, worker = config["metadata"]["fer_sweeps"], config["available_node_types"]["gpu_spot"]["resources"]
    assert said["cpus"] == config["max_workers"] * worker["CPU"]
    assert said["gpus"] == config["max_workers"] * worker["GPU"]


def test_so_is_one_that_starts_within_kubernetes() -> None:
    said = load("kuberay/client.yaml")["metadata"]["fer_sweeps"]
    spec = load("kuberay/raycluster.yaml")["spec"]
    spot = spec["workerGroupSpecs"][0]
    limits = spot["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert said["cpus"] == spot["maxReplicas"] * int(limits["cpu"])
    assert said["gpus"] == spot["maxReplicas"] * int(limits["nvidia.com/gpu"])
    (generated,) = load("kuberay/kustomization.yaml")["configMapGenerator"]
    assert generated["files"] == ["client.yaml"]
    assert generated["options"] == {"disableNameSuffixHash": True}
    head = spec["headGroupSpec"]["template"]["spec"]
    (volume,) = [volume["name"] for volume in head["volumes"] if volume.get("configMap") == {"name": generated["name"]}]
    (mount,) = [mount for mount in head["containers"][0]["volumeMounts"] if mount["name"] == volume]
    assert (
        f"--cluster {mount['mountPath']}/client.yaml --address auto"
        in load("kuberay/rayjob.yaml")["spec"]["entrypoint"]
    )


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_locked_down(pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] >= 100
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        for variable in container.get("env", []):
            if re.search("PASSWORD|TOKEN|SECRET_KEY", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_the_ray_cluster_survives_its_head_and_costs_nothing_when_idle() -> None:
    spec = load("kuberay/raycluster.yaml")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["gcsFaultToleranceOptions"]["redisAddress"].startswith("redis:")
    assert spec["enableInTreeAutoscaling"] is True
    assert [group["minReplicas"] for group in spec["workerGroupSpecs"]] == [0, 0]
    spot, on_demand = spec["workerGroupSpecs"]
    assert spot["priority"] > on_demand["priority"]
    assert "nvidia.com/gpu" not in json.dumps(spec["headGroupSpec"])


def test_every_pod_is_under_a_network_policy_of_its_own() -> None:
    policies = [document for _, document in documents() if document["kind"] == "NetworkPolicy"]
    default = next(
        policy for policy in policies if policy["spec"]["podSelector"] == {} and "egress" not in policy["spec"]
    )
    assert sorted(default["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    named = {policy["spec"]["podSelector"].get("matchLabels", {}).get("app") for policy in policies}
    assert {"ray", "mlflow", "postgres", "minio", "minio-bucket", "redis"} <= named


def test_no_file_holds_a_secret() -> None:
    for path in CLUSTER.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".sh", ".sbatch", ".py", "") and "secrets" not in path.parts:
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-f]{32}", text), path
            assert not re.search(r"://[^/\s:@$]+:[^/\s@$]+@", text), path
