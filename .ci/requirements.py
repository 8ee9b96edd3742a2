"""Print requirements.txt: the dependencies of pyproject.toml and those of its extra `tensorflow`."""

import tomllib
from pathlib import Path

HEADER = """\
# Everything that the package uses, for `pip install -r requirements.txt`; the reasons stand in pyproject.toml.
# Written by `make requirements` from pyproject.toml.
"""

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
print(HEADER, end="")
print(*project["dependencies"], sep="\n")
print("# Of the extra `tensorflow`.")
print(*project["optional-dependencies"]["tensorflow"], sep="\n")
