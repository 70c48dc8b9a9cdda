"""Stage one on the server: run the submission on images without labels.

    python3 ingestion.py INPUT_DATA OUTPUT PROGRAM INGESTED_PROGRAM

Reads INPUT_DATA/images.npy (uint8 [n, h, w, 3]), INPUT_DATA/classes.txt (a name a line) and PROGRAM/contract.json (the
class that model.py must have, and the seconds that the submission may take). Writes to OUTPUT:

- predictions.txt: a class number a line, where there is an answer for every image;
- probabilities.npy: float32 [n, classes], where the submission keeps them in `probabilities` after a `predict`;
- checks.json: what was checked, how it went, and what was used.

The submission runs in a process of its own (runner.py), so that it can change nothing here. Its answers are taken as
bytes and checked; at the end all its processes are stopped, and whatever it wrote to OUTPUT is removed and reported.
Standard library and numpy only.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

ODD = 3  # rows of the odd batch
# Rows that are predicted again to see whether order, repetition and type matter: at most, at least, and otherwise as many
# as the submission predicts in half a second, so that a slow one is not much slower for being checked. Never more than half
# of the images: their number is to differ, too.
SAMPLE, SMALL_SAMPLE, SAMPLE_SECONDS = 64, 3, 0.5
HEADER = 65536  # bytes, the longest header of an answer
MEDDLED = ("it wrote to the pipes between the grader and itself", "leave open file descriptors alone")
SUBREAPER, DUMPABLE = 36, 4  # prctl's options PR_SET_CHILD_SUBREAPER and PR_SET_DUMPABLE


class Failed(Exception):
    """A check does not hold; the arguments are the reason and the mend."""


class TimedOut(Failed):
    """The submission took longer than it may."""


class Submission:
    """The submission's process, and the two pipes to it."""

    def __init__(self, program, input_data, folder, contract):
        self.seconds = contract["seconds"]
        self.deadline = time.monotonic() + self.seconds
        theirs_in, self._questions = os.pipe()
        self._answers, theirs_out = os.pipe()
        runner = os.path.join(program, "runner.py")
        arguments = [runner, input_data, folder, contract["class"], str(theirs_in), str(theirs_out)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B"] + arguments, pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, start_new_session=True
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._kept = b""

    def ask(self, question):
        """The header of the answer to a question. Raises Failed."""
        try:
            os.write(self._questions, json.dumps(question).encode() + b"\n")  # shorter than a pipe's buffer: never blocks
        except BrokenPipeError:
            raise Failed(*self._ended()) from None
        while b"\n" not in self._kept:
            if len(self._kept) > HEADER:
                raise Failed(*MEDDLED)
            self._read()
        line, self._kept = self._kept.split(b"\n", 1)
        try:
            header = json.loads(line.decode())
            assert isinstance(header, dict)
        except (ValueError, AssertionError, RecursionError):
            raise Failed(*MEDDLED) from None
        if "error" in header:
            raise Failed(str(header["error"])[:1000], str(header.get("mend"))[:1000])
        return header

    def array(self, dtype, shape):
        """The next array of an answer."""
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        while len(self._kept) < size:
            self._read()
        data, self._kept = self._kept[:size], self._kept[size:]
        return np.frombuffer(data, dtype).reshape(shape)

    def _read(self):
        ready, _, _ = select.select([self._answers], [], [], max(0.0, self.deadline - time.monotonic()))
        if not ready:
            mend = "use a smaller network or image, or fewer views at prediction"
            raise TimedOut("it ran longer than the limit of {:g} s".format(self.seconds), mend)
        data = os.read(self._answers, 1 << 20)
        if not data:
            raise Failed(*self._ended())
        self._kept += data

    def _ended(self):
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed the pipes between the grader and itself", "leave open file descriptors alone"
        how = "was ended by signal {}".format(-code) if code < 0 else "ended by itself with exit code {}".format(code)
        return "the process " + how, "end with an answer, not with exit; the end of the log says more"

    def end(self):
        """Stops it and everything that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if os.getpid() == 1:  # in a container, everything else is the submission's
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        for _ in range(100):
            left = descendants(os.getpid())
            for number in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(number, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not left:
                return
            time.sleep(0.01)


def descendants(ancestor):
    """Numbers of all processes that come of one, as far as /proc tells."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open("/proc/{}/stat".format(name), "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found = {ancestor}
    while True:
        more = {number for number, parent in parents.items() if parent in found} - found
        if not more:
            return found - {ancestor}
        found |= more


class Journal:
    """The checks so far, on disk after every step, so that a kill from outside is seen at the step that it struck."""

    def __init__(self, output):
        self.path = os.path.join(output, "checks.json")
        self.records = []
        self.used = {}

    def check(self, name, step):
        """Runs one step and records how it went. Returns what the step returned, or None if it failed."""
        record = {"name": name, "passed": None, "reason": "", "mend": "", "seconds": 0.0}
        self.records.append(record)
        self.note()
        began = time.monotonic()
        result = None
        try:
            result = step()
            record["passed"] = True
        except Failed as failure:
            record["passed"] = False
            record["timed_out"] = isinstance(failure, TimedOut)
            record["reason"], record["mend"] = failure.args
        record["seconds"] = round(time.monotonic() - began, 3)
        self.note()
        return result

    def note(self):
        """Writes as far as the submission lets it: while that runs, it can stand in the way, if to nobody's use."""
        with contextlib.suppress(OSError):
            self.write()

    def write(self):
        write(self.path, lambda file: file.write(json.dumps({"checks": self.records, "used": self.used}).encode()))


def write(path, save):
    """A file of our own, whatever stood there before."""
    temporary = path + ".tmp"
    for there in (temporary, path):
        if os.path.islink(there) or os.path.isdir(there):
            remove(there)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    with open(temporary, "xb") as file:
        save(file)
    os.replace(temporary, path)


def remove(path):
    """Removes a file, a link, or a folder with everything in it, closed or not."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, 0o700)
        with contextlib.suppress(RecursionError):
            shutil.rmtree(path, ignore_errors=True)
        if os.path.isdir(path):  # too deep for Python
            subprocess.call(["rm", "-rf", path])
    else:
        os.unlink(path)


def main(input_data, output, program, ingested_program):
    """Runs all checks. Returns 0 if a prediction for every image was written."""
    _protect()
    images = np.load(os.path.join(input_data, "images.npy"), mmap_mode="r", allow_pickle=False)
    with open(os.path.join(input_data, "classes.txt"), encoding="utf-8") as file:
        classes = len(file.read().splitlines())
    with open(os.path.join(program, "contract.json")) as file:
        contract = json.load(file)
    journal = Journal(output)
    submission = Submission(program, input_data, ingested_program, contract)
    try:
        whole, sure = question_all(submission, journal, len(images), classes)
    finally:
        submission.end()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    journal.used["peak_mb"] = round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
    journal.check("output folder", lambda: clean(output))
    journal.write()
    if whole is None:
        return 1
    if sure is not None:
        write(os.path.join(output, "probabilities.npy"), lambda file: np.save(file, sure, allow_pickle=False))
    lines = "".join("{}\n".format(number) for number in whole).encode()
    write(os.path.join(output, "predictions.txt"), lambda file: file.write(lines))
    return 0


def question_all(submission, journal, count, classes):
    """(answers int64 [count], probabilities or None), or (None, None) where there is no answer for every image."""

    def ask(rows, dtype="float32"):
        return answers(submission, rows, count if rows is None else len(rows), dtype, classes)

    if journal.check("import and constructor", lambda: submission.ask({})) is None:
        return None, None
    one = journal.check("one image", lambda: ask([0]))
    odd = journal.check("odd batch", lambda: ask(list(range(min(ODD, count)))))
    if one is None and odd is None:
        return None, None
    got = journal.check("all images", lambda: ask(None))
    if got is None:
        return None, None
    load, first, _, every = (record["seconds"] for record in journal.records)
    journal.used.update(images=count, load_seconds=load, first_seconds=first, seconds=every)
    whole, sure = got
    rows = int(np.clip(SAMPLE_SECONDS * count / max(every, 1e-3), SMALL_SAMPLE, SAMPLE))
    sample = np.random.default_rng().permutation(count)[: min(rows, (count + 1) // 2)]

    def again(dtype, reason):
        equal(ask(sample.tolist(), dtype)[0], whole[sample], reason)

    journal.check("independence of neighbours", lambda: same(whole, {"one image": one, "odd batch": odd}))
    journal.check("row permutation", lambda: again("float32", "the answers change with the order or number of the rows"))
    journal.check("repeatability", lambda: again("float32", "a second call gives other answers"))
    journal.check("uint8 images", lambda: again("uint8", "uint8 images give other answers than float32"))
    return whole, sure


def answers(submission, rows, count, dtype, classes):
    """The submission's answers for some images, after making sure that they are what the server expects."""
    header = submission.ask({"rows": rows, "dtype": dtype})
    mend = "return tf.argmax(probabilities, axis=-1): an integer tensor of shape [{}]".format(count)
    if header.get("kind") != "tensor":
        raise Failed("predict returned {}, not a tensor".format(str(header.get("kind"))[:100]), mend)
    if header.get("shape") != [count]:
        raise Failed("predict returned the shape {} for {} images".format(str(header.get("shape"))[:100], count), mend)
    if not str(header.get("dtype")).startswith(("int", "uint")):
        raise Failed("predict returned {}, not integers".format(str(header.get("dtype"))[:100]), mend)
    values = submission.array("<i8", (count,))
    if count and not (0 <= values.min() and values.max() < classes):
        raise Failed(
            "predict returned {} to {}, there are {} classes".format(values.min(), values.max(), classes),
            "return class numbers from 0 to {}".format(classes - 1),
        )
    sure = None
    if header.get("confidence") is True:
        if type(header.get("classes")) is not int or not 0 < header["classes"] < 10_000:
            raise Failed(*MEDDLED)
        sure = submission.array("<f4", (count, header["classes"]))
    return values, sure if are_probabilities(sure, classes) else None


def are_probabilities(values, classes):
    """Whether float32 [n, k] holds a probability for each class; where not, nothing is said of them."""
    if values is None or values.shape[1] != classes or not np.isfinite(values).all():
        return False
    return bool((values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 0.01).all())


def same(whole, parts):
    """Raises Failed unless the answers for parts of the images are those for all of them."""
    for name, part in parts.items():
        if part is not None:
            equal(part[0], whole[: len(part[0])], "{} gets other answers than the same rows among all".format(name))


def equal(got, expected, reason):
    """Raises Failed unless two rows of answers are the same."""
    different = int((got != expected).sum())
    if different:
        raise Failed(
            "{} ({} of {})".format(reason, different, len(expected)),
            "predict each row on its own: no random numbers, no batch statistics, no shift along axis 0",
        )


def clean(output):
    """Removes everything from the output folder but the journal. Raises Failed if the submission had written there."""
    if os.path.islink(output) or not os.path.isdir(output):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(output)
        os.mkdir(output)
    os.chmod(output, 0o700)
    strange = sorted(name for name in os.listdir(output) if name != "checks.json")
    for name in strange:
        remove(os.path.join(output, name))
    if strange:
        names = ", ".join(ascii(name)[1:-1] for name in strange[:3]) + (" and more" if len(strange) > 3 else "")
        raise Failed("it wrote {} to the output folder".format(names), "return the answers; the server writes them down")


def _protect():
    """Keeps the submission's processes below this one, and this one's memory and course closed to them (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.prctl(SUBREAPER, 1, 0, 0, 0)
        library.prctl(DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
