"""A run's folder on disk: its layout, checkpoints and log, and how a run is resumed or loaded from it."""
