"""Copies conf/ and sweeps/ into the package when it is built, so that it works from any folder (see pyproject.toml).

An editable install reads them where they are, in the clone.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigurations(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        shipped = Path(self.build_lib, "moe_study", "shipped")
        for folder in ("conf", "sweeps"):
            shutil.rmtree(shipped / folder, ignore_errors=True)  # of an earlier build
            shutil.copytree(folder, shipped / folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))


setup(cmdclass={"build_py": BuildWithConfigurations})
