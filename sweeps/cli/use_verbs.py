"""The verbs that use a trained net: predict, export and serve."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from fer_common.flags import Flag
from fer_common.verbs import Verb
from fer_data import DataError
from sweeps.cli.arguments import OfSweeps, RunName
from sweeps.cli.console import console, errors
from sweeps.errors import InputError
from sweeps.serve.verb import Serve
from sweeps.use.classifier import Classifier
from tracking.metrics.summary import Scores

_TABLES = (".csv", ".csv.gz", ".csv.xz", ".csv.zip")
_OTHERS = 2
"""How many expressions are printed after the most probable one."""

_CAUTIONS = {
    "Training": "the net may have been trained on these faces",
    "PublicTest": "the net may have been selected on these faces",
    "PrivateTest": "this evaluation is not counted; evaluate a chosen net with 'test'",
}
"""What to consider with the scores of each Usage."""


class Predict(OfSweeps):
    """Find the faces in photographs and classify their expressions; exit code 1 if some had none.

    Example: python -m sweeps predict photos/ --draw drawn
    """

    inputs: Annotated[
        tuple[Path, ...],
        Flag(
            "photographs (PNG, JPEG, WebP), a folder of them, a csv in FER2013's format, or - for a photograph on "
            "standard input",
            "INPUT",
            positional=True,
        ),
    ]
    model: Annotated[
        str,
        Flag(
            "champion (default), NAME/3, NAME for a sweep's best trial, models:/MODEL@alias, or an exported FILE.onnx",
            "MODEL",
        ),
    ] = "champion"
    as_json: Annotated[bool, Flag("print JSON", name="json")] = False
    draw: Annotated[
        Path | None, Flag("write pictures: photographs with boxes and bars, a csv's confusion matrix", "DIR")
    ] = None
    whole: Annotated[bool, Flag("take each picture as one face, without face detection")] = False

    def __call__(self) -> int:
        from sweeps.use.find_model import find_model
        from sweeps.use.predict import refuse_to_draw_among

        csvs = [path for path in self.inputs if path.name.lower().endswith(_TABLES)]
        if csvs and self.whole:
            raise InputError("--whole: a csv has whole faces already; omit it")
        photos = [path for path in self.inputs if path not in csvs]
        if self.draw:
            refuse_to_draw_among(photos, self.draw)
        classifier = find_model(self.model, self.out, self.tracking_uri)
        if self.draw:
            self.draw.mkdir(parents=True, exist_ok=True)
        contents: list[dict[str, Any]] = []
        names = _PictureNames()
        faults = sum(_predict_csv(path, classifier, self, contents, names) for path in csvs)
        if photos:
            faults += _predict_photos(photos, classifier, self, contents, names)
        if self.as_json:
            about = classifier.about.model_dump() | {"sentence": classifier.about.sentence}
            console.print(json.dumps({"model": about, "results": contents}, indent=1, ensure_ascii=False))
        else:
            console.print(Text(classifier.about.sentence, style="dim"))
        return 1 if faults else 0


def _predict_photos(
    inputs: list[Path], classifier: Classifier, given: Predict, contents: list[dict[str, Any]], names: _PictureNames
) -> int:
    """Predict photographs; return how many had no prediction."""
    from sweeps.use.predict import photos_in, predict_photos

    paths, faults, faces, began = photos_in(inputs), 0, 0, time.monotonic()
    drawn = map(names.name, paths)
    with _progress(show=len(paths) > 1) as progress:
        task = progress.add_task("photographs", total=len(paths))
        for answered in predict_photos(paths, classifier, as_whole=given.whole):
            progress.advance(task)
            contents.append(answered.content())
            picture = next(drawn)
            if answered.fault:
                faults += 1
                errors.print(Text(f"{answered.name}: {answered.fault}", style="yellow"))
                continue
            faces += len(answered.answers)
            if given.draw:
                from sweeps.use.drawing import answers_figure
                from tracking.figures.parts import save_png

                save_png(answers_figure(answered), given.draw / picture)
            if not given.as_json:
                for number, answer in enumerate(answered.answers, 1):
                    of = f", face {number} of {len(answered.answers)}" if len(answered.answers) > 1 else ""
                    console.print(f"{answered.name}{of}: {_words(answer)}")
                for note in answered.notes:
                    console.print(f"{answered.name}: {note}")
    if len(paths) > 1:
        seconds = time.monotonic() - began
        errors.print(
            f"{len(paths)} photographs, {faces} faces in {seconds:.1f} s: {len(paths) / seconds:.1f} per second"
        )
    return faults


def _progress(*, show: bool = True) -> Progress:
    """A bar that disappears at its end; in a pipe even that would leave an empty line."""
    return Progress(console=errors, transient=True, disable=not (show and errors.is_terminal))


class _PictureNames:
    """The names of the pictures in one folder. Equal names from different folders, or of other types, get a number."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def name(self, path: Path) -> str:
        """The file name of the picture of a photograph or a csv."""
        stem = name = "stdin" if str(path) == "-" else path.stem
        while name in self._seen:
            self._seen[stem] += 1
            name = f"{stem}-{self._seen[stem]}"
        self._seen[name] = 1
        return f"{name}.png"


def _words(answer: Any) -> str:
    others = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[1 : 1 + _OTHERS]
    rest = ", ".join(f"{name.lower()} {share:.0%}" for name, share in others)
    box = answer.box
    at = f" (at {box.left:.0f},{box.top:.0f}, {box.width:.0f}×{box.height:.0f})" if box else ""
    return f"{answer.sentence}; {rest}{at}"


def _predict_csv(
    path: Path, classifier: Classifier, given: Predict, contents: list[dict[str, Any]], names: _PictureNames
) -> int:
    """Score a csv; return the number of bad lines, or 1 if it cannot be read."""
    import numpy as np

    from sweeps.use.csv_scores import score_csv

    began = time.monotonic()
    try:
        with _progress() as progress:
            task = progress.add_task(path.name, total=None)
            scored = score_csv(path, classifier, lambda done, faces: progress.update(task, completed=done, total=faces))
    except (DataError, InputError) as error:
        errors.print(Text(str(error), style="yellow"))
        contents.append({"file": str(path), "error": str(error)})
        return 1
    seconds = time.monotonic() - began
    for fault in scored.faults:
        errors.print(Text(f"{path}: left out {fault}", style="yellow"))
    matrix = np.array(scored.scores.full.confusion)
    contents.append(
        {
            "file": str(path),
            "classes": classifier.classes,
            "scores": scored.scores.full.model_dump(mode="json"),
            "scores_by_usage": {usage: one.full.model_dump(mode="json") for usage, one in scored.by_usage.items()},
            "probabilities": scored.probabilities.round(6).tolist(),
            "left_out": list(scored.faults),
        }
    )
    if given.draw:
        from tracking.figures.trial_figures import draw_confusion_matrix

        title = f"{classifier.about.name} on {path.name}, n = {len(scored.labels):,}"
        draw_confusion_matrix(given.draw / names.name(path), matrix, classifier.classes, title)
    if not given.as_json:
        console.print(f"{path}: {_score_words(scored.scores.full)}")
        for usage, one in scored.by_usage.items():
            console.print(f"{path}, {usage}: {_score_words(one.full)}; {_CAUTIONS[usage]}")
        console.print(_confusion_table(matrix, classifier.classes))
        errors.print(f"{len(scored.labels):,} faces in {seconds:.1f} s: {len(scored.labels) / seconds:,.0f} per second")
    return len(scored.faults)


def _score_words(scores: Scores) -> str:
    share = scores.accuracy
    return (
        f"{scores.n:,} faces, accuracy {share.value:.2%} (95 % interval {share.low:.2%} to {share.high:.2%}), "
        f"macro F1 {scores.macro_f1:.3f}"
    )


def _confusion_table(matrix: Any, classes: tuple[str, ...]) -> Table:
    table = Table("label \\ predicted", *classes, title="confusion matrix")
    for name, row in zip(classes, matrix, strict=True):
        table.add_row(name, *map(str, row))
    return table


class Export(OfSweeps):
    """Write a net as one file for other programs, with a model card.

    Example: python -m sweeps export night/3 --format onnx
    """

    run: RunName
    format: Annotated[
        Literal["onnx", "torch-export", "safetensors"],
        Flag("onnx and torch-export include mirrored views, and preprocessing that a graph can express"),
    ]
    int8: Annotated[bool, Flag("weights and activations in 8 bits (onnx only)")] = False
    file: Annotated[
        Path | None, Flag("file to write (default NAME-NUMBER with the format's suffix, in the current folder)", "FILE")
    ] = None

    def __call__(self) -> int:
        from sweeps.use.card import done_before, points
        from sweeps.use.export import export_run

        run = self.find_net(self.run)
        made = export_run(run, self.format, self.file, int8=self.int8)
        console.print(f"{made.path} ({made.path.stat().st_size / 2**20:.1f} MiB), card {made.card}")
        agreement = f"differ from the net's by {made.largest_difference:.1e} at most"
        console.print(f"on {made.checked} validation faces its probabilities {agreement}")
        if made.before:
            console.print(f"{done_before(made.before)}: see the card")
        if made.change:
            console.print(f"int8 changes the accuracy on the validation split by {points(made.change)}")
        return 0


VERBS: dict[str, type[Verb]] = {"predict": Predict, "export": Export, "serve": Serve}
