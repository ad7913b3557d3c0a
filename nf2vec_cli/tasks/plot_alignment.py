"""The study of alignment as one picture: distances between fits, and the loss between two."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path

from nf2vec_cli.tasks.alignment import ALL, AlignmentStudy
from nf2vec_cli.tasks.plot import Curve, chart, heat_map, legend, write_png

LEAST = 1e-9  # a loss above the entropy that is drawn: the axis is logarithmic


def draw_alignment(study: AlignmentStudy, file: Path) -> None:
    """Draw the distance matrix and the loss on each line as one PNG."""
    summary = study.summary
    shapes = list(dict.fromkeys(line.shape for line in study.lines))
    curves: dict[str, list[Curve]] = {}
    for line in study.lines:
        above = [max(loss - line.entropy, LEAST) for loss in line.losses]
        curves.setdefault(line.shape, []).append(Curve(line.pair, above))
    charts = [
        chart(
            shape,
            study.positions,
            curves[shape],
            across="0: first fit, 1: second fit",
            up="loss above entropy",
        )
        for shape in shapes
    ]
    what = summary.compared.split()[0]
    heat = heat_map(
        study.distances,
        [(shape, summary.refits) for shape in shapes],
        f"Distance between fits: {summary.refits} of each shape, one init, other query points",
        f"distance of {what}",
    )
    mean = summary.repeatability[-1]
    notes = [
        f"{summary.field} fields, width {summary.width}; distances are Euclidean, of {what}",
        "matrix: columns are the same fits in the order of the rows",
        f"within a shape {mean.within:.4g}, between shapes {mean.between:.4g} on the mean",
        f"nearest other fit is one of the same shape: {mean.nearest:.0f} %",
        "charts: training loss less the entropy of its labels, on the",
        "straight line between the weights of two fits of a shape",
    ]
    means = [row for row in summary.connectivity if row.shape == ALL]
    keys = [Curve(f"{row.pair}: mean barrier {row.barrier:.3g}", ()) for row in means]
    across = min(ceil(sqrt(len(charts))), 4)
    panels = [charts[at : at + across] for at in range(0, len(charts), across)]
    write_png([[heat, legend(keys, notes)], *panels], file)
