"""Shows what the grader does at the moment, as one line."""

import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from competition.grade.journal import ALL_IMAGES, ODD_BATCH, ODD_BATCH_SIZE, STEPS, parse_journal

DELAY = 2.0  # seconds before the first line on a terminal
TERMINAL_PAUSE, PLAIN_PAUSE = 0.2, 10.0  # seconds between two lines, on a terminal and elsewhere


class StatusLine:
    """Shows one line that is updated on a terminal, and elsewhere a new line at most every ten seconds.

    Args:
        stream: where it is shown; the default is standard error.
    """

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.next = time.monotonic() + (DELAY if self.terminal else PLAIN_PAUSE)
        self.visible = False

    def __call__(self, text: str) -> None:
        """Shows a text of one line, or with "" removes what is on the terminal."""
        if not text:
            if self.visible:
                self._write("\r\x1b[K")
            self.visible = False
        elif time.monotonic() >= self.next:
            self.visible = self.terminal
            self.next = time.monotonic() + (TERMINAL_PAUSE if self.terminal else PLAIN_PAUSE)
            columns = shutil.get_terminal_size().columns
            self._write(f"\r\x1b[K{text[: columns - 1]}" if self.terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        print(text, end="", file=self.stream, flush=True)


class Steps:
    """Says which step a running submission is in. It shows names of steps and numbers, and no text of the submission.

    Args:
        journal: path of the ingestion program's journal.
        images: number of images.
        time_limit: seconds.
    """

    def __init__(self, journal: Path, images: int, time_limit: float):
        self.journal, self.images, self.time_limit = journal, images, time_limit
        self.step, self.began = "", 0.0

    def line(self, elapsed: float) -> str:
        """Returns the status after `elapsed` seconds of the stage. Call it some times a second."""
        records, _ = parse_journal(self.journal)
        step = next((name for name in STEPS if name in records and records[name]["passed"] is None), "")
        if step != self.step:
            self.step, self.began = step, elapsed
        seconds = elapsed - self.began
        expected = ""
        if step == ALL_IMAGES and (whole := self._expected(records, seconds)) > seconds:
            expected = f", expected about {whole:.0f} s"
        used = f"{elapsed:.0f} of at most {self.time_limit:g} s"
        return f"grading: {step or 'starting'}, {seconds:.0f} s so far{expected} ({used})"

    def _expected(self, records: dict[str, dict], seconds: float) -> float:
        """Estimates the seconds of all images from those that are done, or from the odd batch. 0 if unknown."""
        done = records[ALL_IMAGES]["done"]
        if 0 < done < self.images:
            estimate = seconds * self.images / done
        elif ODD_BATCH in records:
            estimate = records[ODD_BATCH]["seconds"] * self.images / ODD_BATCH_SIZE
        else:
            return 0.0
        return min(estimate, self.time_limit)
