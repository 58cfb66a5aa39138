"""Finds the cores and GPUs that a sweep may use: those of this machine, or of a Ray cluster."""

from __future__ import annotations

from cluster.connect import cluster_gpus, cluster_size, joined_ray, prepare_environment
from cluster.gpus import GpuFacts, own_gpus
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.resources import Hardware, usable_cpus


def find_hardware(options: Options) -> Hardware:
    """The cores and GPUs of this machine, or of the cluster, which is joined to find out."""
    if options.address is None:
        facts = own_gpus()
        return Hardware((usable_cpus(),), (len(facts.gpus),), facts)
    if options.runner == "inline":
        raise InputError(f"--address {options.address} is for --runner ray; inline trials run in this process")
    prepare_environment(joining=True)
    with joined_ray(options.address):
        size = cluster_size(options.cluster_cpus, options.cluster_gpus)
        return Hardware(size.node_cpus, size.node_gpus, GpuFacts() if options.device == "cpu" else cluster_gpus())
