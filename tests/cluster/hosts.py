"""Machines on this machine: each with an address and processes of its own, plugged to one switch.

A host is a network namespace that lasts and a process namespace that lives from `boot` to `power_off`. All see the
same files, as hosts that mount one NFS do. What is inside reaches nothing outside.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

_INIT = "while :; do sleep 3600 & wait $!; done"
"""What runs first on a host: bash, which reaps orphans."""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Host:
    """One machine. `address` is reachable from the other hosts of the switch while `plugged`."""

    def __init__(self, switch: str, number: int) -> None:
        self._switch, self._port = switch, f"port{number}"
        self._namespace = f"{switch}-{number}"
        self.name, self.address = f"host{number}", f"10.77.0.{number}"
        self._running: subprocess.Popen[bytes] | None = None
        _ip("netns", "add", self._namespace)
        _ip(
            "link", "add", self._port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", self._namespace
        )
        _ip("-n", switch, "link", "set", self._port, "master", "bridge", "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                      ("link", "set", "lo", "up"), ("route", "add", "default", "dev", "eth0")):  # fmt: skip
            _ip("-n", self._namespace, *words)
        self.boot()

    def boot(self) -> None:
        """Switch it on, with no process but the first."""
        unshare = ["unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        first = f"hostname {self.name}; {_INIT}"
        self._running = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self._namespace}", *unshare, "bash", "-c", first]
        )

    def power_off(self) -> None:
        """Every process of it is gone at once, without a word."""
        if self._running:
            self._running.kill()
            self._running.wait()
            self._running = None

    def plug(self, plugged: bool) -> None:
        """Plug its cable in, or out: what is sent then is lost without a word."""
        _ip("-n", self._switch, "link", "set", self._port, "up" if plugged else "down")

    def start(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program there; what it says is appended to `log`."""
        enter = [
            "nsenter",
            "--target",
            str(self._init().pid),
            "--net",
            "--pid",
            "--uts",
            "--mount",
            f"--wd={Path.cwd()}",
        ]
        with log.open("ab") as said:
            return subprocess.Popen([*enter, *words], env=dict(environment), stdout=said, stderr=said,
                                    stdin=subprocess.DEVNULL)  # fmt: skip

    def processes(self, word: str) -> list[psutil.Process]:
        """Those of its processes whose command line has `word`."""
        mine, found = _process_namespace(self._init().pid), []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                inside = _process_namespace(process.pid) == mine
                if inside and any(word in part for part in process.cmdline()):
                    found.append(process)
        return found

    def _init(self) -> psutil.Process:
        assert self._running
        while not (children := psutil.Process(self._running.pid).children()):
            assert self._running.poll() is None
        return children[0]


def _process_namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/pid").readlink()


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts on a switch of their own; the test is skipped where this machine cannot have them."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nsenter"):
        pytest.skip("hosts with addresses of their own need root, iproute2 and util-linux")
    switch = f"fer{os.getpid()}"
    if (made := subprocess.run(["ip", "netns", "add", switch], capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"this machine does not let tests make network namespaces: {made.stderr.strip()}")
    plugged: list[Host] = []
    try:
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number in range(1, count + 1):
            plugged.append(Host(switch, number))
        yield plugged
    finally:
        for host in plugged:
            host.power_off()
        for number in range(1, count + 1):
            subprocess.run(["ip", "netns", "del", f"{switch}-{number}"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", switch], capture_output=True, check=False)
