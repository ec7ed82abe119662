"""What is compared: rows, the settings that they stand for, and the paper's tables that they make up."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SHOTS = (1, 5)


class Row(NamedTuple):
    """One way to train.

    Attributes:
        model: Fields of `SCNetConfig`; None: nothing is trained.
        novel: What becomes of novel objects in training images, if not what the protocol says.
        segmenter: Fields of `PrototypeConfig`, where nothing is trained.
    """

    model: Mapping[str, Any] | None
    novel: str | None = None
    segmenter: Mapping[str, Any] | None = None


class Table(NamedTuple):
    """Rows that belong together.

    Attributes:
        title: Of the table.
        heading: Of its first column: what varies.
        rows: The words of the table to the row they mean.
    """

    title: str
    heading: str
    rows: Mapping[str, str]


SCNET: Mapping[str, Any] = {
    "num_prototypes": 3,
    "self_contrast_weight": 0.5,
    "grid_bins": None,
    "background_source": "query",
    "background_reducer": "query",
    "background_prior": "zeros",
}
"""Every row sets all of these fields, so that a row's name says all that differs between rows."""
PFENET = {**SCNET, "num_prototypes": 0, "self_contrast_weight": 0.0}


def scnet(**changes: Any) -> Row:
    """SCNet but for these fields."""
    return Row({**SCNET, **changes})


ROWS = {
    "prototypes": Row(None, segmenter={"score": "cosine", "bias": 0.0, "threshold": 0.5}),
    **{score: Row(None, segmenter={"score": score}) for score in ("density", "cosine", "kmeans")},
    "pfenet": Row(PFENET),
    "scnet": scnet(),
    **{f"lambda{weight:g}": scnet(self_contrast_weight=weight) for weight in (0.1, 0.3, 0.7, 0.9, 1.0)},
    **{f"n{n}": scnet(num_prototypes=n) for n in (1, 2, 4, 5)},
    "support": scnet(num_prototypes=1, background_source="support"),
    **{f"grid{bins}": scnet(grid_bins=bins) for bins in (2, 3, 4, 5)},
    **{f"prior-{prior}": scnet(background_prior=prior) for prior in ("shared", "complement")},
    "reducer-support": scnet(background_reducer="support"),
    **{
        f"prior-{prior}-reducer-support": scnet(background_prior=prior, background_reducer="support")
        for prior in ("shared", "complement")
    },
    **{f"{name}-hidden": Row(model, "background") for name, model in (("pfenet", PFENET), ("scnet", SCNET))},
    **{f"{name}-void": Row(model, "ignore") for name, model in (("pfenet", PFENET), ("scnet", SCNET))},
}
"""All rows by name; a name is part of a file's name. "hidden" and "void" train on the same images."""

TABLES = {
    "main": Table(
        "SCNet against PFENet",
        "",
        {"training-free": "prototypes", "PFENet (λ = 0)": "pfenet", "SCNet (n = 3, λ = 0.5)": "scnet"},
    ),
    "training-free": Table(
        "Models that need no training beside those that are trained",
        "",
        {
            "cosine, training-free": "cosine",
            "k-means, training-free": "kmeans",
            "density, training-free": "density",
            "PFENet (λ = 0)": "pfenet",
            "SCNet (n = 3, λ = 0.5)": "scnet",
        },
    ),
    "table3": Table(
        "The number of background prototypes (Table 3)",
        "n",
        {"0": "pfenet", "1": "n1", "2": "n2", "3": "scnet", "4": "n4", "5": "n5"},
    ),
    "table4": Table(
        "Prototypes from the support or the query (Table 4)",
        "prototype from",
        {"baseline": "pfenet", "support": "support", "query": "n1"},
    ),
    "table5": Table(
        "The weight of the second branch (Table 5)",
        "λ",
        {"0": "pfenet"}
        | {weight: f"lambda{weight}" for weight in ("0.1", "0.3")}
        | {"0.5": "scnet"}
        | {weight: f"lambda{weight}" for weight in ("0.7", "0.9", "1")},
    ),
    "table6": Table(
        "Regions from a grid (Table 6)",
        "regions",
        {"baseline": "pfenet", **{f"{bins}x{bins}": f"grid{bins}" for bins in (2, 3, 4, 5)}, "k-means": "scnet"},
    ),
    "silent": Table(
        "What the paper leaves open",
        "prior / reducer",
        {
            "baseline": "pfenet",
            "zeros / query": "scnet",
            "zeros / support": "reducer-support",
            "shared / query": "prior-shared",
            "shared / support": "prior-shared-reducer-support",
            "complement / query": "prior-complement",
            "complement / support": "prior-complement-reducer-support",
        },
    ),
    "hidden": Table(
        "Where novel objects hide in training images",
        "model: novel objects",
        {
            f"{model}: {what}": row + ending
            for model, row in (("PFENet", "pfenet"), ("SCNet", "scnet"))
            for what, ending in (("dropped", ""), ("void", "-void"), ("background", "-hidden"))
        },
    ),
}

ORDER = (
    (("prototypes", "pfenet", "scnet"), (0, 1, 2, 3)),
    (("density", "cosine", "kmeans"), (0, 1, 2, 3)),
    (("pfenet-hidden", "scnet-hidden"), (2,)),
    (("pfenet-void", "scnet-void"), (2,)),
    (("lambda0.1", "lambda0.3", "lambda0.7", "n1", "n2", "n5"), (2, 0)),
    (("support", "grid3", "prior-shared", "reducer-support"), (2, 0)),
)
"""Rows and folds in the order in which time is spent unless rows are named; each line for all seeds."""

PAPER: Mapping[int, Mapping[str, tuple[float, ...]]] = {
    1: {
        "pfenet": (61.7, 69.5, 55.4, 56.3, 60.8),
        "scnet": (62.2, 70.5, 61.1, 58.1, 63.0),
        "n1": (61.7, 70.1, 60.4, 55.0, 61.8),
        "n2": (61.9, 70.0, 61.6, 55.8, 62.3),
        "n4": (62.0, 70.3, 62.0, 56.1, 62.6),
        "n5": (61.3, 70.1, 60.1, 56.6, 62.0),
        "support": (59.8, 69.7, 58.2, 56.7, 61.1),
        "lambda0.1": (61.1, 69.9, 58.2, 57.3, 61.6),
        "lambda0.3": (60.8, 70.1, 60.5, 57.0, 62.1),
        "lambda0.7": (61.2, 70.3, 61.4, 57.2, 62.5),
        "lambda0.9": (59.8, 69.2, 60.0, 53.3, 57.7),
        "lambda1": (17.2, 28.8, 33.2, 21.0, 25.1),
        "grid2": (60.1, 69.1, 57.4, 54.0, 60.1),
        "grid3": (60.6, 69.2, 60.2, 55.6, 61.4),
        "grid4": (60.9, 70.0, 60.7, 56.1, 61.9),
        "grid5": (59.8, 69.7, 58.2, 56.7, 61.1),
    },
    5: {"pfenet": (63.1, 70.7, 55.8, 57.9, 61.9), "scnet": (63.3, 72.0, 68.4, 60.2, 66.0)},
}
"""What the paper prints for PASCAL-5i with ResNet-50: to shots and row Fold-0 to Fold-3 and the mean."""

PAPER_NOTE = (
    "paper: what it prints for PASCAL-5i with ResNet-50, Fold-0 / 1 / 2 / 3: Mean; not measured here. It contradicts "
    "itself: its folds of λ = 0.9 have the mean 60.6, not 57.7, and its rows support (Table 4) and 5x5 (Table 6) "
    "agree in all numbers, so that one of them is probably a mistake. Its baseline is quoted from PFENet's paper."
)


class Cell(NamedTuple):
    """One result."""

    row: str
    fold: int
    seed: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.row}-fold{self.fold}-seed{self.seed}.json"


def cells(names: Sequence[str] | None, folds: Sequence[int] | None, seeds: Sequence[int]) -> list[Cell]:
    """What to run, in which order: that of `ORDER`, or the rows, and the rows of tables, as they are named."""
    rows = [row for name in names or () for row in (TABLES[name].rows.values() if name in TABLES else [name])]
    order = ((tuple(rows), (0, 1, 2, 3)),) if rows else ORDER
    found = [
        Cell(row, fold, seed)
        for rows, own_folds in order
        for seed in seeds
        for fold in (own_folds if folds is None else folds)
        for row in rows
    ]
    # Nothing is drawn without training: one seed stands for all.
    return list(dict.fromkeys(c._replace(seed=seeds[0]) if ROWS[c.row].model is None else c for c in found))
