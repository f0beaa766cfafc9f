"""Everything about one GPU in one command of at most ten minutes: python benchmarks/gpu.py DATA.h5 --out FOLDER

Stages (gpu_stages.py), each in a process of its own with a time of its own: what fails or takes too long is recorded
and leaves the others their time. FOLDER/gpu.json and FOLDER/gpu.md are written after each. The exit status is 1 when a
stage failed.

    --quick       small networks and few cases; with NUMBA_ENABLE_CUDASIM=1 in Numba's simulator, without a GPU
    --predict     no GPU: count the launches of training steps, and predict their time on an H200 (gpu_predict.py)
    --sanitize    one small step and prediction, for compute-sanitizer --tool memcheck|racecheck
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if "--predict" in sys.argv:
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # read when Numba is imported

import gpu_report

from refattn.common.files import write_text

TOTAL = 580  # s, of all stages
LIMITS = {  # stage -> s; in the order of their weight, should the time run out
    "device": 60,
    "rates": 60,
    "operations_parity": 150,  # which compiles all kernels
    "networks_parity": 90,
    "same_bits": 60,
    "gradient_check": 80,
    "operations_time": 60,
    "step scann+": 200,
    "epoch": 60,
    "train": 90,
    "step scann": 130,
}
NEEDS_A_GPU = ("rates", "operations_time", "step scann+", "step scann", "epoch")
SHORTEST = 15  # s that a stage needs at least: importing and loading take most of it


def main(arguments=None):
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", help="graphs made by refattn prepare, such as QM9's")
    parser.add_argument("--target", help="label to learn; default: the first one of the data set")
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--stages", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.predict:
        from gpu_predict import prediction

        text = prediction()
        write_text(options.out / "gpu.md", text) if options.out else print(text)
        return 0
    if options.sanitize:
        from gpu_stages import sanitize

        print(f"a step and a prediction of both variants: losses {sanitize()}")
        return 0
    if not options.data or not options.out:
        parser.error("give a data set and --out, or one of --predict and --sanitize")
    if options.stage:
        return one_stage(options)
    return every_stage(options)


def one_stage(options):
    """The process of a stage: its result goes to the file --out, whenever there is more of it."""
    import gpu_stages

    def report(result):
        write_text(options.out, json.dumps(result))

    name, _, variant = options.stage.partition(" ")
    function = getattr(gpu_stages, name)
    report(function(gpu_stages.Setting(options.data, options.target, options.quick, variant, report)))
    return 0


def every_stage(options):
    """Run the stages one after the other, and write the results after each."""
    options.out.mkdir(parents=True, exist_ok=True)
    record, began = {"data": Path(options.data).name, "quick": options.quick, "stages": {}}, time.monotonic()
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    for name in options.stages:
        if simulated and name in NEEDS_A_GPU:
            record["stages"][name] = {"ok": None, "error": "needs a GPU"}
        else:
            left = TOTAL - (time.monotonic() - began)
            record["stages"][name] = run_stage(options, name, min(LIMITS[name], left))
        state = record["stages"][name]
        print(f"{name}: {state['error'] or 'ok'}, {state.get('seconds', 0):.0f} s", flush=True)
        write_text(options.out / "gpu.json", json.dumps(record, indent=1) + "\n")
        write_text(options.out / "gpu.md", gpu_report.markdown(record))
    return int(any(stage["ok"] is False for stage in record["stages"].values()))


def run_stage(options, name, limit):
    """Result, time and error of a stage, which gets `limit` s."""
    if limit < SHORTEST:
        return {"ok": False, "seconds": 0, "error": f"no time was left of {TOTAL} s", "result": None}
    with tempfile.TemporaryDirectory() as folder:
        path, began, error = Path(folder) / "result.json", time.monotonic(), None
        command = [sys.executable, __file__, options.data, "--out", path, "--stage", name]
        command += ["--quick"] * options.quick + (["--target", options.target] if options.target else [])
        try:
            run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=limit)
            if run.returncode:
                error = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            error = f"took longer than the {limit:.0f} s that it had"
        result = json.loads(path.read_text()) if path.exists() else None
    if error is None and result and result.get("ok") is False:
        error = result["error"]
    return {"ok": error is None, "seconds": time.monotonic() - began, "error": error, "result": result}


if __name__ == "__main__":
    sys.exit(main())
