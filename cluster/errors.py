"""Faults of a cluster or of its configuration. Each message is complete in itself."""

from __future__ import annotations

from fer_common.errors import UserError


class ClusterError(UserError):
    """A cluster, or a statement about it, cannot be used."""
