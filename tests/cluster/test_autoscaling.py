"""Ray's autoscaler by what cluster/aws.yaml says of node types, with its fake provider in the place of Amazon's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

from tests import ROOT
from tests.cluster.hosts import hosts
from tests.cluster.journal_laws import check_finished
from tests.cluster.processes import PATIENCE, wait_for
from tests.cluster.quick_trials import diaries
from tests.cluster.ray_on_hosts import RayOnHosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FAKE = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD = "ray.head.default"  # the name and number that the fake provider gives a head
HEAD_ID = "f" * 51 + "00000"


def faked(address: str) -> dict[str, Any]:
    """cluster/aws.yaml with workers that are processes here, and that are idle after twelve seconds."""
    config = prepare_config(yaml.safe_load((ROOT / "cluster/aws.yaml").read_text()))  # as `ray up` fills it
    config["available_node_types"][HEAD] = config["available_node_types"].pop("head") | {"max_workers": 0}
    return dict(config) | {
        "head_node_type": HEAD,
        "provider": {"type": "external", "module": FAKE, "use_node_id_as_ip": True, "disable_node_updaters": True,
                     "disable_launch_config_check": True, "launch_multiple": True, "head_node_id": HEAD_ID,
                     "gcs_address": address},
        "auth": {}, "docker": {}, "file_mounts": {}, "initialization_commands": [], "setup_commands": [],
        "head_setup_commands": [], "worker_setup_commands": [], "idle_timeout_minutes": 0.2,
    }  # fmt: skip


def test_workers_come_with_a_sweep_are_spot_ones_and_go_when_it_is_over(tmp_path: Path) -> None:
    with hosts(1) as (only,), RayOnHosts(only, tmp_path) as ray:
        (tmp_path / "aws.json").write_text(json.dumps(faked(ray.address)))
        ray.start_head(f"--autoscaling-config={tmp_path}/aws.json", RAY_FAKE_CLUSTER="1", RAY_enable_autoscaler_v2="1",
                       RAY_CLOUD_INSTANCE_ID=HEAD_ID, RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_ID,
                       RAY_NODE_TYPE_NAME=HEAD, AUTOSCALER_UPDATE_INTERVAL_S="1")  # fmt: skip
        (tmp_path / "gather").write_text("2")
        sizes = yaml.safe_load((ROOT / "cluster/aws.yaml").read_text())["metadata"]["fer_sweeps"]
        driver = ray.start_sweep(trials=4, max_concurrent=2, cluster_gpus=sizes["gpus"], cluster_cpus=sizes["cpus"])
        assert driver.wait(PATIENCE) == 0, ray.said()
        check_finished(tmp_path / "sweep", 4)
        places = {(line["node"], line["gpu"]) for line in diaries(tmp_path / "sweep")}
        assert [gpu for _, gpu in places] == ["0", "0"]
        said = (ray.temporary / "session_latest/logs/monitor.log").read_text()
        launched = re.findall(r"Launching (\d+) nodes of type (\w+)", said)
        assert sum(int(count) for count, _ in launched) >= 2
        assert {kind for _, kind in launched} == {"gpu_spot"}
        wait_for(lambda: ray.nodes() == 1, PATIENCE, ray.said, every=5)
