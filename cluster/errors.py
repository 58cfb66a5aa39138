"""Faults of a cluster or of its configuration. Each message is complete in itself."""

from __future__ import annotations

import re

from fer_common.errors import UserError


class ClusterError(UserError):
    """A cluster, or a statement about it, cannot be used."""


def without_password(text: str) -> str:
    """A URI, or a message that contains URIs, without passwords, as it may be printed."""
    return re.sub(r"(://[^\s/?#@:]*:)\S*(?=@)", r"\1…", text)
