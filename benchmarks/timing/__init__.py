"""What ``speed.py`` is made of: shapes and data, contestants, rounds, ratios, floors, memory, the table."""
