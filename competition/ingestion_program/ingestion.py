"""The prediction stage on the server: runs the submission on images without labels.

    python3 ingestion.py INPUT_DATA OUTPUT PROGRAM INGESTED_PROGRAM

Reads the images of INPUT_DATA (see load_images), INPUT_DATA/classes.txt (one name a line) and PROGRAM/contract.json
(the name of the class in model.py, and the time limit in seconds). Writes to OUTPUT:

- predictions.txt: one class number a line, if there is a prediction for every image;
- probabilities.npy: float32 [n, classes], if the submission keeps them in `probabilities` after `predict`;
- checks.json: each check with its result, and what was used. The scoring program refuses if a check failed.

Each failed check is also printed to standard error, with its reason and its fix.

The submission runs in a process of its own (runner.py). It gets the images through a pipe, in a new secret order at
each run, so that no row number means the same image twice. Its responses are untrusted bytes that are validated here.

Memory: the images are kept once, as uint8. A call of `predict` gets all of them as one float32 array if that has at
most CALL_BYTES, else as many as fit, so that large images need no more memory than small ones.

The default worker of Codabench lets a submission write to every folder of this stage. Therefore everything is read
before the submission starts, and nothing is imported or started afterwards. At the end all its processes are killed,
and everything that it wrote to OUTPUT is removed and reported. Standard library and numpy only.
"""

import contextlib
import ctypes
import io
import json
import os
import resource
import secrets
import select
import signal
import subprocess
import sys
import time

import numpy as np

ODD_BATCH_SIZE = 3
# Rows that are predicted again to test that order, repetition and dtype do not matter: as many as the submission
# predicts in half a second, within these bounds, so that the checks cost little. At most half of the images, because
# the number of rows must differ too.
MAX_SAMPLE, MIN_SAMPLE, SAMPLE_SECONDS = 64, 3, 0.5
MAX_HEADER_BYTES = 65536
MAX_CLASSES = 10_000
MAX_PRECISION = 20  # letters, of the name of a type such as bfloat16
MAX_FILES = 100_000  # that are listed
CALL_BYTES = 500_000_000  # of the float32 images of one call: 4,521 images of 96×96, 39 of 1024×1024
METADATA = ("metadata.yaml", "metadata")  # the first one that exists is read by the server
METADATA_KEYS = ("description",)
MAX_METADATA_BYTES = 10_000
NOT_PLAIN = tuple("[]{},#&*!|>%@`'\"")  # a text that starts so means something else in YAML
NOT_PLAIN_WORDS, NOT_PLAIN_ALONE = ("-", "?", ":"), ("", "=", "<<")  # also as its first word, and as the whole text
NO_METADATA = "there is no metadata (it marks a code submission; without it CodaLab never runs the code)"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}  # TensorFlow prints what fails, not how it computes
PIPE_MISUSE = ("it wrote to the pipes between the grader and itself", "leave open file descriptors alone")
JOURNAL = "checks.json"
FILES_CHECK = "no files left"
FAILURES = "failed checks:"
PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE = 36, 4  # options of prctl


class Failed(Exception):
    """A check does not hold. Arguments: the reason and the fix."""


class TimedOut(Failed):
    """The submission exceeded its time limit."""


class Contract:
    """What the organizer decided, read before the submission starts.

    Attributes:
        images: uint8 [n, h, w, 3], in the order of INPUT_DATA.
        order: int64 [n], the row in INPUT_DATA of each image that the submission gets.
        classes: number of classes.
        class_name: name of the class in model.py.
        seconds: time limit.
    """

    def __init__(self, input_data, program):
        self.images = load_images(input_data)
        self.order = np.random.default_rng(secrets.randbits(128)).permutation(len(self.images))
        with open(os.path.join(input_data, "classes.txt"), encoding="utf-8") as file:
            self.classes = len(file.read().splitlines())
        with open(os.path.join(program, "contract.json"), encoding="utf-8") as file:
            contract = json.load(file)
        self.class_name, self.seconds = contract["class"], contract["seconds"]

    def restore(self, values):
        """Returns values [n, …] in the submission's order, in the order of INPUT_DATA."""
        restored = np.empty_like(values)
        restored[self.order] = values
        return restored


def load_images(input_data):
    """All images, uint8 [n, h, w, 3]. They are in memory, because the submission may be able to change the files.

    The local grader writes an array. A bundle has image files: decoder.py, a process that ends here, decodes them.
    """
    array = os.path.join(input_data, "images.npy")
    if os.path.isfile(array):
        return np.load(array, allow_pickle=False)
    with open(os.path.join(input_data, "shape.json"), encoding="utf-8") as file:
        images = np.empty(json.load(file), np.uint8)
    decoder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "decoder.py")
    command = [sys.executable, "-I", "-B", decoder, os.path.join(input_data, "images")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        count = process.stdout.readinto(memoryview(images).cast("B"))
        more = process.stdout.read(1)
    if process.returncode or more or count != images.nbytes:
        raise RuntimeError("the competition's images cannot be decoded; tell its organizer, with the lines above")
    return images


class Submission:
    """The submission's process and the two pipes to it."""

    def __init__(self, runner, folder, contract):
        self.images, self.order, self.seconds = contract.images, contract.order, contract.seconds
        self.deadline = time.monotonic() + self.seconds
        their_requests, self._requests = os.pipe()
        self._responses, their_responses = os.pipe()
        arguments = [runner, folder, contract.class_name, str(their_requests), str(their_responses)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B"] + arguments,
            env={**QUIET, **os.environ},
            pass_fds=(their_requests, their_responses),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(their_requests)
        os.close(their_responses)
        os.set_blocking(self._requests, False)
        self._buffer = bytearray()

    def request(self, request):
        """Sends a request and reads the header of its response.

        Args:
            request: {} constructs the model; {"rows": row numbers, "dtype": name} predicts.

        Raises:
            Failed: there is no response, it is not valid, or it is an error.
        """
        self._send(request)
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise Failed(*PIPE_MISUSE)
            self._read()
        line = self._take(self._buffer.index(b"\n") + 1)
        try:
            header = json.loads(line.decode())
            assert isinstance(header, dict)
        except (ValueError, AssertionError, RecursionError):
            raise Failed(*PIPE_MISUSE) from None
        if "error" in header:
            raise Failed(str(header["error"])[:1000], str(header.get("fix"))[:1000])
        return header

    def _send(self, request):
        """Sends {} or {"shape", "dtype"} as one line, then the pixels of the rows. Row numbers are not sent."""
        if not request:
            self._write(b"{}\n")
            return
        rows = self.order[request["rows"]]
        header = {"shape": [len(rows)] + list(self.images.shape[1:]), "dtype": request["dtype"]}
        self._write(json.dumps(header).encode() + b"\n")
        for row in rows:
            self._write(np.ascontiguousarray(self.images[row]).reshape(-1))

    def _write(self, data):
        data = memoryview(data)
        while data:
            self._wait([], [self._requests])
            try:
                data = data[os.write(self._requests, data) :]
            except BlockingIOError:  # something else has filled the pipe meanwhile
                continue
            except BrokenPipeError:
                raise Failed(*self._ending()) from None

    def array(self, dtype, shape):
        """The next array of a response. Raises Failed."""
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        while len(self._buffer) < size:
            self._read()
        return np.frombuffer(self._take(size), dtype).reshape(shape)

    def _take(self, size):
        """Removes the first bytes from the buffer, and returns them."""
        data = self._buffer[:size]
        del self._buffer[:size]  # without a copy of the rest
        return data

    def _read(self):
        self._wait([self._responses], [])
        data = os.read(self._responses, 1 << 20)
        if not data:
            raise Failed(*self._ending())
        self._buffer += data

    def _wait(self, readable, writable):
        """Waits until one of the pipes can be read or written. Raises TimedOut."""
        ready = select.select(readable, writable, [], max(0.0, self.deadline - time.monotonic()))
        if not any(ready) or time.monotonic() > self.deadline:
            fix = "use a smaller network, smaller images or fewer TTA transforms"
            raise TimedOut("it ran longer than the limit of {:g} s".format(self.seconds), fix)

    def _ending(self):
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed the pipes between the grader and itself", "leave open file descriptors alone"
        how = "was killed by signal {}".format(-code) if code < 0 else "exited with code {}".format(code)
        return "the process " + how, "return from predict and do not exit; see the end of the log"

    def peak_mb(self):
        """The peak memory of the process, or of a process that it started, in MB of 1,000,000 bytes.

        The system's record of ended children counts the memory of the process that started them as theirs. It is used
        where there is no /proc, or if the process has ended already.
        """
        peak = 0
        for number in descendants(os.getpid()):
            with contextlib.suppress(OSError, ValueError):
                with open("/proc/{}/status".format(number), encoding="utf-8", errors="replace") as file:
                    peaks = [int(line.split()[1]) for line in file if line.startswith("VmHWM:")]
                peak = max([peak] + peaks)
        if peak:
            return round(peak * 1024 / 1e6)
        self.end()
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)

    def end(self):
        """Kills the process and everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if os.getpid() == 1:  # in a container all other processes are the submission's
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
    """Numbers of all processes below one, as far as /proc shows them."""
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
    """The checks so far, written to disk after every step, so that a kill from outside shows at which step it was."""

    def __init__(self, output):
        self.path = os.path.join(output, JOURNAL)
        self.records = []
        self.used = {}

    def check(self, name, step):
        """Runs one step and records its result. Returns what the step returned, or None if it failed."""
        record = {"name": name, "passed": None, "reason": "", "fix": "", "seconds": 0.0}
        self.records.append(record)
        self.try_write()
        began = time.monotonic()
        result = None
        try:
            result = step()
            record["passed"] = True
        except Failed as failure:
            record["passed"] = False
            record["timed_out"] = isinstance(failure, TimedOut)
            record["reason"], record["fix"] = failure.args
        record["seconds"] = round(time.monotonic() - began, 3)
        self.try_write()
        return result

    def try_write(self):
        """Writes if possible: the submission can block the file while it runs, but gains nothing by it."""
        with contextlib.suppress(OSError):
            self.write()

    def print_failures(self):
        """Prints each failed check with its reason and fix to standard error, below the submission's own output."""
        failed = [record for record in self.records if record["passed"] is not True]
        if failed:
            print("\n" + FAILURES, file=sys.stderr)
        for record in failed:
            print("- {}: {}".format(record["name"], printable(record["reason"])), file=sys.stderr)
            print("  fix: {}".format(printable(record["fix"])), file=sys.stderr, flush=True)

    def write(self):
        write(self.path, lambda file: file.write(json.dumps({"checks": self.records, "used": self.used}).encode()))


def printable(text):
    """A text as one line without control characters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(text.split()))


def write(path, save):
    """Writes a new file and replaces whatever is at `path`."""
    temporary = path + ".tmp"
    for existing in (temporary, path):
        if os.path.islink(existing) or os.path.isdir(existing):
            remove(existing)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    with open(temporary, "xb") as file:
        save(file)
    os.replace(temporary, path)


def remove(path):
    """Removes a file, a link, or a folder with its contents, also without permissions and however deeply nested.

    Contents of a subfolder are moved up before it is removed, so that no path becomes too long.
    """
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    prefix, count = secrets.token_hex(8), 0
    names = os.listdir(path)
    while names:
        for name in names:
            entry = os.path.join(path, name)
            if not os.path.isdir(entry) or os.path.islink(entry):
                os.unlink(entry)
                continue
            os.chmod(entry, 0o700)
            for inner in os.listdir(entry):
                count += 1
                _move(os.path.join(entry, inner), os.path.join(path, "{}-{}".format(prefix, count)))
            os.rmdir(entry)
        names = os.listdir(path)
    os.rmdir(path)


def _move(source, target):
    if os.path.isdir(source) and not os.path.islink(source):
        os.chmod(source, 0o700)  # a folder without permissions cannot be moved
    os.rename(source, target)


def main(input_data, output, program, ingested_program):
    """Runs all checks. Returns 0 if a prediction for every image was written, else 1."""
    _protect_process()
    contract = Contract(input_data, program)
    files = Files(output, [ingested_program, program, input_data])
    journal = Journal(output)
    _forbid_imports()
    predictions = probabilities = None
    if journal.check("metadata", lambda: check_metadata(ingested_program)):
        submission = Submission(os.path.join(program, "runner.py"), ingested_program, contract)
        try:
            predictions, probabilities = run_checks(submission, journal, contract)
            journal.used["peak_mb"] = submission.peak_mb()
        finally:
            submission.end()
    journal.check(FILES_CHECK, files.check)
    journal.write()
    journal.print_failures()
    if predictions is None:
        return 1
    if probabilities is not None:
        restored = contract.restore(probabilities)
        path = os.path.join(output, "probabilities.npy")
        write(path, lambda file: np.save(file, restored, allow_pickle=False))
    lines = "".join("{}\n".format(number) for number in contract.restore(predictions)).encode()
    write(os.path.join(output, "predictions.txt"), lambda file: file.write(lines))
    return 0


def check_metadata(folder):
    """Returns True if the submission has a metadata file as every server needs it. Raises Failed.

    Codabench runs a submission without one, but CodaLab does not. It fails if the file is not valid YAML, and fetches
    the values of unknown keys. Both start a command in a container of its own, beside this program.
    """
    names = [name for name in METADATA if os.path.isfile(os.path.join(folder, name))]
    if "metadata" not in names:
        raise Failed(NO_METADATA, "add metadata at the zip's root; it may be empty")
    for name in names:
        fix = "make {} empty, or one line: description: what this is".format(name)
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read(MAX_METADATA_BYTES + 1)
        if len(data) > MAX_METADATA_BYTES:
            raise Failed("{} is larger than 10 kB".format(name), fix)
        for line in data.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
            if line.partition(":")[0].strip() == "command":
                raise Failed("the server would start the command in {} beside the checked model.py".format(name), fix)
            if line.strip(" ") and not is_plain(line):
                raise Failed("the server would not understand the line {!a} of {}".format(line.strip()[:60], name), fix)
    return True


def is_plain(line):
    """Whether YAML reads a line as a known key and a text without quotes. YAML itself is not in the library."""
    key, _, value = line.partition(": ")
    value = value.strip(" ")
    return (
        key in METADATA_KEYS
        and line.isprintable()
        and "\ufffd" not in line  # in place of bytes that are not UTF-8
        and not value.startswith(NOT_PLAIN)
        and value.partition(" ")[0] not in NOT_PLAIN_WORDS
        and value not in NOT_PLAIN_ALONE
        and not value.endswith(":")
        and ": " not in value
        and " #" not in value
    )


def run_checks(submission, journal, contract):
    """Runs the checks in order and records them.

    Returns:
        (predictions int64 [n], probabilities float32 [n, classes] or None), or (None, None) if there is no prediction
        for every image.
    """
    count, classes = len(contract.images), contract.classes

    def predict(rows):
        return predictions_of(submission, {"rows": rows, "dtype": "float32"}, classes)

    first = len(journal.records)
    header = journal.check("import and constructor", lambda: submission.request({}))
    if header is None:
        return None, None
    if is_precision(header.get("precision")):
        journal.used["precision"] = header["precision"]
    one = journal.check("one image", lambda: predict([0]))
    odd = journal.check("odd batch", lambda: predict(list(range(min(ODD_BATCH_SIZE, count)))))
    if one is None and odd is None:
        return None, None
    every = journal.check("all images", lambda: predict_calls(predict, calls_of(contract.images.shape), journal))
    if every is None:
        return None, None
    load, one_image, _, seconds = (record["seconds"] for record in journal.records[first:])
    journal.used.update(images=count, load_seconds=load, first_seconds=one_image, seconds=seconds)
    parts = {"one image": one, "odd batch": odd}
    journal.check("independence of neighbors", lambda: compare_parts(every[0], parts))
    check_consistency(submission, journal, every[0], classes)
    return every


def is_precision(value):
    """Whether a value is the name of a type, as a submission may keep it in its attribute `precision`."""
    return isinstance(value, str) and value.isascii() and value.isidentifier() and len(value) <= MAX_PRECISION


def calls_of(shape):
    """The rows of each call that predicts all images of a shape [n, h, w, 3]: as few calls as CALL_BYTES allows."""
    most = max(1, CALL_BYTES // (4 * int(np.prod(shape[1:]))))
    return [list(range(start, min(start + most, shape[0]))) for start in range(0, shape[0], most)]


def predict_calls(predict, calls, journal):
    """Predicts the rows of each call, and records after each how many images are done.

    Returns:
        (predictions int64 [n], probabilities float32 [n, classes], or None if a call had none).
    """
    parts = []
    for rows in calls:
        parts.append(predict(rows))
        journal.records[-1]["done"] = rows[-1] + 1
        journal.try_write()
    predictions = np.concatenate([part[0] for part in parts])
    if any(part[1] is None for part in parts):
        return predictions, None
    return predictions, np.concatenate([part[1] for part in parts])


def check_consistency(submission, journal, expected, classes):
    """Predicts a random sample of the rows again, and compares with the predictions for all images.

    Args:
        expected: int64 [n], the predictions for all images.
    """
    count, seconds = len(expected), journal.used["seconds"]
    rows = int(np.clip(SAMPLE_SECONDS * count / max(seconds, 1e-3), MIN_SAMPLE, MAX_SAMPLE))
    sample = np.random.default_rng().permutation(count)[: min(rows, (count + 1) // 2)]

    def compare(dtype, reason):
        request = {"rows": sample.tolist(), "dtype": dtype}
        assert_equal(predictions_of(submission, request, classes)[0], expected[sample], reason)

    changed = "the predictions change with the order or number of the rows"
    journal.check("row permutation", lambda: compare("float32", changed))
    journal.check("repeatability", lambda: compare("float32", "a second call returns other predictions"))
    journal.check("uint8 images", lambda: compare("uint8", "uint8 images get other predictions than float32"))


def predictions_of(submission, request, classes):
    """The submission's predictions for some rows, after validation.

    Args:
        request: {"rows": row numbers, "dtype": name}.
        classes: number of classes.

    Returns:
        (predictions int64 [rows], probabilities float32 [rows, classes] or None).

    Raises:
        Failed: the response is not an integer tensor [rows] with values from 0 to classes - 1.
    """
    header = submission.request(request)
    count = len(request["rows"])
    validate_header(header, count)
    values = submission.array("<i8", (count,))
    probabilities = announced_probabilities(submission, header, count)
    if count and not (0 <= values.min() and values.max() < classes):
        raise Failed(
            "predict returned {} to {}, there are {} classes".format(values.min(), values.max(), classes),
            "return class numbers from 0 to {}".format(classes - 1),
        )
    if probabilities is not None and probabilities.shape[1] == classes and not np.isfinite(probabilities).all():
        rows = np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist()
        raise Failed(
            "the probabilities of {} of {} images are NaN or infinite, row {} first".format(len(rows), count, rows[0]),
            "an output of the network is not a number: check its weights and its input",
        )
    return values, probabilities if are_probabilities(probabilities, classes) else None


def announced_probabilities(submission, header, count):
    """The probabilities of a response, float32 [count, k], or None. Raises Failed if their number is not valid."""
    if header.get("has_probabilities") is not True:
        return None
    if type(header.get("classes")) is not int or not 0 < header["classes"] <= MAX_CLASSES:
        raise Failed(*PIPE_MISUSE)
    return submission.array("<f4", (count, header["classes"]))


def validate_header(header, count):
    """Raises Failed unless the header announces an integer tensor of shape [count]."""
    fix = "return tf.argmax(probabilities, axis=-1): an integer tensor of shape [{}]".format(count)
    if header.get("kind") != "tensor":
        raise Failed("predict returned {}, not a tensor".format(str(header.get("kind"))[:100]), fix)
    if header.get("shape") != [count]:
        raise Failed("predict returned the shape {} for {} images".format(str(header.get("shape"))[:100], count), fix)
    if not str(header.get("dtype")).startswith(("int", "uint")):
        raise Failed("predict returned {}, not integers".format(str(header.get("dtype"))[:100]), fix)


def are_probabilities(values, classes):
    """Whether float32 [n, k] holds a probability for each class. If not, the values are ignored without a message."""
    if values is None or values.shape[1] != classes or not np.isfinite(values).all():
        return False
    return bool((values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 0.01).all())


def compare_parts(expected, parts):
    """Raises Failed unless the first rows, predicted alone, have the same predictions as among all images."""
    for name, part in parts.items():
        if part is not None:
            predictions = part[0]
            reason = "{} gets other predictions than the same rows among all".format(name)
            assert_equal(predictions, expected[: len(predictions)], reason)


def assert_equal(predictions, expected, reason):
    """Raises Failed with the reason unless two int64 [n] are equal."""
    different = int((predictions != expected).sum())
    if different:
        raise Failed(
            "{} ({} of {})".format(reason, different, len(expected)),
            "predict each row on its own: no random numbers, no batch statistics, no shift along axis 0",
        )


class Files:
    """The files of the stage, to find what a submission wrote.

    Args:
        output: the output folder. Whatever is there at the start was put there by the server: some versions copy a
            submission without metadata to it. It is removed in the end, but not blamed on the submission.
        others: the other folders that a submission may be able to write to.
    """

    def __init__(self, output, others):
        self.output, self.others = output, others
        self._server = set(os.listdir(output))
        self._before = {name for folder in others for name in listing(folder)}

    def check(self):
        """Removes everything from the output folder except the journal. Raises Failed if the submission wrote files."""
        replaced = self._restore_output()
        names = sorted(name for name in os.listdir(self.output) if name != JOURNAL)
        for name in names:
            remove(os.path.join(self.output, name))
        written = [name for name in names if name not in self._server]
        if replaced or written:
            what = "replaced the output folder" if replaced else "wrote {} to the output folder".format(shown(written))
            raise Failed("it " + what, "return the predictions; the server writes them to the output folder")
        written = sorted({name for folder in self.others for name in listing(folder)} - self._before)
        if written:
            fix = "keep files in memory, or in the temporary folder, and remove them"
            raise Failed("it wrote {}".format(shown(written)), fix)

    def _restore_output(self):
        """Makes the output folder a real folder with permissions. Returns True if the submission had replaced it."""
        replaced = os.path.islink(self.output) or not os.path.isdir(self.output)
        if replaced:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.output)
            os.mkdir(self.output)
        os.chmod(self.output, 0o700)
        return replaced


def listing(folder):
    """Paths of the files below a folder, each with the folder's name before it: at most MAX_FILES of them."""
    top, folders, found = os.path.abspath(folder), [os.path.abspath(folder)], []
    while folders and len(found) < MAX_FILES:
        with contextlib.suppress(OSError):  # without permissions, or its path is too long
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        found.append(os.path.relpath(entry.path, os.path.dirname(top)))
    return found


def shown(names):
    """The first three names as one line of ASCII."""
    more = " and {} more".format(len(names) - 3) if len(names) > 3 else ""
    return ", ".join(ascii(name)[1:-1] for name in names[:3]) + more


def _protect_process():
    """Keeps the submission's processes below this one, and denies them this one's memory and Ctrl-C (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        library.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _forbid_imports():
    """Keeps this process from importing anything that the submission may have written: a later import fails."""
    np.save(io.BytesIO(), np.random.default_rng().permutation(2))  # imports what they need
    sys.meta_path.clear()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
