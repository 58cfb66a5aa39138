"""Faults of a cluster or of its configuration, each one message that is complete in itself."""

from __future__ import annotations

import re

from fer_common.errors import UserError


class ClusterError(UserError):
    """A cluster, or what was given about it, is not usable."""


def without_password(text: str) -> str:
    """A URI, or a message with URIs in it, as it may be shown."""
    return re.sub(r"(://[^\s/?#@:]*:)\S*(?=@)", r"\1…", text)
