"""Print constraints for pip: of each library the oldest series that pyproject.toml allows, with its fixes (2.2 is 2.2.*).

`make test-minimum` runs the fast and long tests with them.
"""

from __future__ import annotations

import re
import tomllib

from tests import ROOT


def oldest() -> list[str]:
    """Of the libraries that a user needs, and of those of the tests that say one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    found = [re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", line) for line in wanted]
    return [f"{one[1]}=={one[2]}.*" for one in found if one]


if __name__ == "__main__":
    print("\n".join(oldest()))
