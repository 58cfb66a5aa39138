"""As a program: a head whose control store keeps its tables in Redis, and is started again when it dies."""

from __future__ import annotations

import sys
import time

from ray._private.node import Node
from ray._private.parameter import RayParams

if __name__ == "__main__":
    address, redis_port, password, temporary = sys.argv[1:]
    head = Node(
        RayParams(node_ip_address=address, gcs_server_port=6379, num_cpus=0, num_gpus=0, object_store_memory=80_000_000,
                  external_addresses=[f"{address}:{redis_port}"], redis_password=password, include_dashboard=False,
                  temp_dir=temporary),
        head=True,
    )  # fmt: skip
    print("This command will now block", flush=True)  # as `ray start --block` says when it is up
    while True:
        time.sleep(5)
        if any(kind == "gcs_server" for kind, _ in head.dead_processes()):
            head.kill_gcs_server(check_alive=False)
            head.start_gcs_server()
