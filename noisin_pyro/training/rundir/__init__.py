"""A run's folder on disk: its layout, checkpoints and log, and resuming and loading a run."""
