"""Pictures of a run's net: filters, feature maps of some faces, and saliency maps of its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fer_data import Faces
from sweeps.after.pictures.inspected_faces import Shown, chosen_faces
from sweeps.errors import InputError
from sweeps.planning.resources import Device
from sweeps.run_kinds import Ensemble, SvmHead
from sweeps.runs import Run
from tracking.metrics.summary import data_name
from tracking.mlflow_sync.upkeep import find_mlflow_run, log_file, opened

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from fer_models.inspection.activations import Watched
    from tracking.figures.inspect_figures import FaceSheet

MapMethod = Literal["gradcam", "occlusion"]
METHODS: tuple[MapMethod, ...] = get_args(MapMethod)


def net_table(run: Run) -> str:
    """The run's net as text, layer by layer, with parameters and multiply-adds."""
    from fer_models.listing import layer_table, summarise

    net, classes = _single(run).config.net, len(run.spec.classes)
    note = f"{classes} classes; parameters in fp32; multiply-adds per face, in millions"
    return f"{run.name}: {net.name}\n{layer_table(summarise(net, classes))}\n{note}"


def captum_missing() -> str | None:
    """How to install the optional package that `METHODS` need. None if it is installed."""
    from fer_models import ModelError
    from fer_models.inspection.saliency import check_captum

    try:
        check_captum()
    except ModelError as error:
        return str(error)
    return None


def inspect_run(
    run: Run,
    shown: Shown,
    *,
    layers: Sequence[str] = (),
    methods: Sequence[MapMethod] = (),
    folder: Path | None = None,
    device: Device = "cpu",
) -> Iterator[Path]:
    """Check everything, then write the pictures one by one and yield the path of each.

    Args:
        run: a single net.
        shown: the faces.
        layers: names of stages or layers; empty for all stages that have feature maps.
        methods: saliency methods; "gradcam" for those of `layers` that have feature maps.
        device: device of the net.
        folder: default `inspect/` in the trial's folder.

    Raises:
        InputError: the run is an ensemble, or Grad-CAM has no layer with feature maps.
        ModelError: a layer's name is unknown, or captum is missing.
        TrackingError: a disk error.
    """
    from fer_models.inspection.activations import watch
    from fer_models.inspection.saliency import check_captum
    from fer_models.training.evaluate import predict

    if methods:
        check_captum()
    faces = _single(run).faces()
    net = run.net(faces)
    watched = watch(net, layers)
    if "gradcam" in methods and not any(layer.is_map for layer in watched):
        raise InputError(
            f"Grad-CAM: none of {', '.join(layers)} has a feature map of more than one pixel; also name a "
            "convolution, or use --method occlusion"
        )
    probabilities = predict(net, shown.images, device=device, views=run.config.recipe.views)
    sheet = _face_sheet(shown, probabilities, run.spec.classes)
    scene = _Scene(net, shown, watched, sheet, probabilities.argmax(1), f"{_what(run)}, {shown.title}")
    return _written(_pictures(run, faces, scene, methods), folder or run.files.root / "inspect")


def _written(pictures: Iterator[tuple[str, Figure]], folder: Path) -> Iterator[Path]:
    from tracking.figures.parts import save_png

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another --out-dir") from error
    for name, figure in pictures:
        save_png(figure, folder / name)
        yield folder / name


def draw_filters_and_maps(run: Run) -> list[Path]:
    """Draw filters and feature maps, for one face per class, into `inspect/` in the trial's folder.

    Raises:
        InputError: the run is an ensemble, or its faces have changed.
        DataError: its faces are gone.
        ModelError: its weights are missing or damaged.
        TrackingError: a disk error.
    """
    return list(inspect_run(run, chosen_faces(run)))


def log_pictures(run: Run, pictures: Sequence[Path], tracking_uri: str) -> None:
    """Log pictures to the trial's MLflow run, in its folder `inspect`.

    Raises:
        TrackingError: MLflow does not answer, or has no store or no run of the trial yet.
    """
    with opened(tracking_uri) as client:
        run_id = find_mlflow_run(client, run.history.started, run.trial.number)
        for path in pictures:
            log_file(client, run_id, path, "inspect")


@dataclass(frozen=True, eq=False)
class _Scene:
    """A net, the inspected faces and layers, and its predicted classes `said` [n]."""

    net: nn.Module
    shown: Shown
    watched: Sequence[Watched]
    sheet: FaceSheet
    said: NDArray[np.intp]
    title: str


def _pictures(run: Run, faces: Faces, scene: _Scene, methods: Sequence[MapMethod]) -> Iterator[tuple[str, Figure]]:
    """Yield file names and pictures."""
    from fer_models.inspection.activations import first_filters
    from tracking.figures.inspect_figures import filters_figure

    name, filters = first_filters(scene.net)
    count, height, width = filters.shape
    title = f"{_what(run)}, trained on {data_name(faces.name, faces.synthetic)}, train, n = {len(faces.train):,}"
    yield "filters.png", filters_figure(filters, f"{title}\n{name}: {count} filters of {height}×{width}")
    yield from _maps(scene)
    if "gradcam" in methods:
        yield "gradcam.png", _grad_cam(scene)
    if "occlusion" in methods:
        yield "occlusion.png", _occlusion(scene)


def _maps(scene: _Scene) -> Iterator[tuple[str, Figure]]:
    from fer_models.inspection.activations import outputs
    from tracking.figures.inspect_figures import maps_figure, units_figure

    given = outputs(scene.net, scene.shown.images, scene.watched)
    for layer in scene.watched:
        draw = maps_figure if layer.is_map else units_figure
        name = layer.name if layer.name == layer.path else f"{layer.name} ({layer.path})"
        yield f"maps_{layer.name}.png", draw(scene.sheet, given[layer.name], f"{scene.title}\n{name}")


def _grad_cam(scene: _Scene) -> Figure:
    from fer_models.inspection.saliency import grad_cam
    from tracking.figures.inspect_figures import evidence_figure

    maps = {
        f"{layer.name}, {layer.shape[1]}×{layer.shape[2]}": grad_cam(scene.net, scene.shown.images, scene.said, layer)
        for layer in scene.watched
        if layer.is_map
    }
    return evidence_figure(scene.sheet, maps, f"{scene.title}\nGrad-CAM for the predicted class, by layer")


def _occlusion(scene: _Scene) -> Figure:
    from fer_models.inspection.saliency import occlusion, occlusion_window
    from tracking.figures.inspect_figures import drop_figure

    images = scene.shown.images
    side, step = occlusion_window(*images.shape[1:])
    about = f"occlusion: how a grey square of {side}×{side}, moved by {step}, lowers the predicted class"
    return drop_figure(scene.sheet, occlusion(scene.net, images, scene.said), f"{scene.title}\n{about}")


def _face_sheet(shown: Shown, probabilities: NDArray[np.float32], classes: Sequence[str]) -> FaceSheet:
    from tracking.figure_text import drawable
    from tracking.figures.inspect_figures import FaceSheet

    classes = drawable(classes)
    captions, wrong = [], []
    for name, label, row in zip(shown.names, shown.labels, probabilities, strict=True):
        said = int(row.argmax())
        true = name if label is None else f"{classes[label]} ({name})"
        captions.append(f"{true}\npred. {classes[said]} {row[said]:.0%}")
        wrong.append(label is not None and said != label)
    return FaceSheet(np.clip(shown.images, 0, 255).astype(np.uint8), captions, wrong)


def _single(run: Run) -> Run:
    match run.kind:
        case Ensemble(members=members):
            raise InputError(f"{run.name} is an ensemble, which has no layers; inspect a member: {', '.join(members)}")
        case SvmHead(member=member):
            raise InputError(f"{run.name} is a support vector machine; inspect its net: {member}")
    return run


def _what(run: Run) -> str:
    best = run.trial.best_epoch()
    return f"{run.name}: {run.config.net.name}" + (f", epoch {best.epoch}" if best else "")
