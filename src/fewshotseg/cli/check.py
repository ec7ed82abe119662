"""``python -m fewshotseg.data check KIND PATHS...``: is a data set complete, and what does it hold?"""

import argparse
import sys
from collections.abc import Sequence

from fewshotseg.data.sources.check import check_source, describe
from fewshotseg.data.sources.coco import COCOSource
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.folder import FolderSource
from fewshotseg.data.sources.fss1000 import FSS1000Source
from fewshotseg.data.sources.voc import VOCSource


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a data set: print its counts to standard output and its faults to standard error.

    Args:
        arguments: Of the command line; by default this process's.

    Returns:
        The exit code: 1 if a fault was found, else 0. Wrong arguments exit with 2.
    """
    options = _parser().parse_args(arguments)
    progress = sys.stderr.isatty()
    try:
        source = _source(options, progress=progress)
    except (OSError, ValueError, ImportError) as error:
        print(f"fault: {error}", file=sys.stderr)
        return 1
    report = check_source(source, progress=progress)
    names = source.class_names if source.named else {i: str(i) for i in sorted(set().union(*report.areas))}
    print(describe(report, names, layout=getattr(options, "layout", "interleaved")))
    for fault in report.faults:
        print(f"fault: {fault}", file=sys.stderr)
    print(f"\n{len(report.faults)} faults in {len(source.ids)} images")
    return 1 if report.faults else 0


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
        case _:
            return FSS1000Source(options.root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fewshotseg.data", description=__doc__)
    check = parser.add_subparsers(required=True).add_parser(
        "check",
        help="decode every file of a data set, count classes, name every fault",
        epilog="Exits with 1 if there is a fault.",
    )
    kinds = check.add_subparsers(dest="kind", required=True)

    folder = kinds.add_parser("folder", help="images and masks of your own")
    folder.add_argument("images", metavar="ROOT|IMAGES", help="a folder with images/ and masks/, or that of the images")
    folder.add_argument("masks", nargs="?", metavar="MASKS", help="the folder of the masks")

    voc = kinds.add_parser("voc", help="PASCAL VOC 2012, with SBD's masks or without")
    voc.add_argument("root", metavar="ROOT", help="VOC2012 or the folder above it")
    voc.add_argument("--split", default="val", help="val (the default), pfenet, trainaug, or a file with a list")

    coco = kinds.add_parser("coco", help="COCO 2014 or 2017; draws its masks if that was not done yet")
    coco.add_argument("images", metavar="IMAGES", help="the folder of the images")
    coco.add_argument("annotations", metavar="ANNOTATIONS", help="instances_*.json")
    coco.add_argument("--layout", choices=("interleaved", "contiguous"), default="interleaved", help="of the folds")
    coco.add_argument("--cache", help="where masks are kept, by default in the user's cache folder")

    fss1000 = kinds.add_parser("fss1000", help="FSS-1000")
    fss1000.add_argument("root", metavar="ROOT", help="the folder of the class folders")
    return parser


if __name__ == "__main__":
    sys.exit(main())
