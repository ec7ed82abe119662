"""What `torch.hub` finds here: ``torch.hub.load(<repository>, "scnet", "resnet50")``."""

import sys
from pathlib import Path

dependencies = ["torch", "torchvision", "numpy", "einops", "PIL", "typing_extensions"]
sys.path.insert(0, str(Path(__file__).parent / "src"))

from fewshotseg import build_prototype_segmenter as prototype_segmenter  # noqa: E402, F401
from fewshotseg import build_scnet as scnet  # noqa: E402, F401
from fewshotseg.models import load_pretrained as pretrained  # noqa: E402, F401
