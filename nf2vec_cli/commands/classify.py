"""`nf2vec classify`: the class of objects, from their embeddings."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    ConfigOpt,
    DeviceOpt,
    JobsOpt,
    JsonOpt,
    KeyOpt,
    PresetOpt,
    SeedOpt,
    SetOpt,
    StoreArg,
    WaitOpt,
)
from nf2vec_cli.errors import PartialFailure, UsageFault

EXAMPLE = """
nf2vec classify ds.zarr
nf2vec classify ds.zarr --seeds 5 --confusion confusion.png --predictions test.jsonl
nf2vec classify ds.zarr --predict new-part.stl
find inbox -name '*.stl' | nf2vec classify ds.zarr --predict - --json | jq -r .predicted
"""

PredictOpt = Annotated[
    str | None,
    Option(
        "--predict",
        metavar="SHAPES",
        help="Fit, embed and classify new shapes: a file, a folder, a list, or - for paths on "
        "standard input.",
    ),
]
UnlabelledOpt = Annotated[
    bool, Option("--unlabelled", help="Classify the objects of the store that have no class.")
]


def classify(
    store: StoreArg,
    predict: PredictOpt = None,
    unlabelled: UnlabelledOpt = False,
    seeds: Annotated[
        int, Option("--seeds", min=1, help="Heads to train; their mean and spread are told.")
    ] = 1,
    predictions: Annotated[
        Path | None,
        Option("--predictions", metavar="FILE", help="Write test's predictions as JSON lines."),
    ] = None,
    confusion: Annotated[
        Path | None,
        Option("--confusion", metavar="PNG", help="Draw which class is taken for which."),
    ] = None,
    skip_rare: Annotated[
        bool,
        Option(
            "--skip-rare",
            help="Leave out classes without objects in train, or without any in val and test.",
        ),
    ] = False,
    encoder: KeyOpt = None,
    preset: PresetOpt = None,
    seed: SeedOpt = None,
    config: ConfigOpt = None,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    force: Annotated[bool, Option("--force", help="Train again what is there.")] = False,
    wait: WaitOpt = None,
    json: JsonOpt = False,
) -> None:
    """Tell the class of objects from their embeddings, and how often that is right.

    A head is trained on split train where the store has none for these embeddings and labels; its
    best step is chosen on val, and test is asked once. After that it is only asked.
    """
    from nf2vec_cli.commands.settings import verb_settings
    from nf2vec_cli.config.classify import ClassifyConfig, classify_defaults
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.store.store import open_store
    from nf2vec_cli.tasks.classify import classify_store
    from nf2vec_cli.tasks.fresh import find_shapes

    if predict and unlabelled:
        raise UsageFault("--predict asks for new shapes, --unlabelled for those of the store")
    refs = find_shapes(open_store(store), predict) if predict else []
    opened = classify_store(
        store,
        verb_settings(ClassifyConfig, classify_defaults, preset, config, settings, seed=seed),
        encoder=encoder,
        seeds=seeds,
        skip_rare=skip_rare,
        device=device,
        force=force,
        wait=wait,
        progress=open_progress(json=json),
    )
    if predict:
        rows, failed = opened.of_shapes(
            refs, device=device, jobs=jobs, progress=open_progress(json=json)
        )
        _tell(rows, json)
        if failed:
            raise PartialFailure(
                f"{len(failed)} of {len(refs)} shapes were not classified: "
                f"{failed[0][0]!r}: {failed[0][1]}"
            )
        return
    if unlabelled:
        _tell(list(opened.of_rows(opened.unlabelled())), json)
        return
    if predictions:
        output.write_lines(opened.of_rows(opened.asked()), predictions)
    if confusion:
        from nf2vec_cli.tasks.plot import confusion_map, write_png

        result = opened.result
        title = f"{result.test_objects} objects of test, {result.accuracy:.1f} % right"
        write_png([[confusion_map(result.confusion, result.classes, title)]], confusion)
    if json:
        output.emit(opened.result, as_json=True)
    else:
        output.emit(opened.summary())
        output.emit(opened.by_class())


def _tell(rows: list, json: bool) -> None:  # type: ignore[type-arg]
    if json:
        output.emit(rows, as_json=True)
        return
    shown = ("id", "predicted", "probability", "second")
    output.emit([{name: getattr(row, name) for name in shown} for row in rows])
