"""Speed of the submission compared with ONNX Runtime and OpenVINO on the same network, in float32 and bfloat16.

  python -m benchmarks.peers
  python -m benchmarks.peers --data data/leaves/phase1
  python -m benchmarks.peers --images 64 --rounds 5 --json peers.json

The peers are optional: pip install -r requirements-peers.txt. Those that are absent are named and left out. ONNX
Runtime and OpenVINO read the ONNX file that tf2onnx makes of submission/SubmissionModel. OpenVINO has the throughput
hint.

Each contestant runs in a process of its own, which is started once, and they predict the same 96×96 images in turn, one
view of each. Before anything is timed, their labels are compared with those in float32. They must be the same for 99 %
of the clear images, those whose two most probable classes differ by 0.1 or more in float32. Synthetic leaves are often
unclear to the network, photographs hardly ever.

exit codes: 0 measured, 1 a contestant computes something else, 2 wrong input
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import Failed, benchmark_parser, run_benchmark, speed_record
from benchmarks.process import SUBMISSION, NotMeasured, Process, submission
from common.cli import whole_number
from common.errors import UserError
from common.images import load_folder
from common.progress import progress
from competition.synthetic import SIDE, draw_images

INSTALL = "pip install -r requirements-peers.txt"
OPSET = 18
CLEAR = 0.1  # difference of the two largest probabilities
SAME_LABELS = 0.99  # least share of the clear images
PACKAGES = ("tensorflow", "tensorflow-cpu", "onnxruntime", "openvino", "tf2onnx")  # whose versions are recorded

Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [n, 96, 96, 3] → probabilities [n, classes]


@dataclass(frozen=True)
class Contestant:
    """A way to compute the network.

    load: (precision, ONNX file, images in a batch) → the function that predicts. Raises NotMeasured if it cannot.
    precision: "float32" or "bfloat16".
    packages: those without which it is left out.
    """

    load: Callable[[str, Path, int], Predict]
    precision: str
    packages: tuple[str, ...] = ()


def load_submission(precision: str, onnx: Path, batch_size: int) -> Predict:
    """The submission, with batches of its own size."""
    return submission(precision).predict_proba


def load_onnx_runtime(precision: str, onnx: Path, batch_size: int) -> Predict:
    """ONNX Runtime on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # while others predict, its threads sleep
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    return lambda images: np.concatenate(
        [session.run(None, {pixels.name: batch})[0] for batch in _batches(images, batch_size)]
    )


def load_openvino(precision: str, onnx: Path, batch_size: int) -> Predict:
    """OpenVINO on the processor, which computes several batches at the same time."""
    import openvino

    core = openvino.Core()
    kind = {"float32": "f32", "bfloat16": "bf16"}[precision]
    capabilities = {"float32": "FP32", "bfloat16": "BF16"}
    if capabilities[precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise NotMeasured(f"OpenVINO has no {precision} on this processor")
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": kind}
    queue = openvino.AsyncInferQueue(core.compile_model(str(onnx), "CPU", hints))

    def predict(images: np.ndarray) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        queue.set_callback(lambda request, number: found.update({number: request.get_output_tensor(0).data.copy()}))
        for number, batch in enumerate(_batches(images, batch_size)):
            queue.start_async({0: batch}, number)
        queue.wait_all()
        return np.concatenate([found[number] for number in sorted(found)])

    return predict


def _batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (images[start : start + size].astype(np.float32) for start in range(0, len(images), size))


BASELINE = "submission/model.py, float32"
OURS = (BASELINE, "submission/model.py, bfloat16")
CONTESTANTS = {
    OURS[0]: Contestant(load_submission, "float32"),
    OURS[1]: Contestant(load_submission, "bfloat16"),
    "ONNX Runtime, float32": Contestant(load_onnx_runtime, "float32", ("tf2onnx", "onnxruntime")),
    "OpenVINO, float32": Contestant(load_openvino, "float32", ("tf2onnx", "openvino")),
    "OpenVINO, bfloat16": Contestant(load_openvino, "bfloat16", ("tf2onnx", "openvino")),
}


def contestant(name: str, onnx: Path, batch_size: int, images: np.ndarray) -> Callable[[], tuple[float, np.ndarray]]:
    """Loads a contestant. Returns a function that predicts the images: seconds, probabilities [n, classes]."""
    chosen = CONTESTANTS[name]
    predict = chosen.load(chosen.precision, onnx, batch_size)

    def timed() -> tuple[float, np.ndarray]:
        began = time.perf_counter()
        probabilities = predict(images)
        return time.perf_counter() - began, probabilities

    return timed


def convert(model: Path, onnx: Path) -> None:
    """Converts a SavedModel to ONNX in a process of its own.

    Raises:
        Failed: tf2onnx cannot convert it.
    """
    print("converting the SavedModel to ONNX, less than a minute", flush=True)
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(model), "--output", str(onnx)]
    command += ["--signature_def", "probabilities", "--tag", "serve", "--opset", str(OPSET)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode or not onnx.is_file():
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise Failed(f"tf2onnx cannot convert {model} ({reason}); use another version of it")


def absent(name: str) -> str:
    """Why a contestant's packages do not let it run, or an empty text."""
    missing = [package for package in CONTESTANTS[name].packages if not importlib.util.find_spec(package)]
    return f"no {' and no '.join(missing)}; {INSTALL}" if missing else ""


def agreement(probabilities: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """How far probabilities [n, classes] agree with those in float32, as plain values."""
    same = probabilities.argmax(axis=-1) == reference.argmax(axis=-1)
    second, first = np.sort(reference, axis=-1)[:, -2:].T
    clear = first - second >= CLEAR
    return {
        "same_labels": float(same.mean()),
        "same_labels_of_clear_images": float(same[clear].mean()) if clear.any() else 1.0,
        "clear_images": int(clear.sum()),
        "largest_difference": float(np.abs(probabilities - reference).max()),
    }


def check_labels(name: str, agrees: dict[str, float]) -> None:
    """Raises Failed if a contestant's labels are not those in float32."""
    share = agrees["same_labels_of_clear_images"]
    print(
        f"{name}: the labels in float32 for {agrees['same_labels']:.1%} of the images, for {share:.1%} of the "
        f"{agrees['clear_images']} clear ones; a probability differs by at most {agrees['largest_difference']:.1e}",
        flush=True,
    )
    if share < SAME_LABELS:
        raise Failed(
            f"{name} must agree with float32 in {SAME_LABELS:.0%} of the clear images' labels, got {share:.1%}"
        )


def measure(images: np.ndarray, rounds: int, batch_size: int) -> tuple[dict[str, np.ndarray], dict, dict[str, str]]:
    """Compares the labels, then times the contestants in turn.

    Args:
        images: uint8 [n, 96, 96, 3].
        rounds: number of rounds.
        batch_size: images in a batch of the peers.

    Returns:
        Name → seconds [rounds]. Name → `agreement`. Name → why it was not measured.

    Raises:
        Failed: a contestant's labels differ, or its process has ended.
    """
    missing = {name: reason for name in CONTESTANTS if (reason := absent(name))}
    present = [name for name in CONTESTANTS if name not in missing]
    agrees, reference = {}, None
    with tempfile.TemporaryDirectory(prefix="peers-") as folder, contextlib.ExitStack() as stack:
        onnx, processes = Path(folder, "model.onnx"), {}
        if any(CONTESTANTS[name].packages for name in present):
            convert(SUBMISSION / "SubmissionModel", onnx)
        for name in present:
            try:
                process = Process(name, contestant, name, onnx, batch_size, images)
            except NotMeasured as error:
                missing[name] = str(error)
                continue
            processes[name] = stack.enter_context(process)
            _, probabilities = process()  # warms up as well
            reference = probabilities if reference is None else reference
            agrees[name] = agreement(probabilities, reference)
            check_labels(name, agrees[name])
        seconds: dict[str, list[float]] = {name: [] for name in processes}
        for _ in progress(range(rounds), "comparing", unit="round"):
            for name, process in processes.items():
                seconds[name].append(process()[0])
    return {name: np.array(values) for name, values in seconds.items()}, agrees, missing


def record(seconds: dict[str, np.ndarray], images: int) -> dict[str, dict[str, float]]:
    """Images per second of each contestant, the ratio to float32, and how many times as fast ours is, as plain values.

    Ours is the faster one of the submission's precisions. Ratios are taken within each round.
    """
    ours = seconds[fastest(seconds)]
    rows = speed_record(seconds, images, BASELINE)
    for name, values in seconds.items():
        rows[name] |= {
            "images_per_second_min": float((images / values).min()),
            "images_per_second_max": float((images / values).max()),
            "ours_median": float(np.median(values / ours)),
            "ours_min": float((values / ours).min()),
            "ours_max": float((values / ours).max()),
        }
    return rows


def fastest(seconds: dict[str, np.ndarray]) -> str:
    """The name of the faster one of the submission's precisions."""
    return min((name for name in OURS if name in seconds), key=lambda name: float(np.median(seconds[name])))


def table(rows: dict[str, dict[str, float]], rounds: int) -> Iterator[str]:
    """The lines of a table of `record`."""
    width = max(map(len, rows))
    yield f"{'':{width}}  images/s (min to max of {rounds} rounds)  ratio to float32  the faster submission is so fast"
    for name, row in rows.items():
        speed = f"{row['images_per_second']:6.1f} ({row['images_per_second_min']:.1f} to "
        ratios = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        ours = f"{row['ours_median']:.2f} ({row['ours_min']:.2f} to {row['ours_max']:.2f})"
        yield f"{name:{width}}  {speed}{row['images_per_second_max']:.1f})  {ratios}  {ours}"


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints. Returns the exit code."""
    parser = benchmark_parser("peers", __doc__)
    parser.add_argument("--data", metavar="DIR", help="class folders of photographs (default: synthetic leaves)")
    parser.add_argument("--images", type=whole_number, default=256, help="number of images (default: %(default)s)")
    parser.add_argument("--rounds", type=whole_number, default=7, help="timed rounds (default: %(default)s)")
    parser.add_argument("--batch-size", type=whole_number, default=32, help="of the peers (default: %(default)s)")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    images = _images(options.data, options.images)
    seconds, agrees, missing = measure(images, options.rounds, options.batch_size)
    rows = record(seconds, len(images))
    print("\n".join(table(rows, options.rounds)))
    for name, reason in missing.items():
        print(f"{name}: not measured, {reason}")
    return {
        "images": len(images),
        "photographs": options.data is not None,
        "rounds": options.rounds,
        "batch_size_of_peers": options.batch_size,
        "fastest": fastest(seconds),
        "contestants": {name: {**row, **agrees[name]} for name, row in rows.items()},
        "not_measured": missing,
        "versions": _versions(),
    }


def _images(data: str | None, count: int) -> np.ndarray:
    if data is None:
        return draw_images(count)
    images = load_folder(data, (SIDE, SIDE)).images
    if len(images) < count:
        raise UserError(f"--images must be at most the {len(images)} images in {data}, got {count}")
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


if __name__ == "__main__":
    sys.exit(main())
