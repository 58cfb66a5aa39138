"""`python -m sweeps VERB`."""

import sys

from fer_common.console import let_no_output_fail
from sweeps.cli.main import main

if __name__ == "__main__":
    let_no_output_fail()
    sys.exit(main(sys.argv[1:]))
