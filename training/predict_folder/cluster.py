"""Distributes shards over the machines of a Ray cluster.

Ray is an optional dependency and is started only by the option --ray. Its actors are enough: a shard is small, and what
was finished is kept by the command. Ray Data would hold back results and start a worker that fails again without end.
"""

import importlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from training.predict_folder.listing import Listing, paths
from training.predict_folder.shard import Part, ShardPredictor, Task
from training.predict_folder.submitted import model_files

LOCAL = "local"
ROOT = Path(__file__).resolve().parents[2]
CONNECT_SECONDS = 5
RESTARTS = 1  # of a worker whose process or machine has ended; what raises an error is not repeated
PACKAGES = ("common", "competition", "training")  # that the workers import


@dataclass(frozen=True)
class Cluster:
    """Where shards are predicted.

    address: "local" for a new cluster on this machine, or HOST:PORT of a running one.
    workers: processes that predict; None for one on each machine.
    """

    address: str
    workers: int | None = None


@dataclass(frozen=True)
class Work:
    """What is predicted on a cluster.

    folder: an unpacked submission.
    task: what all shards have in common.
    precision: see `submitted.load`; if it is "", the first worker chooses for all.
    listing: the files.
    pending: numbers of shards.
    """

    folder: Path
    task: Task
    precision: str
    listing: Listing
    pending: list[int]


def require_ray() -> None:
    """Raises a UserError unless Ray is installed."""
    try:
        importlib.import_module("ray.util")
    except ImportError as error:
        raise UserError(f"--ray needs Ray ({error}); pip install ray") from None


def predict_shards(cluster: Cluster, work: Work) -> Iterator[tuple[int, Part]]:
    """Yields (shard, part) of the pending shards, in the order in which they are finished.

    The model and the code are sent to the workers. They read the images themselves, so `work.task.data` must be a
    folder that every machine has under the same path.

    Args:
        cluster: where the shards are predicted.
        work: what is predicted.

    Raises:
        UserError: there is no such cluster, or a worker failed.
    """
    import ray

    _connect(cluster)
    try:
        files = ray.put({name: path.read_bytes() for name, path in model_files(work.folder).items()})
        count, cores = _workers(cluster, len(work.pending))
        worker = ray.remote(_Worker).options(
            num_cpus=cores, scheduling_strategy="SPREAD", max_restarts=RESTARTS, max_task_retries=RESTARTS
        )
        actors = [worker.remote([files], work.task) for _ in range(count)]
        precision = ray.get(actors[0].load.remote(work.precision))

        def start(
            actor: Any, shard: int
        ) -> Any:  # called when a worker is idle, so few parts of the list are in memory
            return actor.predict.remote(shard, work.listing.read(shard), precision)

        yield from ray.util.ActorPool(actors).map_unordered(start, work.pending)
    except ray.exceptions.RayError as error:
        raise _worker_error(error) from error
    finally:
        ray.shutdown()


class _Worker:
    """A process that predicts shards.

    Args:
        files: a list of one reference to the model's files. Ray would warn of a reference that is an argument itself.
        task: what all shards have in common.
    """

    def __init__(self, files: list, task: Task) -> None:
        self.files, self.task = files, task
        self.predictor: ShardPredictor | None = None

    def load(self, precision: str) -> str:
        """Loads the model. Returns its precision."""
        import ray

        with tempfile.TemporaryDirectory(prefix="predict-") as folder:
            for name, content in ray.get(self.files[0]).items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.predictor = ShardPredictor(Path(folder), self.task, precision)
        return self.predictor.precision

    def predict(self, shard: int, part: bytes, precision: str) -> tuple[int, Part]:
        """Returns the number of a shard and its part."""
        if self.predictor is None:  # also after a restart
            self.load(precision)
        assert self.predictor is not None
        return shard, self.predictor.predict(paths(part))


def _connect(cluster: Cluster) -> None:
    """Starts a local cluster, or connects to a running one."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {}
    if cluster.address == LOCAL:
        local = {"num_cpus": max(os.cpu_count() or 1, cluster.workers or 1), "include_dashboard": False}
    else:
        _require_reachable(cluster.address)
    code = {"py_modules": [str(ROOT / name) for name in PACKAGES]}
    try:
        ray.init(cluster.address, runtime_env=code, logging_level="ERROR", log_to_driver=False, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise _no_cluster(cluster.address, reason) from error


def _require_reachable(address: str) -> None:
    """Raises a UserError at once if nothing answers at HOST:PORT. Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        raise _no_cluster(address, "not HOST:PORT")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"--ray must be local or HOST:PORT of a running cluster, got {address} ({reason}); "
        "start one with: ray start --head"
    )


def _workers(cluster: Cluster, shards: int) -> tuple[int, int]:
    """(number of workers, cores that each of them takes). TensorFlow uses all cores of a machine in one process."""
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = [count for count in cores if count]
    if not cores:
        raise UserError("--ray needs a machine with processor cores, the cluster has none; wait until its workers join")
    workers = min(cluster.workers or len(cores), shards)
    return workers, max(1, min(min(cores), min(cores) * len(cores) // workers))


def _worker_error(error: Exception) -> UserError:
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError):
        return UserError(str(cause))
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return UserError(f"a worker of Ray failed ({reason}); repeat the command to continue")
