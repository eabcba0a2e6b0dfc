"""The particle filter. Start at ``particle_filter``."""
