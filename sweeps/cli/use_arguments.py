"""The command lines of the verbs that use a trained net."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

MODEL = "champion (default), NAME/3, NAME for a sweep's best trial, models:/MODEL@alias, or an exported FILE.onnx"


def add_use_verbs(verbs: Any) -> list[argparse.ArgumentParser]:
    """Add the verbs; return those that still need the options of all verbs that use MLflow."""
    predict = verbs.add_parser("predict", help="find the faces in photographs and say their expressions")
    predict.add_argument("inputs", metavar="INPUT", nargs="+", type=Path,
                         help="photographs (PNG, JPEG, WebP), a folder of them, a csv in FER2013's form, "
                              "or - for a photograph on standard input")  # fmt: skip
    predict.add_argument("--model", default="champion", metavar="MODEL", help=MODEL)
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.add_argument("--draw", type=Path, metavar="DIR",
                         help="write pictures: photographs with boxes and bars, a csv's confusion matrix")  # fmt: skip
    predict.add_argument("--whole", action="store_true", help="take each picture as one face, without looking for any")
    export = verbs.add_parser("export", help="write a run's net as one file for other programs, with a model card")
    export.add_argument("run", metavar="RUN", help="NAME/NUMBER, NAME for a sweep's best trial, or MLflow's run id")
    export.add_argument("--format", choices=("onnx", "torch-export", "safetensors"), required=True,
                        help="onnx and torch-export hold preprocessing and views too")  # fmt: skip
    export.add_argument("--int8", action="store_true", help="weights and activations in 8 bits (onnx alone)")
    export.add_argument("--file", type=Path, metavar="FILE", help="default NAME-NUMBER and the format's suffix, here")
    serve = verbs.add_parser("serve", help="one web application: watch sweeps, steer them, try a net on a face")
    serve.add_argument("--host", default="127.0.0.1", metavar="H",
                       help="address to listen at (default 127.0.0.1; any other asks for a token)")  # fmt: skip
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="default 8000")
    serve.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                       help="a name under which browsers may address the server (repeatable)")  # fmt: skip
    serve.add_argument("--token-file", type=Path, metavar="FILE", help="default OUT/.serve-token, made if absent")
    return [predict, export, serve]
