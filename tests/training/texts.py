"""A text that can be learned in a moment."""

from pathlib import Path


def write_texts(folder: Path) -> tuple[Path, Path, Path]:
    """Write train, valid and test files of one predictable text, six words in a circle, and return their paths."""
    files = []
    for part, lines in (("train", 60), ("valid", 10), ("test", 10)):
        file = folder / f"{part}.txt"
        file.write_text("one two three four five six\n" * lines)
        files.append(file)
    return files[0], files[1], files[2]
