"""The time left, the decisions, and the best run so far of `training.auto`."""

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import TEMPORARY, atomic_folder, write_json
from training.config.recipe import Recipe
from training.config.record import from_json, to_json
from training.fit.finetune import CHECKPOINT
from training.inputs import Inputs
from training.run_folder import BEST, FEATURES, LOCK, PLAN

QUICK, FINETUNED, HEAD, ALL = "quick", "finetuned", "head", "all"  # the steps
PATHS = ("data", "labels", "validation", "validation_labels", "test", "test_labels", "groups")
GIVEN = (*PATHS, "label_columns", "size", "backbone_weights")


@dataclass
class Plan:
    """What was decided, what was trained, and how much time is left. It is saved after every decision.

    minutes: time for everything.
    out: folder of all runs.
    inputs: the options that name the inputs; an interrupted search is continued with the same ones only.
    accuracy: of the best run on the held-out images; None if none are held out.
    max_images: maximum number of images that are used; None if that is not decided, 0 for all.
    began: when the search began, of `time.monotonic`; if it was interrupted, moved by the time between the last epoch
        or decision and its continuation.
    lines: the decisions.
    steps: name of each step that was kept → its recipe and held-out accuracy.
    finished: whether all steps are done.
    confirmed: False until the images of a continued search are compared; nothing is saved before.
    """

    minutes: float
    out: Path
    inputs: dict[str, Any] = field(default_factory=dict)
    accuracy: float | None = None
    max_images: int | None = None
    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    steps: dict[str, dict] = field(default_factory=dict)
    finished: bool = False
    confirmed: bool = True

    @property
    def seconds_left(self) -> float:
        return 60 * self.minutes - self.seconds

    @property
    def seconds(self) -> float:
        """The time so far."""
        return time.monotonic() - self.began

    def say(self, line: str) -> None:
        """Prints a decision with the time so far, and saves it."""
        self.lines.append(line)
        minutes, seconds = divmod(int(self.seconds), 60)
        print(f"auto, {minutes}:{seconds:02} of {self.minutes:g} min: {line}", flush=True)
        self.save()

    def keep(self, step: str, recipe: Recipe, accuracy: float | None, text: str = "") -> None:
        """Copies a step's run to `best`, and says its accuracy or another text."""
        self.copy_to_best(step)
        self.accuracy = accuracy
        self.steps[step] = {"recipe": to_json(recipe), "held_out_accuracy": accuracy}
        text = text or ("" if accuracy is None else f"{accuracy:.1%} on the held-out images; ")
        self.say(f"{step}: {text}kept as {self.out / BEST}")

    def copy_to_best(self, step: str) -> None:
        """Copies a step's run to `best`, without what only training needs."""
        with atomic_folder(self.out / BEST) as temporary:
            for path in (self.out / step).iterdir():
                if path.is_file() and path.name not in (CHECKPOINT, FEATURES, LOCK):
                    shutil.copy2(path, temporary / path.name)

    def keep_if_better(self, step: str, recipe: Recipe, accuracy: float) -> bool:
        """Keeps a step if it is at least as accurate as the best so far. Returns whether it is."""
        better = self.accuracy is None or accuracy >= self.accuracy
        if better:
            self.keep(step, recipe, accuracy)
        else:
            self.say(f"{step}: {accuracy:.1%} on the held-out images, not better than {self.accuracy:.1%}; not kept")
        return better

    def recipe(self, step: str) -> Recipe | None:
        """The recipe of a step that was kept, or None."""
        return from_json(self.steps[step]["recipe"]) if step in self.steps else None

    def confirm(self) -> None:
        """From now on, decisions are saved. `best` is copied again if the process was killed while it was replaced."""
        self.confirmed = True
        if self.steps and not (self.out / BEST).is_dir():
            self.copy_to_best(list(self.steps)[-1])
        self.save()

    def save(self) -> None:
        if not self.confirmed:  # a refused search stays as it was
            return
        fields = {"minutes": self.minutes, "seconds": round(self.seconds, 1), "finished": self.finished}
        choices = {"inputs": self.inputs, "max_images": self.max_images, "accuracy": self.accuracy}
        write_json(self.out / PLAN, {**fields, **choices, "decisions": self.lines, "steps": self.steps})


def require_own_folder(out: Path) -> None:
    """Raises a UserError if a folder has files that are not those of a search."""
    if not out.is_dir() or (out / PLAN).is_file():
        return
    if any(there.name != LOCK and not there.name.startswith(TEMPORARY) for there in out.iterdir()):
        raise UserError(f"--out must be a new folder or that of an interrupted search; {out} has other files")


def open_plan(minutes: float, out: Path, inputs: Inputs) -> Plan:
    """A new plan, or that of the interrupted search in a folder.

    Args:
        minutes: time for everything, with that before the interruption.
        out: a new folder, or that of an interrupted search with the same inputs.
        inputs: `Inputs`.

    Raises:
        UserError: a finished search, one of other inputs, or a damaged `plan.json`.
    """
    for unfinished in out.glob(f"{TEMPORARY}*"):  # left by a process that was killed
        unfinished.unlink() if unfinished.is_file() else shutil.rmtree(unfinished, ignore_errors=True)
    path, given = out / PLAN, _given(inputs)
    if not path.is_file():
        return Plan(minutes, out, given)
    try:
        fields = json.loads(path.read_text("utf-8"))
        finished = fields.get("finished", True)  # searches of earlier versions do not say
        other = [] if finished else [name for name in GIVEN if fields["inputs"].get(name) != given[name]]
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); give another --out") from error
    if finished:
        raise UserError(
            f"--out must be a new folder or that of an interrupted search; the search in {out} has ended, or is of an "
            "earlier version"
        )
    if not fields.get("steps"):  # nothing to continue from
        shutil.rmtree(out / QUICK, ignore_errors=True)
        return Plan(minutes, out, given)
    if other:
        option = f"--{other[0].replace('_', '-')}"
        raise UserError(f"{out} holds a search with another {option}; repeat its own command, or give another --out")
    return _continued(Plan(minutes, out, given), fields)


def _continued(plan: Plan, fields: dict[str, Any]) -> Plan:
    """A plan with what the interrupted search has saved."""
    path = plan.out / PLAN
    last_epoch = max((there.stat().st_mtime for there in plan.out.rglob(CHECKPOINT)), default=0.0)
    try:
        plan.accuracy, plan.max_images = fields["accuracy"], fields["max_images"]
        plan.lines, plan.steps = list(fields["decisions"]), dict(fields["steps"])
        for step in plan.steps:
            plan.recipe(step)  # so that a damaged one is an error here
        plan.began -= fields["seconds"] + max(0.0, last_epoch - path.stat().st_mtime)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); give another --out") from error
    plan.confirmed = False
    plan.say("continuing the search")
    return plan


def _given(inputs: Inputs) -> dict[str, Any]:
    """The options of GIVEN as JSON has them, paths without a slash at their end."""
    values = {name: Path(value) if name in PATHS and value else value for name, value in asdict(inputs).items()}
    return json.loads(json.dumps({name: values[name] for name in GIVEN}, default=str))
