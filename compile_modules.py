"""A build hook: compiles modules of a wheel to C extensions with mypyc. Off unless HATCH_BUILD_HOOK_ENABLE_CUSTOM=1.

Nothing is left beside the sources: what is compiled goes into the wheel alone, with the sources it was made from.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# In a process of its own: setuptools and mypyc work in the current directory, and say much.
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup

folder, *modules = sys.argv[1:]
options = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports", "--cache-dir", folder + "/mypy"]
setup(
    name="compiled",
    packages=[],
    ext_modules=mypycify([*options, *modules], opt_level="3", debug_level="0", target_dir=folder + "/c"),
    script_args=["build_ext", "--build-lib", folder + "/lib", "--build-temp", folder + "/temp"],
)
"""


class CompiledModules(BuildHookInterface[Any]):
    """Compiles the files named in `modules` of the hook's table in pyproject.toml. Raises RuntimeError with what mypyc
    or the C compiler say."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            raise RuntimeError("an editable install runs the sources; compile with `make compiled` or `pip install .`")
        self._built = TemporaryDirectory(prefix="compiled-")  # as long as this hook: until the wheel is written
        folder = Path(self._built.name)
        command = [sys.executable, "-c", _SETUP, str(folder), *self.config["modules"]]
        done = subprocess.run(command, cwd=self.root, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f"not compiled; without HATCH_BUILD_HOOK_ENABLE_CUSTOM it runs, slower\n{done.stdout}{done.stderr}"
            )
        library = folder / "lib"
        for path in sorted(library.rglob("*.*")):
            if path.is_file():
                build_data["force_include"][str(path)] = path.relative_to(library).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
