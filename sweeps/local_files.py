"""Python puts the working folder before every package: a file `ray.py` there hides Ray from this program."""

import sys
from collections.abc import Iterator
from pathlib import Path

_NEEDED = (
    "albumentations", "cv2", "fastapi", "jinja2", "joblib", "lmdb", "matplotlib", "mlflow", "numpy", "onnxruntime",
    "optuna", "pandas", "PIL", "psutil", "pyarrow", "pydantic", "ray", "rich", "safetensors", "scipy", "skimage",
    "sklearn", "torch", "torchvision", "uvicorn", "yaml",
)  # fmt: skip


def refuse_hidden_packages() -> None:
    """End `python -m sweeps…` with one line where files of the working folder hide packages."""
    # The name is -m while Python looks for the module of `python -m`, and only then; -P leaves the working folder out.
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path:
        return
    if hiding := list(_hiding(Path.cwd())):
        sys.stderr.write(
            f"error: {', '.join(hiding)} in the working folder {Path.cwd()}: hides a package of that name from this "
            "program; rename it, or start in another folder\n"
        )
        raise SystemExit(2)


def _hiding(folder: Path) -> Iterator[str]:
    for name in _NEEDED:
        if (folder / f"{name}.py").is_file():
            yield f"{name}.py"
        elif (folder / name / "__init__.py").is_file():
            yield f"{name}/"
