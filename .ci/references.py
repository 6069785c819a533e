#!/usr/bin/env python3
"""Checks the references to files and the form of the README: .ci/references.py

- Each path that a text of this repository names, such as tests/fuzz/run, exists, and so does a heading that is named with
  it, as in "functions/redrive/README.md, Alarms". lychee checks the links of Markdown files.
- README.md has at most 180 lines, the prose of Markdown files is wrapped at 100 columns, and the rows of a table have as
  many cells as its header.
"""

import pathlib
import re
import subprocess
import sys

README_LINES = 180
PROSE_COLUMNS = 100
# The field tables of the providers' READMEs are written by tests, and their prose is not wrapped.
NOT_WRAPPED = re.compile(r"functions/(?!redrive/|reconcile/)\w+/README\.md")

FOLDERS = r"functions|shared|local|tests|events|\.ci|\.github"
PATH = re.compile(rf"(?<![\w./$}}:-])(?:\.\./)*((?:{FOLDERS})/[\w./*-]*)(?![\w./*-]*[{{<$])")
PATH_AND_HEADING = re.compile(rf"((?:{FOLDERS})/[\w./-]+\.md),\s+([A-Z]\w*(?: \w+)*)(?=[,.;:)])")
# Words that only look like paths: a rate, and a part of a signature.
NO_PATHS = {"events/s", "local/20260101"}


def tracked() -> list[str]:
    """Returns the files of the repository, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [file for file in files if pathlib.Path(file).is_file()]


def is_searched(file: str) -> bool:
    """Whether the paths in a file are references. An event holds data, and the changelog names files of earlier versions."""
    is_event = file.startswith("events/") and file.endswith(".json")
    return not (is_event or file.endswith((".png", ".lock", "package-lock.json")) or file == "CHANGELOG.md")


def headings(markdown: str) -> set[str]:
    without_code = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^#+ (.+?) *$", without_code, re.MULTILINE))


def broken_references(files: list[str]):
    known = set(files)
    known |= {str(folder) for file in files for folder in pathlib.PurePosixPath(file).parents}
    for file in filter(is_searched, files):
        text = pathlib.Path(file).read_text()
        for match in PATH.finditer(text):
            path = match[1].rstrip("./-")
            ignored = "*" in path or any(f"{path}/".startswith(f"{word}/") for word in NO_PATHS)
            if path not in known and not ignored:
                yield file, text.count("\n", 0, match.start()) + 1, f"there is no {path}"
        for match in PATH_AND_HEADING.finditer(text):
            path, heading = match.groups()
            if path in known and heading not in headings(pathlib.Path(path).read_text()):
                yield file, text.count("\n", 0, match.start()) + 1, f"{path} has no heading {heading}"


def long_prose(files: list[str]):
    for file in files:
        if not file.endswith(".md") or NOT_WRAPPED.fullmatch(file):
            continue
        in_code = False
        for number, line in enumerate(pathlib.Path(file).read_text().splitlines(), 1):
            if line.lstrip().startswith("```"):
                in_code = not in_code
            # A line without a space cannot be wrapped.
            is_prose = not in_code and not line.lstrip().startswith(("|", "<")) and " " in line.strip()
            if is_prose and len(line) > PROSE_COLUMNS:
                yield file, number, f"{len(line)} columns, more than {PROSE_COLUMNS}"


def uneven_tables(files: list[str]):
    def cells(row: str) -> int:
        return len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row)))

    for file in files:
        if not file.endswith(".md"):
            continue
        rows = pathlib.Path(file).read_text().splitlines()
        for number, row in enumerate(rows[1:], 2):
            previous = rows[number - 2]
            if row.startswith("|") and previous.startswith("|") and cells(row) != cells(previous):
                yield file, number, "a row of a table has another number of cells than the row before"


def main() -> int:
    files = tracked()
    faults = sorted({*broken_references(files), *long_prose(files), *uneven_tables(files)})
    lines = len(pathlib.Path("README.md").read_text().splitlines())
    if lines > README_LINES:
        faults.append(("README.md", lines, f"{lines} lines, more than {README_LINES}"))
    for file, line, fault in faults:
        print(f"{file}:{line}: {fault}", file=sys.stderr)
    print(f"{len(files)} files, {len(faults)} faults")
    return 1 if faults else 0


sys.exit(main())
