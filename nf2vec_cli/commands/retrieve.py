"""`nf2vec retrieve`: the nearest objects of a store."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import DeviceOpt, JobsOpt, JsonOpt, StoreArg
from nf2vec_cli.commands.reconstruct import EncoderOpt
from nf2vec_cli.errors import PartialFailure, UsageFault

if TYPE_CHECKING:
    from nf2vec_cli.tasks.retrieve import Question, RetrievalReport

EXAMPLE = """
nf2vec retrieve ds.zarr --query chair/armchair --k 5
nf2vec retrieve ds.zarr --query part.stl --query scans/ --html page.html
nf2vec info ds.zarr --objects --json | jq -r .id | nf2vec retrieve ds.zarr --query - --json
nf2vec retrieve ds.zarr --metrics
nf2vec retrieve ds.zarr --metrics --split val --gallery train
"""

QueryOpt = Annotated[
    list[str] | None,
    Option(
        "--query",
        "-q",
        metavar="ID|PATH",
        help="Object of the store, file of a shape, or folder of them; may be repeated; - reads "
        "them from stdin, one a line. Shapes are fitted and embedded as the store's were.",
    ),
]
KOpt = Annotated[int, Option("--k", "-k", min=1, help="Objects to find for each query.")]
MetricOpt = Annotated[
    Literal["cosine", "euclidean"],
    Option(
        "--metric",
        help="Distance: 1 - cosine of two embeddings, or the length of the line between them.",
    ),
]
ByOpt = Annotated[
    Literal["geometry", "appearance", "both"],
    Option("--by", help="What is compared; one alone by an encoder of `--encoder-arch split`."),
]
SplitOpt = Annotated[
    Literal["train", "val", "test"] | None,
    Option("--split", help="Search in it alone; with --metrics and no --query: what asks, too."),
]
GalleryOpt = Annotated[
    Literal["train", "val", "test", "all"] | None,
    Option("--gallery", help="With --metrics: what is searched, if not the split that asks."),
]
MetricsOpt = Annotated[
    bool,
    Option(
        "--metrics",
        help="Tell how good the lists are instead, at k = 1, 5, 10 and --k; without --query by "
        "all of a split, test if not given, against itself.",
    ),
]
IndexOpt = Annotated[
    Literal["exact", "ann"],
    Option("--index", help="Look at each embedding, or at a graph of them (extra `ann`)."),
]
ThresholdOpt = Annotated[
    float | None, Option("--threshold", min=0, help="Greatest distance of what is found.")
]
CopiesOpt = Annotated[bool, Option("--copies", help="Augmented copies can be found too.")]
SheetOpt = Annotated[
    Path | None,
    Option(
        "--out", metavar="PNG", dir_okay=False, help="Picture of the first 24 queries and hits."
    ),
]
HtmlOpt = Annotated[
    Path | None,
    Option("--html", metavar="FILE", dir_okay=False, help="The same as one page for a browser."),
]


def retrieve(
    store: StoreArg,
    query: QueryOpt = None,
    k: KOpt = 10,
    by: ByOpt = "both",
    metric: MetricOpt = "cosine",
    split: SplitOpt = None,
    gallery: GalleryOpt = None,
    metrics: MetricsOpt = False,
    threshold: ThresholdOpt = None,
    copies: CopiesOpt = False,
    encoder: EncoderOpt = None,
    index: IndexOpt = "exact",
    out: SheetOpt = None,
    html: HtmlOpt = None,
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    json: JsonOpt = False,
) -> None:
    """Find the objects of a store whose embeddings are nearest to a query's.

    An object does not find itself, nor augmented copies of itself. --metrics tells, in percent, how
    often the objects found are of the query's class.
    """
    texts = _texts(query or ())
    _check_usage(texts, metrics, gallery)
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.gallery import Metric
    from nf2vec_cli.tasks.hit_pictures import Pictures
    from nf2vec_cli.tasks.retrieve import RANKS, Search, ask, ask_split, hits, score

    searched = split if texts else gallery or split or "test"
    search = Search(
        k=k,
        metric=Metric(metric),
        split=None if searched == "all" else searched,
        copies=copies,
        encoder=encoder,
        approximate=index == "ann",
        threshold=threshold,
        device=device,
        by=by,
    )
    if texts:
        question = ask(
            store, texts, search, to_measure=metrics, jobs=jobs, progress=open_progress(json=json)
        )
    else:
        question = ask_split(store, split or "test", search)
    for name, reason in question.failed:
        output.warn(f"{name}: {reason}")
    pictures = Pictures(out, html, jobs=jobs)
    teller = open_progress(json=json)
    if metrics:
        ranks = sorted({*RANKS, k})
        report = score(question, ranks=ranks, pictures=pictures, progress=teller)
        output.emit(report if json else _titled(report), as_json=json)
    else:
        found = hits(question, pictures=pictures, progress=teller)
        rows = (
            {
                "query": hit.query,
                "rank": hit.rank,
                "id": hit.id,
                "class": hit.class_name,
                "distance": hit.distance,
            }
            for hit in found
        )
        output.emit(rows, as_json=json)
    _tell_failed(question)


def _texts(query: list[str] | tuple[str, ...]) -> list[str]:
    texts = [text for text in query if text != "-"]
    if "-" in query:
        lines = (line.strip() for line in sys.stdin)
        texts += [line for line in lines if line]
        if not texts:
            raise UsageFault("standard input holds no query", hint="one id or path a line")
    return texts


def _check_usage(texts: list[str], metrics: bool, gallery: str | None) -> None:
    if not texts and not metrics:
        raise UsageFault(
            "nothing is asked", hint="`--query ID` finds what is near it, `--metrics` measures"
        )
    if gallery and (texts or not metrics):
        raise UsageFault(
            "--gallery belongs to --metrics by a whole split", hint="with --query, use `--split`"
        )


def _titled(report: "RetrievalReport") -> dict[str, object]:
    """Give the report as it is printed: each figure under its usual name, and the paper's."""
    listing = {name: getattr(report, name) for name in ("encoder", "distance", "asked", "queries")}
    listing |= {name: getattr(report, name) for name in ("gallery", "objects", "lonely")}
    listing["percent"] = [
        {
            "k": row.k,
            "hit@k (mAP@k of the paper)": row.hit,
            "mAP@k": row.map,
            "precision@k": row.precision,
            "nDCG@k": row.ndcg,
        }
        for row in report.at
    ]
    return listing


def _tell_failed(question: "Question") -> None:
    if question.failed:
        raise PartialFailure(
            f"{len(question.failed)} shapes were not fitted, {question.failed[0][0]!r} first"
        )
