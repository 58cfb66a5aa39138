"""The command lines of the verbs that use a trained net."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

MODEL = "champion (default), NAME/3, NAME for a sweep's best trial, models:/MODEL@alias, or an exported FILE.onnx"


def add_use_verbs(verbs: Any) -> list[argparse.ArgumentParser]:
    """The parsers of these verbs, which still lack what all verbs share."""
    predict = verbs.add_parser("predict", help="find the faces in photographs and say their expressions")
    predict.add_argument("inputs", metavar="INPUT", nargs="+", type=Path,
                         help="photographs (PNG, JPEG, WebP), a folder of them, a csv in FER2013's form, "
                              "or - for a photograph on standard input")  # fmt: skip
    predict.add_argument("--model", default="champion", metavar="MODEL", help=MODEL)
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.add_argument("--draw", type=Path, metavar="DIR",
                         help="write pictures: photographs with boxes and bars, a csv's confusion matrix")  # fmt: skip
    predict.add_argument("--whole", action="store_true", help="take each picture as one face, without looking for any")
    return [predict]
