"""The numbers of docs/questions.md, from results/questions."""

import json
from pathlib import Path
from typing import Any

from docs.tables import percent, table

QUESTIONS = Path(__file__).resolve().parents[1] / "results" / "questions"
RARE = "Species1"


def question_values() -> dict[str, str]:
    """Name → text, for the measured numbers in docs/questions.md."""
    return {**_smote(), **_species1(), **_two_devices(), **_selection(), **_everything()}


def _load(name: str) -> dict[str, Any]:
    return json.loads((QUESTIONS / f"{name}.json").read_text("utf-8"))


def _smote() -> dict[str, str]:
    found = _load("smote")
    rare, same, chance = found["rare"], found["same_class_neighbor"], found["chance"]
    neighbors = [[name, *(percent(part[name]) for part in (same["pixels"], same["features"], chance))] for name in rare]
    methods = [
        [name, *(f"{scores[key]['mean']:.3f}" for key in ("accuracy", *rare))]
        for name, scores in found["folds"].items()
    ]
    return {
        "smote.neighbors": table(
            ["nearest neighbor is of the same species", "in pixels", "on features", "by chance"], neighbors
        ),
        "smote.methods": table(["method", "accuracy", *(f"F1 of {name}" for name in rare)], methods),
        "smote.detail": percent(found["detail_ratio"], 0),
        "smote.support_vectors": percent(min(found["support_vectors"].values()), 0),
    }


def _species1() -> dict[str, str]:
    found = _load("species1")
    f1, methods = found["f1"], found["methods"]
    lowest = sorted((name for name in f1 if name != RARE), key=lambda name: f1[name]["as_rare"])[:3]
    none = methods["no balancing"]
    others = [scores for name, scores in methods.items() if name != "no balancing"]
    costs = [100 * (none["accuracy"] - scores["accuracy"]) for scores in others]
    return {
        "species1.predicted_as": _largest(found["predicted_as"]),
        "species1.predicted_right": percent(found["predicted_as"][RARE], 0),
        "species1.nearest": _largest(found["nearest_neighbor"]),
        "species1.nearest_own": percent(found["nearest_neighbor"][RARE], 0),
        "species1.f1": f"{none['f1']:.3f}",
        "species1.f1_balanced": f"{min(row['f1'] for row in others):.2f} to {max(row['f1'] for row in others):.2f}",
        "species1.lowest": table(
            ["species", "F1 with all images", f"F1 with as many as {RARE}"],
            [[name, *(f"{f1[name][key]:.3f}" for key in ("all_images", "as_rare"))] for name in lowest],
        ),
        "species1.half": f"{found['f1_by_share_of_images']['0.50']:.3f}",
        "species1.three_quarters": f"{found['f1_by_share_of_images']['0.75']:.3f}",
        "species1.costs": f"{min(costs):.1f} to {max(costs):.1f}",
        "species1.methods": table(
            ["method", f"F1 of {RARE}", "accuracy"],
            [[name, f"{scores['f1']:.3f}", f"{scores['accuracy']:.3f}"] for name, scores in methods.items()],
        ),
    }


def _largest(shares: dict[str, float]) -> str:
    """The three largest shares of other species, such as Species8 (29 %), Species2 (23 %) and Species4 (17 %)."""
    names = sorted((name for name in shares if name != RARE), key=lambda name: -shares[name])[:3]
    first, second, third = (f"{name} ({percent(shares[name], 0)})" for name in names)
    return f"{first}, {second} and {third}"


def _two_devices() -> dict[str, str]:
    found = _load("two_devices")
    difference, noise = found["difference"], found["noise_of_statistics"]
    single = difference["two devices, synchronized, single precision"]
    rows = {
        "two devices, not synchronized": "two devices, not synchronized",
        "two devices, synchronized": "two devices, synchronized",
        "two devices, batch size 64": "two devices with batch size 64, one device with 64",
    }
    steps = {
        name: f" ({difference[name]['steps']} steps)" for name in rows if difference[name]["steps"] != found["steps"]
    }
    return {
        "two_devices.rows": table(
            [
                "compared with one device, in double precision",
                f"largest difference of the loss in {found['steps']} steps",
            ],
            [[text + steps.get(name, ""), _small(difference[name]["largest"])] for name, text in rows.items()],
        ),
        "two_devices.noise_16": f"{noise['16 images']:.3f}",
        "two_devices.noise_32": f"{noise['32 images']:.3f}",
        "two_devices.agreeing": str(single["agreeing_steps"]),
        "two_devices.largest": f"{single['largest']:.3f}",
    }


def _small(value: float) -> str:
    """A number such as 0.195 or 5.3e-15."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _selection() -> dict[str, str]:
    found = _load("selection")
    rows, correlation = found["rows"], found["rank_correlation"]
    images = _load("everything")["out_of_fold"]["images"]
    every = (found["ten_best_in_folds"] * (1 - found["ten_best_in_folds"]) / images) ** 0.5
    return {
        "selection.images": f"{found['val_images']:,}",
        "selection.standard_error": f"{100 * found['standard_error']:.1f}",
        "selection.standard_error_folds": f"{100 * every:.1f}",
        "selection.best_val": percent(found["best_val"]),
        "selection.best_test": percent(found["best_test"]),
        "selection.fourth_val": percent(rows[3]["val"]),
        "selection.fourth_test": percent(rows[3]["test"]),
        "selection.fifth_val": percent(rows[4]["val"]),
        "selection.ninth_val": percent(rows[8]["val"]),
        "selection.ninth_test": percent(rows[8]["test"]),
        "selection.folds_correlation": f"{correlation['folds and test, ten best']:.2f}",
        "selection.val_correlation": f"{correlation['val and test, ten best']:.2f}",
    }


def _everything() -> dict[str, str]:
    found = _load("everything")
    estimate, test = found["out_of_fold"], found["test"]
    rows = [("out of fold, trained on four fifths", estimate), ("phase 1, trained on all images", test)]
    return {
        "everything.rows": table(
            ["quasi-SVM on frozen features", "accuracy", "95 % interval"],
            [[name, percent(row["accuracy"]), " to ".join(map(percent, row["interval95"]))] for name, row in rows],
        ),
        "everything.estimate": percent(estimate["accuracy"]),
        "everything.test": percent(test["accuracy"]),
        "everything.difference": f"{100 * (test['accuracy'] - estimate['accuracy']):.1f}",
        "everything.images": f"{estimate['images']:,}",
        "everything.folds": f"{percent(min(found['single_folds']))} to {percent(max(found['single_folds']))}",
        "everything.epochs": f"{found['epochs']} of {len(found['val_loss'])}",
    }
