"""Labelled images → dist/competition.zip, a competition to upload to Codabench as it is.

examples:
  python -m competition data/leaves/phase2 --title "Leaves, round two" --start 2026-12-01
  python -m competition my/images --seconds 600 --per-day 3 --out dist/mine.zip

exit codes: 0 built, 2 wrong input, 130 interrupted; the old file stays unless a new one is whole
"""

import argparse
import sys

from competition.bundle import Settings, build
from training.data import load_folder
from training.errors import UserError, interruptible


def main(arguments=None):
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser("python -m competition", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with one folder of images for each class")
    parser.add_argument("--out", default="dist/competition.zip", help="default: %(default)s")
    parser.add_argument("--title", default=Settings.title)
    parser.add_argument("--start", default="", metavar="YYYY-MM-DD", help="first day (default: today)")
    parser.add_argument("--seconds", type=int, default=Settings.seconds, help="what one submission may take (default %(default)s)")
    parser.add_argument("--per-day", type=int, default=Settings.per_day, help="submissions a day (default %(default)s)")
    parser.add_argument("--in-all", type=int, default=Settings.in_all, help="submissions in all (default %(default)s)")
    parser.add_argument("--docker-image", default=Settings.docker_image, help="with TensorFlow and numpy (default %(default)s)")
    options = parser.parse_args(arguments)
    try:
        with interruptible():
            settings = Settings(options.title, options.start, options.seconds, options.per_day, options.in_all, options.docker_image)
            images = load_folder(options.data)
            for note in images.notes:
                print(note)
            path = build(images, settings, options.out)
            print(f"{path}  {path.stat().st_size / 1e6:,.1f} MB: {len(images)} images of {len(images.names)} classes")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write {options.out}: {error.strerror or error}; free the disk or give another --out", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the old file is as it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
