"""Runs a verb that ends with the web application that started it, however that ends.

    python -m sweeps.serve.beside ui NAME …

The application has the other end of this process's standard input, which the system closes with the application.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from sweeps.cli.main import main


def _end_with_the_application() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_application, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
