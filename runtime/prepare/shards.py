"""`sparknet-data shards`: images, in a folder for each class, packed into tars as SparkNet keeps ImageNet."""

from ..data import BadPolicy, Phase
from ..progress import progress
from .convert import Options, opened, rows_in_order, sink_for
from .reading import names_in
from .writer import path_in, rows_of


def shards(
    source: str,
    to: str,
    *,
    per_tar: int,
    size: tuple[int, int] | None,
    order: str,
    seed: int,
    phase: str,
    bad_records: BadPolicy,
    force: bool,
) -> str:
    """Packs the images of the folder, or list, `source` into tars in the folder `to`; tells what was written.

    Raises DataError, OutputError.
    """
    phase_: Phase = "TEST" if phase == "test" else "TRAIN"
    options = Options(
        phase=phase_,
        size=size,
        encoding="jpg" if size else None,
        shuffle=order == "shuffled",
        seed=seed,
        per_file=per_tar,
        force=force,
        bad_records=bad_records,
    )
    data = opened(f"images:{source}", options)
    classes: dict[int, str] = {}
    with sink_for(f"imagenet:{to}", data, options) as target, progress(f"packing {source}") as bar:
        for rows in rows_in_order(data, target, options):
            target.take(rows)
            names = names_in(rows)
            if names is not None:
                for label, name in zip(rows["label"].tolist(), names, strict=True):
                    classes.setdefault(label, path_in(name).split("/")[0])
            bar.advance(rows_of(rows))
        lines = [f"{label} {name}\n" for label, name in sorted(classes.items())]
        (target.path / "classes.txt").write_text("".join(lines), errors="surrogateescape")
        written = target.finish()
    return f"{written}{data.skipped()}"
