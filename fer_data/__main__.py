"""`python -m fer_data VERB`."""

import sys

from fer_common.verbs import replace_missing_characters
from fer_data.cli import main

if __name__ == "__main__":
    replace_missing_characters()
    sys.exit(main(sys.argv[1:]))
