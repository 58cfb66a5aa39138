"""`python -m tracking VERB`."""

import sys

from fer_common.console import let_no_output_fail
from tracking.mlflow_sync.serve import main

if __name__ == "__main__":
    let_no_output_fail()
    sys.exit(main(sys.argv[1:]))
