"""The thin door: `python -m sweeps.run SPACE`."""

import sys

from sweeps.cli.main import run_main

if __name__ == "__main__":
    sys.exit(run_main(sys.argv[1:]))
