"""Settings of the whole suite: the same examples on every run, and one thread, as small tensors like it best."""

import torch
from hypothesis import settings

settings.register_profile("default", derandomize=True, deadline=None, max_examples=25)
settings.load_profile("default")
torch.set_num_threads(1)
