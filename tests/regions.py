"""Counts regions of code that tests have reached, without the regions of unit tests.

    llvm-cov export --format=text … | python3 tests/regions.py LEAST PREFIX…

PREFIX: of the paths of files that count, in this checkout. A region of a generic function is reached
if one of its instances is. Prints each region that is not, and fails below LEAST percent.
"""

import json
import os
import sys

CODE_REGION = 0
FIELDS = 8


def tests_begin(lines):
    """Line at which the unit tests at the end of a file begin."""
    marks = (number for number, line in enumerate(lines, 1) if line.strip() == "#[cfg(test)]")
    return next(marks, len(lines) + 1)


def regions_of(exported, prefixes):
    """Counts by file and place."""
    files = {}
    for function in exported["data"][0]["functions"]:
        for region in function["regions"]:
            *place, count, file, _, kind = region[:FIELDS]
            path = os.path.relpath(function["filenames"][file])
            if kind == CODE_REGION and path.startswith(prefixes) and not path.endswith("tests.rs"):
                counts = files.setdefault(path, {})
                counts[tuple(place)] = counts.get(tuple(place), 0) + count
    return files


def main(least, prefixes):
    reached = total = 0
    for path, counts in sorted(regions_of(json.load(sys.stdin), prefixes).items()):
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        end = tests_begin(lines)
        for place, count in sorted(counts.items()):
            if place[0] < end:
                total += 1
                reached += count > 0
                if count == 0:
                    print(f"{path}:{place[0]}:{place[1]}: never reached: {lines[place[0] - 1].strip()}")
    if total == 0:
        sys.exit("no region was counted")
    percent = 100 * reached / total
    print(f"SUMMARY: {reached} of {total} regions, {percent:.2f} %")
    sys.exit(percent < least)


main(float(sys.argv[1]), tuple(sys.argv[2:]))
