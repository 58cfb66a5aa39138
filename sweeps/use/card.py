"""The model card beside an exported net: contents, scores, limits, and use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fer_data import Faces
from sweeps.runs import Run
from sweeps.use.about import About
from tracking.metrics.scores import Interval

_USE = {
    "onnx": """import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{file}")
faces = np.zeros((1, {side}, {side}), np.uint8)  # grey levels of faces that fill the square; from a picture:
# faces = np.asarray(PIL.Image.open("face.png").convert("L").resize(({side}, {side})))[None]
{inputs}
(probabilities,) = session.run(["probabilities"], inputs)  # "looked" has the Grad-CAM of the most probable class
print(dict(zip({classes}, probabilities[0].tolist())))""",
    "torch-export": """import numpy as np, torch
net = torch.export.load("{file}").module()
faces = np.zeros((1, {side}, {side}), np.uint8)  # grey levels of faces that fill the square; from a picture:
# faces = np.asarray(PIL.Image.open("face.png").convert("L").resize(({side}, {side})))[None]
{inputs}
probabilities = net(*map(torch.tensor, inputs.values()))
print(dict(zip({classes}, probabilities[0].tolist())))""",
    "safetensors": """import json, numpy as np, torch
from pydantic import TypeAdapter
from safetensors import safe_open
from fer_models import NetConfig
from fer_models.nets.registry import build
file = safe_open("{file}", "pt")
member = json.loads(file.metadata()["model"])["members"][0]  # net, preprocessing, views and weight of the first net
mean, generator = np.zeros(({side}, {side}), np.float32), torch.Generator()
config = TypeAdapter(NetConfig).validate_python(member["net"])
net = build(config, classes={n}, mean_image=mean, generator=generator)
net.load_state_dict({{name[2:]: file.get_tensor(name) for name in file.keys() if name.startswith("0.")}})
faces = torch.zeros((1, 1, {side}, {side}))  # preprocessed faces, grey levels 0 to 255
print(dict(zip({classes}, net.eval()(faces).softmax(1)[0].tolist())))""",
}


def card(
    run: Run, about: About, faces: Faces, path: Path, kind: str, change: Interval | None, before: Sequence[str]
) -> str:
    """The card as Markdown; `before` has the preprocessings that are not in the file."""
    side = int(faces.val.images.shape[1])
    classes = list(faces.classes)
    use = _USE[kind].format(file=path.name, side=side, n=len(classes), classes=classes, inputs=_inputs(before))
    return "\n".join(
        [
            f"# {path.name}",
            "",
            f"{about.net}, trial {about.name}, exported as {kind}"
            + (" in int8" if change else "")
            + ". It takes grey faces of "
            f"{side}×{side} pixels (uint8) and gives a probability for each of: {', '.join(faces.classes)}."
            + _taught(run),
            "",
            "## Data",
            "",
            f"{about.data}, fingerprint {run.spec.fingerprint}: {faces.sizes} faces. {_licence(about)}",
            *(f"\n{note}" for note in faces.notes),
            "",
            "## Scores",
            "",
            *_scores(about, run, change),
            "",
            "## Limits",
            "",
            "- It names the expression that a picture shows, not what a person feels. It can be wrong about people.",
            "- It was selected on its validation split, so its accuracy there is too high.",
            "- People of some ages and origins are rare in the training data; it errs more often on them.",
            "- Faces must be cropped like the training faces: square, upright, filled by the face.",
            "- Do not use it for decisions about people.",
            "",
            "## Use",
            "",
            "```python",
            use,
            "```",
            "",
        ]
    )


def _taught(run: Run) -> str:
    recipes = [member.config.recipe for member, _ in run.nets()]
    teachers = dict.fromkeys(recipe.distill for recipe in recipes if recipe.is_distilled)
    starts = dict.fromkeys(
        member.config.transfer.weights for member, _ in run.nets() if member.config.transfer.pretrained
    )
    return (f" It was trained with the answers of {', '.join(teachers)}." if teachers else "") + (
        f" Its training began from the weights '{', '.join(starts)}', whose licence applies too." if starts else ""
    )


def _inputs(before: Sequence[str]) -> str:
    """The line of the example program that makes the graph's inputs."""
    if not before:
        return 'inputs = {"faces": faces}'
    more = ", ".join(f'"{name}": preprocess(faces, "{name}")' for name in before)
    return f"""from fer_data.augmentation.preprocess import preprocess  # {done_before(before)}
inputs = {{"faces": faces, {more}}}"""


def done_before(before: Sequence[str]) -> str:
    """The preprocessings that the graph does not contain, as text."""
    return f"{', '.join(before)} {'are' if len(before) > 1 else 'is'} done before the graph, which cannot contain it"


def _licence(about: About) -> str:
    if about.synthetic:
        return "The faces are drawn by a program and show no person; no number here says anything about people."
    if about.dataset.startswith("FER2013"):
        return "FER2013 is for research use: its images show real people, collected from the web."
    return "Respect the licence of these data."


def _scores(about: About, run: Run, change: Interval | None) -> list[str]:
    lines = [f"- the net of {about.so_far}"] if about.so_far else []
    for what, n, share in (
        ("", about.n, about.accuracy),
        (", leak-free", about.leak_free_n, about.leak_free),
    ):
        if share:
            lines.append(
                f"- accuracy on {about.split}{what}, n = {n:,}: {share.value:.2%} "
                f"(95 % interval {share.low:.2%} to {share.high:.2%})"
            )
    if run.tested:
        lines.append(f"- accuracy on the test split, {run.tested}")
    if change:
        lines.append(f"- int8 changes the accuracy on {about.split} by {points(change)}")
    return lines or ["- not recorded"]


def points(change: Interval) -> str:
    """A difference of accuracies in points, with its interval."""
    return f"{100 * change.value:+.2f} points (95 % {100 * change.low:+.2f} to {100 * change.high:+.2f})"
