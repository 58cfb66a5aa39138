"""Replaces a trained net's last layer by a support vector machine, recorded as a run.

C is chosen and the machine fitted only on the train split; it predicts the validation split once. The run has a copy of
the net's weights, so it does not depend on its source.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fer_models import Kernel
from sweeps.after.derived_run import new_folder, record_run
from sweeps.errors import InputError
from sweeps.planning.resources import Device
from sweeps.run_kinds import SvmHead, TrainedNet
from sweeps.runs import Run

SPACE = "svm_heads"
"""The name of the experiment in MLflow."""

_LEAST_FACES = 5


def make_svm(
    run: Run,
    kernel: Kernel,
    candidates: Sequence[float],
    name: str,
    out: Path,
    *,
    device: Device = "cpu",
    tracking_uri: str | None = None,
) -> Run:
    """Fit a machine on the net's features of its unaugmented train faces, and record it under `name`.

    `candidates` are values of C, by default those of the kernel; `tracking_uri` as in `record_run`.

    Raises:
        InputError: the run is not a single net, a class has too few train faces, or the name is taken.
        ModelError: the weights are gone, or the net has no features.
    """
    from fer_models.training.svm import CANDIDATES, fit_svm, predict_svm

    run.refuse_unfinished()
    if not isinstance(run.kind, TrainedNet):
        raise InputError(f"{run.name}: a support vector machine replaces the last layer of one net; name a trial")
    folder = new_folder(name, out)
    faces = run.faces()
    counts = faces.train.counts(len(faces.classes))
    few = [f"{label} {count}" for label, count in zip(faces.classes, counts, strict=True) if count < _LEAST_FACES]
    if few:
        raise InputError(
            f"{run.name}: its train split has {', '.join(few)}; a support vector machine needs {_LEAST_FACES} faces "
            "per class; name a run with more faces"
        )
    net, tried = run.net(faces), sorted(candidates or CANDIDATES[kernel])
    head = fit_svm(
        net,
        faces.train.images,
        faces.train.labels,
        kernel=kernel,
        seed=run.trial.started.seed,
        candidates=tried,
        device=device,
    )
    probabilities = predict_svm(net, head, faces.val.images, device=device, views=run.config.recipe.views)
    files = folder.create().trial(0).create()
    shutil.copyfile(run.weights_file(), files.best)
    head.save(files.svm)
    made = SvmHead(
        member=run.name, kernel=kernel, c=head.c, tried=tuple(tried), held_out_accuracy=head.held_out_accuracy
    )
    config = run.trial.started.config | {"svm": made.model_dump(mode="json")}
    what = f"{kernel} SVM on {run.name}"
    return record_run(folder, run, probabilities, space=SPACE, config=config, what=what, tracking_uri=tracking_uri)
