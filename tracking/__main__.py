"""`python -m tracking serve`: an MLflow server for a team."""

import sys

from tracking.mlflow_sync.serve import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may lack a character
    if sys.argv[1:2] != ["serve"]:
        sys.stderr.write("error: expected `python -m tracking serve …`\n")
        raise SystemExit(2)
    raise SystemExit(main(sys.argv[2:]))
