"""The time left, the decisions, and the best run so far of `training.auto`."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from common.files import atomic_folder, write_json
from training.config.recipe import Recipe
from training.config.record import to_json
from training.fit.finetune import CHECKPOINT
from training.run_folder import BEST, FEATURES, LOCK, PLAN


@dataclass
class Plan:
    """What was decided, what was trained, and how much time is left.

    minutes: time for everything.
    out: folder of all runs.
    accuracy: of the best run on the held-out images; None if none are held out.
    """

    minutes: float
    out: Path
    accuracy: float | None = None
    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    steps: dict[str, dict] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.began)

    def say(self, line: str) -> None:
        """Prints a decision with the time so far, and keeps it."""
        self.lines.append(line)
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        print(f"auto, {minutes}:{seconds:02} of {self.minutes:g} min: {line}", flush=True)

    def keep(self, step: str, recipe: Recipe, accuracy: float | None, text: str = "") -> None:
        """Copies a step's run to `best`, without what only training needs, and says its accuracy or another text."""
        with atomic_folder(self.out / BEST) as temporary:
            for path in (self.out / step).iterdir():
                if path.is_file() and path.name not in (CHECKPOINT, FEATURES, LOCK):
                    shutil.copy2(path, temporary / path.name)
        self.accuracy = accuracy
        self.steps[step] = {"recipe": to_json(recipe), "held_out_accuracy": accuracy}
        text = text or ("" if accuracy is None else f"{accuracy:.1%} on the held-out images; ")
        self.say(f"{step}: {text}kept as {self.out / BEST}")
        self.save()

    def keep_if_better(self, step: str, recipe: Recipe, accuracy: float) -> bool:
        """Keeps a step if it is at least as accurate as the best so far. Returns whether it is."""
        better = self.accuracy is None or accuracy >= self.accuracy
        if better:
            self.keep(step, recipe, accuracy)
        else:
            self.say(f"{step}: {accuracy:.1%} on the held-out images, not better than {self.accuracy:.1%}; not kept")
        return better

    def save(self) -> None:
        write_json(self.out / PLAN, {"minutes": self.minutes, "decisions": self.lines, "steps": self.steps})
