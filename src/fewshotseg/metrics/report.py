"""What few-shot scores found, printed for people and written for JSON."""

from collections.abc import Mapping
from typing import NamedTuple

from fewshotseg.metrics.counting import or_none, table


class SizeIoU(NamedTuple):
    """The scores of the episodes whose object has a certain size.

    Attributes:
        miou: Mean over the classes that have such episodes, each counted over all of them; NaN without any.
        episode_miou: The mean of these episodes' own foreground IoU.
        episodes: Their number.
    """

    miou: float
    episode_miou: float
    episodes: int


class IoUReport(NamedTuple):
    """What `FewShotIoU` found; all shares are from 0 to 1. Printed, they are percentages.

    Attributes:
        miou: Mean of ``per_class`` over the classes that were drawn.
        fb_iou: FB-IoU: mean of the foreground's and the background's IoU, over all episodes whatever their class.
        per_class: Class id to IoU over all its episodes; NaN for a class without a scored pixel.
        episodes: Number of episodes.
        episode_miou: The other way to average: the mean of the episodes' own foreground IoU, leaving out episodes where
            neither prediction nor target has foreground.
        episodes_per_class: Class id to number of episodes.
        class_names: Class id to name, for printing; may be empty.
        by_size: The scores by how much of the query image the object covers: ``"<2%"``, ``"2-10%"`` (both ends
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
        """The same for JSON: classes by name (by number without one), None for NaN."""
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
