"""The page of ``fewshotseg annotate``: mark objects on photographs, and see what a model finds in others."""
