"""A sweep's weights as artifacts of its trials' runs: exactly those that the sweep keeps."""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.errors import TrackingError
from tracking.mlflow_sync.run_records import KEY_TAG, WEIGHTS_TAG, run_key
from tracking.mlflow_sync.upkeep import search_everywhere
from tracking.record.history import SweepHistory
from tracking.record.layout import WEIGHTS_NAME, SweepFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DIGITS = 16


@dataclass(frozen=True)
class Copy:
    """The weights that MLflow has of one run."""

    run_id: str
    name: str
    """The run's name."""
    size_bytes: int


def bring_up_to_date(
    client: "MlflowClient", folder: SweepFolder, run_ids: Mapping[int, str], tags: Mapping[int, str]
) -> None:
    """Send the weights in a sweep's folder, and delete those that are no longer there. Repeating this changes nothing.

    It is called at the end of a sweep, because only then are the best trials known; an extension may change them.

    Args:
        client: MLflow's.
        folder: the sweep's.
        run_ids: the trials' runs by number.
        tags: the WEIGHTS_TAG of the trials that have one.
    """
    for number, wanted in outdated(folder, run_ids, tags):
        if wanted:
            _send(client, run_ids[number], folder.trial(number).best)
            client.set_tag(run_ids[number], WEIGHTS_TAG, wanted)
        else:
            with suppress(NotImplementedError):  # some artifact stores cannot delete files
                _take_back(client, run_ids[number])


def outdated(folder: SweepFolder, trials: Iterable[int], tags: Mapping[int, str]) -> Iterator[tuple[int, str | None]]:
    """The trials whose weights in MLflow are not those in the sweep's folder.

    With each is the WEIGHTS_TAG of those in the folder; None if there are none. `tags` are those in MLflow.
    """
    for number in trials:
        path = folder.trial(number).best
        wanted = _content(path) if path.is_file() else None
        if wanted != tags.get(number):
            yield number, wanted


def copies_of_weights(client: "MlflowClient", history: SweepHistory, trials: Collection[int]) -> list[Copy]:
    """The weights that MLflow has of these trials. Earlier versions sent those of every trial, without a tag."""
    keys = {run_key(history.started, number) for number in trials}
    query = f"tags.`{KEY_TAG}` LIKE '{history.started.sweep_id}/%'"
    runs = [run for run in search_everywhere(client, query) if run.data.tags[KEY_TAG] in keys] if keys else []
    return [
        Copy(str(run.info.run_id), str(run.info.run_name), file.file_size or 0)
        for run in runs
        for file in client.list_artifacts(run.info.run_id)
        if file.path == WEIGHTS_NAME
    ]


def remove_copies(client: "MlflowClient", copies: Sequence[Copy]) -> None:
    """Delete them.

    Raises:
        TrackingError: files cannot be deleted in MLflow's artifact store.
    """
    for copy in copies:
        try:
            _take_back(client, copy.run_id)
        except NotImplementedError as error:
            raise TrackingError(
                f"the weights of MLflow's run '{copy.name}' cannot be deleted where they are"
            ) from error


def _content(path: Path) -> str:
    """Value of WEIGHTS_TAG. It has a digest, because an extended trial's new weights have the size of the old ones."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"{os.fstat(file.fileno()).st_size} bytes, sha256 {digest[:_DIGITS]}"


def _send(client: "MlflowClient", run_id: str, path: Path) -> None:
    """Log the file. If MLflow's artifacts are on the same disk, it is a hard link, which takes no space.

    Weight files are replaced and never modified, so the copy cannot change.
    """
    from mlflow.utils.file_utils import local_file_uri_to_path

    uri = client.get_run(run_id).info.artifact_uri
    if uri.startswith(("file:", "/")):
        place = Path(local_file_uri_to_path(uri)) / path.name  # type: ignore[no-untyped-call]
        beside = place.with_name(f".{path.name}.{os.getpid()}")
        with suppress(OSError):  # another disk, or no support for links
            place.parent.mkdir(parents=True, exist_ok=True)
            beside.hardlink_to(path)
            beside.replace(place)
            beside.unlink(missing_ok=True)  # still there if both were already the same file
            return
    client.log_artifact(run_id, str(path))


def _take_back(client: "MlflowClient", run_id: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run = client.get_run(run_id)
    repository = get_artifact_repository(run.info.artifact_uri, client.tracking_uri)
    repository.delete_artifacts(WEIGHTS_NAME)  # type: ignore[no-untyped-call]
    if WEIGHTS_TAG in run.data.tags:
        client.delete_tag(run_id, WEIGHTS_TAG)
