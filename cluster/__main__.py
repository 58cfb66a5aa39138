"""`python -m cluster doctor [CONFIG]`."""

import sys

from cluster.cli import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may lack a character
    sys.exit(main(sys.argv[1:]))
