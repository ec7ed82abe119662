"""The diagram of SCNet: boxes and arrows, placed by hand."""

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

INK = "#30343A"


def scnet() -> Figure:
    """The two branches."""
    figure = Figure(figsize=(7.6, 4.0))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 100), ylim=(-0.5, 51.5))
    axis.axis("off")
    for bottom, colour, title, height in (
        (31, "#F0E8F7", "class-specific branch", 49.6),
        (3, "#E3F3EE", "class-agnostic branch, in training only", 0.9),
    ):
        axis.add_patch(FancyBboxPatch((37.3, bottom), 31, 16, boxstyle="round,pad=0", fc=colour, ec="none"))
        axis.text(52.8, height, title, ha="center", va="center", fontweight="bold", color=INK)
    grey, blue, yellow = "#F4F4F4", "#DCE8F4", "#FFF0CC"
    for left, bottom, width, height, colour, text in (
        (0.5, 40, 9.5, 6, grey, "supports\n$I^s$, $M^s$"),
        (0.5, 22, 9.5, 6, grey, "query $I^q$"),
        (13.5, 20, 9, 26, blue, "frozen\nbackbone"),
        (26, 40, 8, 6, yellow, "reduce\nsupport"),
        (26, 22, 8, 6, yellow, "reduce\nquery"),
        (38.3, 40, 14.5, 6, "white", "masked average\npool (1)"),
        (56, 40, 11, 6, "white", "expand\n$\\mathcal{E}^s$ (2)"),
        (38.3, 32, 14.5, 6, "white", "prior"),
        (38.3, 12, 14.5, 6, "white", "$k$-means (4), less\nforeground (5)"),
        (38.3, 4, 14.5, 6, "white", "masked average\npool (6)"),
        (56, 4, 11, 6, "white", "assign\n$\\mathcal{E}^q$ (7)"),
        (56, 12, 11, 6, grey, "mask $M^q$"),
        (73, 15, 11, 20, yellow, "comparison\nhead $g_\\phi$\n(3), (8)\n\none set of\nweights"),
        (88, 36.5, 11.5, 9, grey, "$\\hat M_{sq}$\nshould be\n$M^q$"),
        (88, 4.5, 11.5, 9, grey, "$\\hat M_{qq}$\nshould be\n$1 - M^q$"),
    ):
        style = {"boxstyle": "round,pad=0,rounding_size=0.9", "fc": colour, "ec": INK, "lw": 0.7}
        axis.add_patch(FancyBboxPatch((left, bottom), width, height, **style))
        axis.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=8, color=INK)
    arrows = (
        "10,43 13.5,43; 10,25 13.5,25; 22.5,43 26,43; 22.5,25 26,25; 34,43 38.3,43; 52.8,43 56,43; 34,25 73,25; "
        "22.5,35 38.3,35; 52.8,35 69.8,35 69.8,29 73,29; 67,43 71.2,43 71.2,32.5 73,32.5; 18,20 18,15 38.3,15; "
        "35.8,25 35.8,7 38.3,7; 56,15 52.8,15; 45.5,12 45.5,10; 52.8,7 56,7; 67,7 70.5,7 70.5,19 73,19; "
        "84,30 86,30 86,41 88,41; 84,20 86,20 86,9 88,9"
    )
    for arrow in arrows.split("; "):
        path = [tuple(map(float, point.split(","))) for point in arrow.split()]
        axis.plot(*zip(*path[:-1], strict=True), color=INK, lw=0.9)
        style = {"arrowstyle": "-|>", "color": INK, "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", path[-1], path[-2], arrowprops=style)
    for x, y, text in ((29.5, 36.2, "high level"), (27, 16.2, "query, high level"), (52, 26.2, "query features $F^q$")):
        axis.text(x, y, text, fontsize=7.5, color=INK, ha="center")
    return figure
