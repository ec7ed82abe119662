"""Speed-ups of models, with results that are equal up to rounding."""
