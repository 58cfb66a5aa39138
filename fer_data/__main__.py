"""`python -m fer_data VERB`."""

import sys

from fer_data.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
