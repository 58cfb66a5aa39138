"""`python -m cluster VERB`."""

import sys

from cluster.cli import main
from fer_common.verbs import replace_missing_characters

if __name__ == "__main__":
    replace_missing_characters()
    sys.exit(main(sys.argv[1:]))
