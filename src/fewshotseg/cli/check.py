"""Check a data set: decode every file, count its images and classes, and report every fault.

    fewshotseg check folder photographs/
    fewshotseg check voc VOC2012/ --split trainaug
    fewshotseg check coco COCO2014/val2014 COCO2014/annotations/instances_val2014.json
    fewshotseg check fss1000 fewshot_data/
    fewshotseg check classwise deepglobe/

Counts are printed to standard output, faults to standard error. The exit status is 0 if there is no fault, else 1.
"""

import argparse
import sys

from fewshotseg._checks import one_line
from fewshotseg.cli.errors import EXPECTED, sentence
from fewshotseg.cli.talk import say, show
from fewshotseg.data.sources.check import SourceReport, check_parts, describe
from fewshotseg.data.sources.classwise import ClasswiseSource
from fewshotseg.data.sources.coco import COCOSource
from fewshotseg.data.sources.faults import FaultyFilesError
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.folder import FolderSource
from fewshotseg.data.sources.fss1000 import FSS1000Source
from fewshotseg.data.sources.voc import VOCSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand for each kind of data set."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")

    folder = kinds.add_parser("folder", help="your own images and masks")
    folder.add_argument(
        "images", metavar="ROOT|IMAGES", help="A folder that holds images/ and masks/, or the folder of the images."
    )
    folder.add_argument("masks", nargs="?", metavar="MASKS", help="The folder of the masks, if not ROOT/masks.")

    voc = kinds.add_parser("voc", help="PASCAL VOC 2012, with or without the masks of SBD")
    voc.add_argument("root", metavar="ROOT", help="The folder VOC2012, or the folder that holds it.")
    voc.add_argument("--split", default="val", help="Images to check: val (default), pfenet, trainaug, or the path of "
                     "a file that lists them.")  # fmt: skip

    coco = kinds.add_parser("coco", help="COCO 2014 or 2017; the first time, its masks are drawn from the annotations")
    coco.add_argument("images", metavar="IMAGES", help="The folder of the images.")
    coco.add_argument("annotations", metavar="ANNOTATIONS", help="The file instances_*.json.")
    coco.add_argument("--layout", choices=("interleaved", "contiguous"), default="interleaved",
                      help="How the classes are split into folds (default: interleaved).")  # fmt: skip
    coco.add_argument("--cache", help="Folder to keep the drawn masks in (default: the user's cache folder).")

    fss1000 = kinds.add_parser("fss1000", help="FSS-1000")
    fss1000.add_argument("root", metavar="ROOT", help="The folder of the class folders.")

    classwise = kinds.add_parser("classwise", help="one folder for each class: DeepGlobe, ISIC, chest X-rays, SUIM")
    classwise.add_argument("root", metavar="ROOT", help="The folder of the class folders, or of images/ and masks/.")


def run(options: argparse.Namespace) -> int:
    """Check a data set; faults are printed at once, counts at the end, also after an interruption.

    Returns:
        1 if a fault was found or the check was interrupted, else 0.
    """
    progress = sys.stderr.isatty()
    report, done, source = SourceReport([], [], []), 0, None
    try:
        source = _open(options, report, progress=progress)
        if source is None:
            return 1
        for images, part in check_parts(source, progress=progress):
            done = images
            _show(part)
            report.areas.extend(part.areas)
            report.faults.extend(part.faults)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    if source is None:
        return 1
    names = source.class_names if source.named else {i: str(i) for i in sorted(set().union(*report.areas))}
    interrupted = done < len(source.ids)
    checked = f"{done} of {len(source.ids)} images" if interrupted else f"{done} images"
    show(describe(report, names, layout=getattr(options, "layout", "interleaved")))
    show(f"\n{len(report.faults)} faults in {checked}")
    return 1 if report.faults or interrupted else 0


def _open(options: argparse.Namespace, report: SourceReport, *, progress: bool) -> FileSource | None:
    """Open the source, without its faulty files if it has any; None if it cannot be opened at all."""
    faults: tuple[str, ...] = ()
    source = None
    try:
        source = _source(options, progress=progress)
    except FaultyFilesError as error:
        faults = error.faults
        source = error.source if isinstance(error.source, FileSource) else None
    except EXPECTED as error:
        faults = (sentence(error),)
    report.faults.extend(faults)
    _show(SourceReport([], list(faults), []))
    return source


def _show(part: SourceReport) -> None:
    """Print faults and remarks to standard error."""
    for line in [*(f"fault: {fault}" for fault in part.faults), *(f"note: {remark}" for remark in part.remarks)]:
        say(one_line(line, most=1000), to=sys.stderr)


def _source(options: argparse.Namespace, *, progress: bool) -> FileSource:
    match options.kind:
        case "folder" if options.masks is None:
            return FolderSource.from_root(options.images)
        case "folder":
            return FolderSource(options.images, options.masks)
        case "voc":
            return VOCSource(options.root, split=options.split)
        case "coco":
            return COCOSource(options.images, options.annotations, cache=options.cache, progress=progress)
        case "fss1000":
            return FSS1000Source(options.root)
        case _:
            return ClasswiseSource(options.root)
