"""Python searches the working folder before all packages, so a file `ray.py` there hides Ray from this program."""

import sys
from collections.abc import Iterator
from pathlib import Path

_NEEDED = (
    "albumentations", "cv2", "fastapi", "jinja2", "joblib", "lmdb", "matplotlib", "mlflow", "numpy", "onnxruntime",
    "optuna", "pandas", "PIL", "psutil", "pyarrow", "pydantic", "ray", "rich", "safetensors", "scipy", "skimage",
    "sklearn", "torch", "torchvision", "uvicorn", "yaml",
)  # fmt: skip


def refuse_hidden_packages() -> None:
    """End `python -m sweeps…` with one line if files of the working folder hide packages."""
    # sys.argv[0] is -m only while Python looks for the module of `python -m`; -P excludes the working folder.
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path:
        return
    if hiding := list(_hiding(Path.cwd())):
        sys.stderr.write(
            f"error: {', '.join(hiding)} in the working folder {Path.cwd()}: hides the package of that name from this "
            "program; rename the file, or start in another folder\n"
        )
        raise SystemExit(2)


def _hiding(folder: Path) -> Iterator[str]:
    for name in _NEEDED:
        if (folder / f"{name}.py").is_file():
            yield f"{name}.py"
        elif (folder / name / "__init__.py").is_file():
            yield f"{name}/"
