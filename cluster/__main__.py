"""`python -m cluster VERB`."""

import sys

from cluster.cli import main
from fer_common.console import let_no_output_fail

if __name__ == "__main__":
    let_no_output_fail()
    sys.exit(main(sys.argv[1:]))
