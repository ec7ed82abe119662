"""Sources of annotated images, episodes, class splits, transforms and evaluation protocols."""

from fewshotseg.data.episodes.dataset import Episode, EpisodeDataset
from fewshotseg.data.episodes.lists import EpisodeSpec, episodes_hash, read_episodes, write_episodes
from fewshotseg.data.episodes.masks import episode_mask, labels_of_classes
from fewshotseg.data.episodes.n_way import NWayDataset, NWayEpisode, NWaySpec
from fewshotseg.data.episodes.pfenet import pfenet_episodes
from fewshotseg.data.episodes.with_classes import EpisodesWithClasses, EpisodeWithClasses
from fewshotseg.data.hidden_novel import hidden_novel_share
from fewshotseg.data.protocols import PROTOCOLS, EvaluationProtocol
from fewshotseg.data.sources.classwise import ClasswiseSource
from fewshotseg.data.sources.coco import COCOSource
from fewshotseg.data.sources.combine import ConcatSource, SubsetSource, without_classes
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.folder import FolderSource
from fewshotseg.data.sources.fss1000 import FSS1000Source
from fewshotseg.data.sources.sbd import write_sbd_masks
from fewshotseg.data.sources.source import VOID, Sample, SegmentationSource
from fewshotseg.data.sources.synthetic import SyntheticSource
from fewshotseg.data.sources.voc import VOCSource
from fewshotseg.data.splits import COCO_CLASSES, PASCAL_CLASSES, ClassSplit, coco20i, pascal5i
from fewshotseg.data.transforms import hsnet_eval, padded_eval, pfenet_eval, pfenet_train, scnet_train

__all__ = [
    "COCO_CLASSES",
    "PASCAL_CLASSES",
    "PROTOCOLS",
    "VOID",
    "COCOSource",
    "ClassSplit",
    "ClasswiseSource",
    "ConcatSource",
    "Episode",
    "EpisodeDataset",
    "EpisodeSpec",
    "EpisodeWithClasses",
    "EpisodesWithClasses",
    "EvaluationProtocol",
    "FSS1000Source",
    "FileSource",
    "FolderSource",
    "NWayDataset",
    "NWayEpisode",
    "NWaySpec",
    "Sample",
    "SegmentationSource",
    "SubsetSource",
    "SyntheticSource",
    "VOCSource",
    "coco20i",
    "episode_mask",
    "episodes_hash",
    "hidden_novel_share",
    "hsnet_eval",
    "labels_of_classes",
    "padded_eval",
    "pascal5i",
    "pfenet_episodes",
    "pfenet_eval",
    "pfenet_train",
    "read_episodes",
    "scnet_train",
    "without_classes",
    "write_episodes",
    "write_sbd_masks",
]
