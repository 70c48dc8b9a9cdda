"""The file of a benchmark's result: its values, and the machine that they were measured on."""

import contextlib
import importlib.metadata
import json
import platform
import re
from pathlib import Path
from typing import Any

from common.files import write_json
from common.machine import available_cores

MACHINE = "machine"
PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "jax")
EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # that decide the speed of a matrix product
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def write_result(path: Path, values: dict[str, Any]) -> None:
    """Writes values as JSON, with the machine and the versions that they were measured on under `machine`."""
    write_json(path, {MACHINE: machine(), **values})


def read_result(path: Path) -> dict[str, Any]:
    """The values of a result, without its machine. Older results do not name one."""
    return {name: value for name, value in json.loads(path.read_text("utf-8")).items() if name != MACHINE}


def machine() -> dict[str, Any]:
    """The processor, its cores, and the versions of this project, Python and the packages."""
    about = _about_processor()
    return {
        "processor": about.get("model name") or platform.processor() or platform.machine(),
        "extensions": [name for name in EXTENSIONS if name in about.get("flags", "").split()],
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"project": _project_version(), "python": platform.python_version(), **_package_versions()},
    }


def _about_processor() -> dict[str, str]:
    """The first processor's entries in /proc/cpuinfo; {} where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _project_version() -> str:
    found = re.search(r'^version = "(.+)"$', PROJECT.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"


def _package_versions() -> dict[str, str]:
    """Package → version, of those that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
