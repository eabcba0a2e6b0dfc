"""Parts of ``speed.py``: the steps that are timed, the comparisons between them, the measurements and the report."""
