"""Submits a sweep to a cluster as a Ray job, and finds, follows and stops it by its name.

A job runs `python -m sweeps.run …` on the head node. Only code is sent with it, never data, runs or a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config import ClusterConfig, find_token
from cluster.errors import ClusterError
from cluster.probe import http_get
from fer_common.errors import did_you_mean
from fer_common.user import ASKED_MS, asked_ms

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

REACHED_BY = "FER_SWEEPS_REACHED_BY"
"""Environment variable of jobs: the options with which who started the job reaches the cluster."""

PROJECT = Path(__file__).parents[1]
_PACKAGES = ("sweeps", "fer_common", "fer_models", "fer_data", "tracking", "cluster")
_BESIDE = ("pyproject.toml", "constraints.txt")
_LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "*.pyc", "secrets")
_CHATTY = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
_STOP_ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
"""A stopped job gets SIGTERM, and SIGKILL after this many seconds: trials finish their epoch, up to 20 s, and save."""

_RETRY_SECONDS = 2.0
_PATIENCE_SECONDS = 120.0
_TIMEOUT_SECONDS = 10.0
_SHORT_SECONDS = 0.2
_OFTEN_SECONDS = 20.0
_LIVING = ("PENDING", "RUNNING")


@dataclass(frozen=True)
class Job:
    """A sweep's job on the cluster. `number` increases with each submission of the sweep."""

    submission_id: str
    sweep: str
    number: int
    status: str
    message: str
    entrypoint: str
    exit_code: int | None

    @property
    def living(self) -> bool:
        """Whether it is waiting or running."""
        return self.status in _LIVING


class Jobs:
    """The jobs of a cluster. Every method may raise ClusterError."""

    def __init__(self, config: ClusterConfig, reached_by: Sequence[str] = ()) -> None:
        """`reached_by` are the options that named the cluster, for printed commands; by default its address."""
        self._config = config
        self._reached_by = shlex.join(reached_by or ["--address", config.address])
        self._client = _client(config)

    def submit(self, sweep: str, entrypoint: Sequence[str], *, files: Sequence[Path] = ()) -> Job:
        """Send the project with `files` (a space of the user), and start `entrypoint` for a sweep.

        The submission's id is the sweep's name; for later submissions, to resume it, the name with `.2`, `.3` …
        """
        before = [job for job in self.all() if job.sweep == sweep]
        if before and before[-1].living:
            raise ClusterError(
                f"sweep '{sweep}' is {before[-1].status.lower()} on {self._config.address} already: "
                "look at it with `logs`, stop it with `stop`, or choose another --name"
            )
        number = before[-1].number + 1 if before else 1
        submission_id = sweep if number == 1 else f"{sweep}.{number}"
        with _shipment(files) as folder, _asking(self._config.address):
            self._client.submit_job(
                entrypoint=shlex.join(entrypoint),
                submission_id=submission_id,
                runtime_env={"working_dir": str(folder), "env_vars": self._environment(_STOP_ENVIRONMENT)},
                metadata={"sweep": sweep, "number": str(number)},
            )
        return Job(submission_id, sweep, number, "PENDING", "", shlex.join(entrypoint), None)

    def run(
        self,
        entrypoint: Sequence[str],
        who: str,
        write: Callable[[str], object],
        after_seconds: float = math.inf,
        do: Callable[[], object] = lambda: None,
    ) -> int:
        """Run a command on the head node as `who`; write its output as it comes, and return its exit code.

        Ctrl-C ends the command there, by SIGTERM. If it takes longer than `after_seconds`, `do` is called once.
        """
        environment = self._environment({"LOGNAME": who, ASKED_MS: str(asked_ms())})
        with _shipment(()) as folder, _asking(self._config.address):
            job = self._client.submit_job(
                entrypoint=shlex.join(entrypoint),
                runtime_env={"working_dir": str(folder), "env_vars": environment},
            )
            try:
                code = self._watch(job, _Once(write), after_seconds, do)
            except KeyboardInterrupt:
                self._client.stop_job(job)
                raise
            self._client.delete_job(job)
        return 1 if code is None else code

    def _watch(self, job: str, log: _Once, after_seconds: float, do: Callable[[], object]) -> int | None:
        """Pass on what a job prints until it ends; its exit code."""
        began = time.monotonic()
        while True:
            details = self._client.get_job_info(job)
            log.begin()
            log.take(str(self._client.get_job_logs(job)))
            if details.status not in _LIVING:
                return details.driver_exit_code
            passed = time.monotonic() - began
            if passed > after_seconds:
                after_seconds = math.inf
                do()
            time.sleep(_SHORT_SECONDS if passed < _OFTEN_SECONDS else _RETRY_SECONDS)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"PYTHONUNBUFFERED": "1", REACHED_BY: self._reached_by, **more}

    def look_again(self, sweep: str) -> str:
        """The command that follows a sweep from this machine."""
        return f"{shlex.join(['python', '-m', 'sweeps', 'logs', sweep])} {self._reached_by}"

    def all(self) -> list[Job]:
        """The jobs of all sweeps, oldest first."""
        with _asking(self._config.address):
            found = [_job(details) for details in self._client.list_jobs() if (details.metadata or {}).get("sweep")]
        return sorted(found, key=lambda job: (job.sweep, job.number))

    def find(self, sweep: str) -> Job:
        """The newest job of a sweep."""
        jobs = self.all()
        mine = [job for job in jobs if job.sweep == sweep]
        if not mine:
            known = {job.sweep for job in jobs}
            raise ClusterError(f"no sweep '{sweep}' on {self._config.address}{did_you_mean(sweep, known)}")
        return mine[-1]

    def logs(self, sweep: str) -> str:
        """The output of the newest job of a sweep so far."""
        job = self.find(sweep)
        with _asking(self._config.address):
            return str(self._client.get_job_logs(job.submission_id))

    def stop(self, sweep: str) -> bool:
        """Ask the sweep to stop within a minute, with checkpoints, so that it can be resumed. False if it was over."""
        job = self.find(sweep)
        if not job.living:
            return False
        with _asking(self._config.address):
            return bool(self._client.stop_job(job.submission_id))

    def follow(self, sweep: str, write: Callable[[str], object]) -> Job:
        """Write the sweep's output until it ends, across broken connections. `write` gets each piece once.

        Ctrl-C leaves the sweep running: KeyboardInterrupt is raised, and `write` has received no partial line.

        Raises:
            ClusterError: the cluster has not answered for two minutes; the sweep itself continues.
        """
        from aiohttp import ClientError

        submission_id = self.find(sweep).submission_id
        log, heard = _Once(write), time.monotonic()
        while True:
            told = log.told
            with contextlib.suppress(OSError, RuntimeError, ClusterError, ClientError):
                asyncio.run(self._tail(submission_id, log))
                job = self.find(sweep)
                heard = time.monotonic()
                if not job.living:
                    return job
            heard = time.monotonic() if log.told > told else heard
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise ClusterError(
                    f"{self._config.address} has not answered for {_PATIENCE_SECONDS:.0f} s; the sweep continues "
                    f"there. Look again with: {self.look_again(sweep)}"
                )
            time.sleep(_RETRY_SECONDS)

    async def _tail(self, submission_id: str, log: _Once) -> None:
        log.begin()
        async for piece in self._client.tail_job_logs(submission_id):
            log.take(piece)


class _Once:
    """Writes each piece of a log once, although Ray sends the log from its beginning with each connection."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self.told = self._seen = 0

    def begin(self) -> None:
        self._seen = 0

    def take(self, piece: str) -> None:
        new = piece[max(0, self.told - self._seen) :]
        self._seen += len(piece)
        self.told = max(self.told, self._seen)
        if new:
            self._write(new)


def _job(details: JobDetails) -> Job:
    metadata = details.metadata or {}
    return Job(
        submission_id=str(details.submission_id),
        sweep=metadata["sweep"],
        number=int(metadata.get("number", "1")),
        status=str(getattr(details.status, "value", details.status)),
        message=details.message or "",
        entrypoint=details.entrypoint,
        exit_code=details.driver_exit_code,
    )


@contextlib.contextmanager
def _shipment(files: Sequence[Path]) -> Iterator[Path]:
    """A folder with the code of the packages, and with `files` at its top. Nothing else is sent."""
    with tempfile.TemporaryDirectory(prefix="fer-sweeps-ship-") as name:
        folder = Path(name)
        for package in _PACKAGES:
            shutil.copytree(PROJECT / package, folder / package, ignore=_LEFT_BEHIND)
        for path in (*(PROJECT / name for name in _BESIDE), *files):
            if path.is_file():
                shutil.copy2(path, folder / path.name)
            elif path in files:
                raise ClusterError(f"{path}: no such file to ship")
        yield folder


def _client(config: ClusterConfig) -> JobSubmissionClient:
    token = find_token(config.token)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    _check_answer(config, headers)
    from ray.job_submission import JobSubmissionClient

    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with _without_ray_address(), _asking(config.address):
        return JobSubmissionClient(
            config.address, headers=headers, verify=str(config.ca_file) if config.ca_file else True
        )


def _check_answer(config: ClusterConfig, headers: Mapping[str, str]) -> None:
    """Query the cluster first, since Ray would wait for minutes. Raises ClusterError with the fix."""
    ca_file = str(config.ca_file) if config.ca_file else None
    answer = http_get(f"{config.address}/api/jobs/", headers, _TIMEOUT_SECONDS, ca_file)
    fixes = {
        0: f"{answer.text}; is the cluster up, and the tunnel to it (`ray dashboard FILE`, or kubectl port-forward)?",
        401: "it requires a token; give metadata.fer_sweeps.token, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token",
        403: "it does not take this token; fetch the cluster's; see the comments at the top of its file",
        404: "no Jobs API there; it is the port of Ray's dashboard, 8265, on a head with ray[default]",
    }
    if answer.status != 200:
        said = fixes.get(answer.status, f"answers {answer.status}: {answer.text[:200]}")
        raise ClusterError(f"{config.address}: {said}")


@contextlib.contextmanager
def _without_ray_address() -> Iterator[None]:
    """Remove the variables that Ray prefers to the address that it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextlib.contextmanager
def _asking(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = re.sub(r"\s+", " ", str(error))[:300]
        raise ClusterError(f"{address}: {text}") from None


def exit_code(job: Job) -> int:
    """The sweep's exit code: 143 if it was stopped, 1 if its job never ran."""
    if job.exit_code is not None:
        return job.exit_code
    return {"SUCCEEDED": 0, "STOPPED": 143}.get(job.status, 1)
