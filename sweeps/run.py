"""The entry point of `python -m sweeps.run SPACE`."""

import sys

from fer_common.console import let_no_output_fail
from sweeps.cli.main import run_main

if __name__ == "__main__":
    let_no_output_fail()
    sys.exit(run_main(sys.argv[1:]))
