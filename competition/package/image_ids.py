"""Finds the image file of each id of a Kaggle sample."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.folders import is_hidden, printable
from competition.package.kaggle_kernel import FORMS, ImageIndex


class ImageIds:
    """The images of a folder by id. An id is a file name or a path below the folder, with or without the suffix.

    Args:
        folder: the test images, in any subfolders. Hidden and system files are left out.

    Raises:
        UserError: the folder does not exist.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"--images: no folder at {printable(folder)}; give the folder of the test images")
        relative = (path.relative_to(self.folder) for path in sorted(self.folder.rglob("*")) if path.is_file())
        self.files = [path for path in relative if not any(map(is_hidden, path.parts))]
        self._index = ImageIndex(self.files)

    def __contains__(self, name: object) -> bool:
        return bool(self._index.matches(str(name))[1])

    def has_exactly(self, name: str) -> bool:
        """Whether an image has this id without other leading zeros."""
        form, files = self._index.matches(name)
        return bool(files) and form < len(FORMS) - 1

    def find(self, ids: Sequence[str]) -> tuple[list[Path], list[str]]:
        """Finds the file of each id.

        Args:
            ids: image ids.

        Returns:
            (paths in the order of `ids`, notes for the user).

        Raises:
            UserError: an id matches no file or several files, or two ids match one file.
        """
        matches = [self._index.matches(name) for name in ids]
        missing = [name for name, (_, files) in zip(ids, matches, strict=True) if not files]
        if missing:
            count = f"{len(missing)} of the sample's {len(ids)} ids"
            fix = "give the folder of the test images"
            if missing[0].startswith(f"{self.folder.resolve().name}/"):
                fix = (
                    f"the ids begin with the folder's name: give its parent, {printable(self.folder.resolve().parent)}"
                )
            raise UserError(
                f"{printable(self.folder)} has no image for {count}, the first is {printable(missing[0])}; {fix}"
            )
        ids_by_file: dict[Path, str] = {}
        for name, (_, files) in zip(ids, matches, strict=True):
            if len(files) > 1:
                both = " and ".join(printable(self.folder / path) for path in files[:2])
                raise UserError(f"the id {printable(name)} matches {both}; keep one of them")
            other = ids_by_file.setdefault(files[0], name)
            if other != name:
                raise UserError(
                    f"each id must have its own image, the ids {printable(other)} and {printable(name)} both match "
                    f"{printable(self.folder / files[0])}; add the missing image"
                )
        return [self.folder / files[0] for _, files in matches], self._notes(ids, matches)

    def _notes(self, ids: Sequence[str], matches: Sequence[tuple[int, list[Path]]]) -> list[str]:
        notes = []
        for number, (difference, _) in enumerate(FORMS):
            pairs = [(name, files[0]) for name, (form, files) in zip(ids, matches, strict=True) if form == number]
            if number and pairs:
                name, file = pairs[0]
                example = f"for example {printable(name)} = {printable(file)}"
                notes.append(f"{len(pairs)} ids match files with {difference}, {example}")
        others = len(self.files) - len({files[0] for _, files in matches})
        if others:
            notes.append(f"{others} other files in {printable(self.folder)} are not in the sample")
        return notes
