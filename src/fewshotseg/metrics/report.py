"""The scores of `FewShotIoU`."""

from collections.abc import Mapping
from typing import NamedTuple

from fewshotseg.metrics.counting import or_none, table


class SizeIoU(NamedTuple):
    """The scores of the episodes with objects of one size.

    Attributes:
        miou: Mean IoU of the classes that have such episodes; NaN without any.
        episode_miou: Mean of the episodes' own foreground IoU.
        episodes: Number of episodes.
    """

    miou: float
    episode_miou: float
    episodes: int


class IoUReport(NamedTuple):
    """The scores of `FewShotIoU`, from 0 to 1; printed in percent.

    Attributes:
        miou: Mean of ``per_class`` over the classes that have episodes.
        fb_iou: FB-IoU: mean of the foreground's and the background's IoU over all episodes of all classes.
        per_class: Class id -> IoU over all its episodes; NaN for a class without a scored pixel.
        episodes: Number of episodes.
        episode_miou: Mean of the episodes' own foreground IoU, without episodes that have foreground neither in the
            prediction nor in the target.
        episodes_per_class: Class id -> number of episodes.
        class_names: Class id -> name, for printing; may be empty.
        by_size: Scores by the share of the query image that the object covers: ``"<2%"``, ``"2-10%"`` (both ends
            included) and ``">10%"``. Episodes whose query does not show the object are in none of them.
    """

    miou: float
    fb_iou: float
    per_class: Mapping[int, float]
    episodes: int
    episode_miou: float
    episodes_per_class: Mapping[int, int]
    class_names: Mapping[int, str]
    by_size: Mapping[str, SizeIoU]

    def to_dict(self) -> dict[str, object]:
        """Return the scores for JSON: classes by name, or by id without one; None for NaN."""
        keys = {class_id: self.class_names.get(class_id, str(class_id)) for class_id in self.per_class}
        return {
            "miou": or_none(self.miou),
            "fb_iou": or_none(self.fb_iou),
            "per_class": {keys[class_id]: or_none(iou) for class_id, iou in self.per_class.items()},
            "episodes": self.episodes,
            "episode_miou": or_none(self.episode_miou),
            "episodes_per_class": {keys[class_id]: count for class_id, count in self.episodes_per_class.items()},
            "by_size": {
                size: {"miou": or_none(miou), "episode_miou": or_none(episode_miou), "episodes": episodes}
                for size, (miou, episode_miou, episodes) in self.by_size.items()
            },
        }

    def __str__(self) -> str:
        rows = [("mIoU", self.miou, self.episodes), ("FB-IoU", self.fb_iou, self.episodes)]
        rows += [("episode mIoU", self.episode_miou, self.episodes)]
        rows += [(f"object {size}", each.miou, each.episodes) for size, each in self.by_size.items() if each.episodes]
        rows += [
            (self.class_names.get(class_id, f"class {class_id}"), iou, self.episodes_per_class[class_id])
            for class_id, iou in self.per_class.items()
        ]
        return table([(name, iou, f"({count} episodes)") for name, iou, count in rows])
