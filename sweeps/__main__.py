"""`python -m sweeps VERB`."""

import sys

from sweeps.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
