"""The page of ``fewshotseg annotate``: photographs, marks on them, and what a model finds by these marks."""
