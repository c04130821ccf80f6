"""``alexnet doctor``: what this machine has, and what is missing."""

import collections
import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
from pathlib import Path
from typing import Any

from alexnet_cli import options, runs, runtime, view

PACKAGES = [
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"),
    *("tensorflow-datasets", "array_record", "clu", "numpy", "pillow", "simplejpeg"),
    *("scikit-learn", "typer", "rich"),
]
TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def doctor(
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Look at devices, versions, memory and data; say what is missing.

    Examples:
      alexnet doctor
      alexnet doctor --json
    """
    runtime.set_up()
    from alexnet_jax.data.memory import cores

    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "devices": _devices(),
        "cores": cores(),
        "memory_bytes": _memory(),
        "compile_cache": _cache(),
        "data": _data(data_dir),
        "newest_run": _newest_run(),
    }
    found["missing"] = _missing(found)
    if as_json:
        print(json.dumps(found, default=str))
        return
    memory = (found["memory_bytes"]["free"], found["memory_bytes"]["total"])
    cache = found["compile_cache"]
    data = found["data"]
    machine = [
        *(("devices", line) for line in _device_lines(found["devices"])),
        ("cores", str(found["cores"])),
        ("memory", " free of ".join(view.size(n) for n in memory if n)),
        ("system", f"{found['platform']}, Python {found['python']}"),
    ]
    view.answer(view.heading("Machine"), view.pairs(machine))
    names = [f"{name} {version}" for name, version in found["versions"].items()]
    half = -(-len(names) // 2)
    lines = [
        f"  {a:<38}{b}"
        for a, b in itertools.zip_longest(names[:half], names[half:], fillvalue="")
    ]
    view.answer(view.heading("\nVersions"), "\n".join(lines))
    places = [
        (
            "tfds sets",
            f"{', '.join(data['tfds_sets']) or 'none'} in {data['tfds_dir']}",
        ),
        ("ImageNet", _imagenet_line(data)),
        ("newest run", found["newest_run"] or "none in ./runs"),
        ("compiled", f"{cache['dir']} ({view.size(cache['bytes'])})"),
    ]
    view.answer(view.heading("\nData"), view.pairs(places))
    if not found["missing"]:
        view.answer("\nNothing is missing.")
        return
    view.answer(view.heading("\nMissing, and the command that brings it"))
    for missing in found["missing"]:
        view.answer(f"  {missing['what']}\n    {missing['command']}")


def _versions() -> dict[str, str]:
    found = {"alexnet-jax": runtime.version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _devices() -> list[dict[str, Any]]:
    import jax

    devices = []
    for device in jax.devices():
        limit = (device.memory_stats() or {}).get("bytes_limit")
        devices.append(
            {
                "platform": device.platform,
                "kind": device.device_kind,
                "memory_bytes": limit,
            }
        )
    return devices


def _device_lines(devices: list[dict[str, Any]]) -> list[str]:
    counts = collections.Counter(
        (device["kind"], device["memory_bytes"]) for device in devices
    )
    return [
        f"{count} x {kind}" + (f", {view.size(memory)} each" if memory else "")
        for (kind, memory), count in counts.items()
    ]


def _memory() -> dict[str, int | None]:
    """Return the bytes of main memory; what is free is known only on Linux."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = None
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return {"total": total, "free": free}


def _cache() -> dict[str, Any]:
    folder = runtime.cache_dir()
    size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    return {"dir": str(folder), "bytes": size, "writable": os.access(folder, os.W_OK)}


def _data(data_dir: Path | None) -> dict[str, Any]:
    from alexnet_jax.data import tfds_source

    folder = tfds_source.data_dir(str(data_dir) if data_dir else None)
    infos = [
        info
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
        for info in folder.glob(pattern)
    ]
    manual = folder / "downloads" / "manual"
    return {
        "tfds_dir": str(folder),
        "tfds_sets": sorted({info.relative_to(folder).parts[0] for info in infos}),
        "imagenet_dir": str(manual),
        "imagenet_files": [tar for tar in TARS if (manual / tar).exists()],
    }


def _imagenet_line(data: dict[str, Any]) -> str:
    if "imagenet2012" in data["tfds_sets"]:
        return f"prepared by tfds in {data['tfds_dir']}"
    found = ", ".join(data["imagenet_files"]) or "no ILSVRC2012 tar"
    return f"{found} in {data['imagenet_dir']}"


def _newest_run() -> str | None:
    from alexnet_jax import rundir

    found = rundir.runs(runs.RUNS)
    return str(found[-1]) if found else None


def _missing(found: dict[str, Any]) -> list[dict[str, str]]:
    """Return what is not there and the command that brings it."""
    from alexnet_jax.data import tfds_source

    data, missing = found["data"], []

    def miss(what: str, command: str) -> None:
        missing.append({"what": what, "command": command})

    for name, version in found["versions"].items():
        if version == "missing":
            miss(f"{name} is not installed", f"pip install {name}")
    on_cpu = all(device["platform"] == "cpu" for device in found["devices"])
    if on_cpu and Path("/proc/driver/nvidia/version").exists():
        miss("jax does not see the GPU", "pip install 'alexnet-jax[cuda]'")
    if not found["compile_cache"]["writable"]:
        miss(
            f"{found['compile_cache']['dir']} is not writable",
            "export JAX_COMPILATION_CACHE_DIR=DIR",
        )
    if found["newest_run"] is None:
        miss("no run yet", "alexnet train")
    folder = Path(data["tfds_dir"])
    if "cifar10" not in data["tfds_sets"]:
        command = tfds_source.build_command("cifar10", folder)
        miss("tfds:cifar10, for the recipe cifar10-quick", command)
    if "imagenet2012" not in data["tfds_sets"]:
        tars = [tar for tar in TARS if tar not in data["imagenet_files"]]
        put = f"; put {' and '.join(tars)} in {data['imagenet_dir']}" if tars else ""
        miss(
            f"imagenet2012, for the recipe imagenet{put}",
            "alexnet prepare imagenet2012 --out imagenet256",
        )
    return missing
