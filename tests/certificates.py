"""Certificates of an authority of one's own, as an administrator makes them with openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")


@dataclass(frozen=True)
class Certificate:
    """Files in PEM: the authority's certificate, and a key and certificate that it has signed."""

    authority: Path
    certificate: Path
    key: Path


def certificate(folder: Path, *addresses: str) -> Certificate:
    """One for these IP addresses, by a new authority."""
    folder.mkdir()
    made = Certificate(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    new_key = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    names = ",".join(["DNS:localhost", *(f"IP:{address}" for address in addresses)])
    _openssl(*new_key, "-x509", "-days", "2", "-subj", "/CN=the authority", "-keyout", folder / "ca.key",
             "-out", made.authority)  # fmt: skip
    _openssl(*new_key, "-subj", "/CN=a node", "-keyout", made.key, "-out", folder / "server.csr")
    (folder / "names").write_text(f"subjectAltName={names}")
    _openssl("openssl", "x509", "-req", "-days", "2", "-in", folder / "server.csr", "-CA", made.authority,
             "-CAkey", folder / "ca.key", "-CAcreateserial", "-extfile", folder / "names",
             "-out", made.certificate)  # fmt: skip
    return made


def _openssl(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
