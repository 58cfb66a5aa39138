"""`python -m tracking VERB`."""

import sys

from fer_common.verbs import replace_missing_characters
from tracking.mlflow_sync.serve import main

if __name__ == "__main__":
    replace_missing_characters()
    sys.exit(main(sys.argv[1:]))
