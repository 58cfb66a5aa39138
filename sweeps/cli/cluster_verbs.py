"""Submits a sweep to a cluster as a job, and follows and stops it by name."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cluster.config import ClusterConfig, reach
from cluster.submit import Jobs, exit_code
from fer_common.errors import without_password
from fer_common.flags import command_line
from fer_common.user import user_name
from sweeps.cli.arguments import OnCluster, SweepArguments
from sweeps.cli.console import console, is_unread
from sweeps.driver.acts import NOTHING_TO_STOP
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.spaces.find import find_space
from sweeps.spec import check_name, space_label
from tracking.mlflow_sync.uri import check_tracking_uri
from tracking.record.events import Act
from tracking.record.inbox import Request

_ANSWER_SECONDS = 10.0
"""How long `stop` waits for the driver's answer before it sends a signal."""

_NO_FOLDER = (
    "the folder of sweeps on the cluster is not known: give --out DIR, a folder that all nodes share, or storage in "
    "the cluster file"
)


def submit(given: SweepArguments, config: ClusterConfig) -> int:
    """Submit the sweep, then print its output. Ctrl-C stops only the printing."""
    find_space(given.space)
    _check_tracking_uri(given.options.tracking_uri)
    _check_out(given.options, config)
    name = check_name(given.options.name or f"{space_label(given.space)}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    jobs = Jobs(config, [*command_line(given, ["cluster"]), *command_line(given.options, ["address", "out"])])
    words = job_arguments(given, given.options.model_copy(update={"name": name}), config)
    shipped = [path for path in (_own_space(given), given.cluster) if path]
    job = jobs.submit(name, ["python", "-m", "sweeps.run", *words], files=shipped)
    console.print(f"sweep {name} runs on {config.address} as job {job.submission_id}; Ctrl-C leaves it running")
    return _follow(jobs, name)


def job_arguments(given: SweepArguments, asked: Options, config: ClusterConfig) -> list[str]:
    """The arguments of `sweeps.run` in the job.

    Files that are sent with the job are given by their names alone. Folders that are not given are the cluster's. The
    job joins the cluster in which it runs.
    """
    given_names = asked.model_fields_set
    places = {"address": "auto", "out": config.storage, "tracking_uri": config.tracking_uri}
    update = {name: value for name, value in places.items() if value and (name not in given_names or name == "address")}
    source = given.source or (None if asked.resume else config.data)
    data = asked.data.model_copy(update={"source": source})
    space = _own_space(given)
    flags_of_this_command = {"--dry-run": given.dry_run, "--debug": given.debug}
    return [
        space.name if space else given.space,
        *(["--cluster", given.cluster.name] if given.cluster else []),
        *command_line(data),
        *command_line(asked.model_copy(update=update)),
        *(word for word, asked_for in flags_of_this_command.items() if asked_for),
    ]


def _check_tracking_uri(uri: str | None) -> None:
    if uri is None:
        return
    check_tracking_uri(uri, "--tracking-uri")
    if without_password(uri) != uri:
        raise InputError(
            f"--tracking-uri {without_password(uri)}: has a password, which every user of the cluster could "
            "read in the job's command; omit the login and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "on the nodes"
        )


def _check_out(asked: Options, config: ClusterConfig) -> None:
    """Refuse a folder in the job's working folder, which is temporary and in which no later command looks."""
    out = asked.out if "out" in asked.model_fields_set else config.storage
    if out is None:
        raise InputError(_NO_FOLDER)
    if not Path(out).is_absolute():
        raise InputError(f"--out {out}: not an absolute path; on a cluster give a folder that all nodes share")


def _own_space(given: SweepArguments) -> Path | None:
    return Path(given.space) if given.space.endswith((".py", ".json")) else None


def logs(verb: OnCluster, name: str) -> int:
    """Print the output of the job of a sweep on a cluster until it ends."""
    return _follow(_jobs(verb), name)


def resume_arguments(verb: OnCluster, name: str) -> list[str]:
    """The arguments of `sweeps.run` that resume a sweep on a cluster: its job names its space and folder."""
    space = _words_of_job(_jobs(verb), name)[3]
    place = command_line(verb, ["cluster", "address", "tracking_uri"])
    return [space, "--name", name, "--resume", *place, "--out", _folder_there(verb, name)]


def stop(verb: OnCluster, name: str) -> Act:
    """Stop a whole sweep on a cluster, as `there` does, and return the act with its answer.

    If its driver does not answer soon, because it starts, hangs or the head is busy, its job gets a signal. Raises
    InputError if the sweep does not run.
    """
    jobs, said, signals = _jobs(verb), list[str](), list[bool]()

    def send_signal() -> None:
        signals.append(jobs.stop(name))

    command = [*_command_there(verb, name), "--json"]
    jobs.run(command, user_name(), said.append, _ANSWER_SECONDS, send_signal)
    act = next((Act.model_validate_json(line) for line in "".join(said).splitlines() if line.startswith("{")), None)
    if act and act.answer != NOTHING_TO_STOP:
        return act
    if not signals:
        send_signal()
    if not any(signals):
        raise InputError(f"{name}: {NOTHING_TO_STOP}")
    by_signal = "its driver has not answered, so its job got SIGTERM: it stops within a minute, and can be resumed"
    return Act(**dict(Request(verb="stop")), answer=by_signal)


def there(verb: OnCluster, name: str | None) -> int:
    """Run this command on the cluster, next to the sweep's folder, and print its output."""
    rest = ""

    def show(text: str) -> None:
        nonlocal rest
        *lines, rest = (rest + text).split("\n")
        sys.stdout.write("".join(f"{line}\n" for line in lines if not _is_rays_own(line)))
        sys.stdout.flush()

    code = _jobs(verb).run(_command_there(verb, name), user_name(), show)
    sys.stdout.write(rest)
    return code


def _command_there(verb: OnCluster, name: str | None) -> list[str]:
    """This command, as it is run on the cluster."""
    words = _without(verb.argv, ("--cluster", "--address", "--out"))
    return ["python", "-m", "sweeps", *words, "--out", _folder_there(verb, name)]


def _folder_there(verb: OnCluster, name: str | None) -> str:
    """The folder of sweeps on the cluster: --out, that of the sweep's job, or `storage` of the cluster file."""
    if verb.out != Options().out:
        return str(verb.out)
    words = _words_of_job(_jobs(verb), name) if name else []
    out = words[words.index("--out") + 1] if "--out" in words else _config(verb).storage
    if out is None:
        raise InputError(_NO_FOLDER)
    return out


def _words_of_job(jobs: Jobs, name: str) -> list[str]:
    """The newest command that was submitted for a sweep: python -m sweeps.run SPACE …"""
    return shlex.split(jobs.find(name).entrypoint)


def _without(argv: Sequence[str], options: tuple[str, ...]) -> list[str]:
    kept, words = [], iter(argv)
    for word in words:
        if word in options:
            next(words, None)
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept


def _is_rays_own(line: str) -> bool:
    """Whether the line is Ray's own message about starting the job."""
    return line.startswith("Running entrypoint for job ") or "Runtime env is setting up" in line


def _follow(jobs: Jobs, name: str) -> int:
    def show(text: str) -> None:
        sys.stdout.write(text)
        if is_unread():
            raise KeyboardInterrupt

    try:
        return exit_code(jobs.follow(name, show))
    except KeyboardInterrupt:
        console.print(f"\n{name} continues on the cluster. To follow it again:\n  {jobs.look_again(name)}")
        return 130


def _jobs(verb: OnCluster) -> Jobs:
    return Jobs(_config(verb), verb.reached_by)


def _config(verb: OnCluster) -> ClusterConfig:
    config = reach(verb.cluster, verb.address)
    if config is None:
        raise InputError("no cluster is given: add --cluster FILE or --address http://HOST:8265")
    if not config.submits:
        raise InputError(
            f"{config.address} takes no jobs: give http://HOST:8265, or --out DIR where the sweep's folder is"
        )
    return config
