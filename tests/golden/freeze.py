"""Freeze the golden numbers again: `python tests/golden/freeze.py --overwrite [CASE ...]`.

Without `--overwrite` it only prints what differs from the frozen numbers. Where a number must change, the commit says
which and why.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the tests; PyTorch reads it when it is imported
os.environ.pop("TOMBOLA_DATA", None)

from golden_cases import CASES, FAMILIES, SENSITIVE
from golden_compare import differences, tolerance_of
from golden_numbers import FOLDER, family_of, numbers_of, read, signature, write


def main() -> int:
    """Return 0 where nothing differs or the numbers were written, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="run these alone [default: every case]")
    parser.add_argument("--overwrite", action="store_true", help="replace the frozen numbers of these cases")
    parser.add_argument("--workers", type=int, default=0, help="processes of tombola.run [default: 0, this one]")
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"unknown cases {sorted(unknown)}; there are {', '.join(CASES)}")
    kept = {family: read(family) for family in FAMILIES if (FOLDER / f"{family}.json").exists()}
    names = options.cases or list(CASES)
    touched = {family_of(name) for name in names}
    moved = [family for family, (where, _) in kept.items() if where != signature()]
    if options.overwrite and any(set(FAMILIES[family]) - set(names) for family in touched & set(moved)):
        parser.error(f"{', '.join(moved)} were frozen on another machine; freeze all of their cases together")
    frozen = {family: dict(cases) for family, (_, cases) in kept.items()}
    different = 0
    for name in names:
        family, begun = family_of(name), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            found = numbers_of(name, Path(folder), options.workers)
        before = frozen.setdefault(family, {}).get(name, {})
        lines = sorted(differences(before, found, tolerance_of(family not in moved, name in SENSITIVE)))
        different += len(lines)
        seconds = time.process_time() - begun
        print(f"{name}: {len(found)} rows, {len(lines)} differences, {seconds:.2f} s of processor time")
        for line in lines[: 10 if before else 0]:
            print("   ", line)
        frozen[family][name] = found
    if options.overwrite:
        for family in touched:
            cases = {name: frozen[family][name] for name in FAMILIES[family] if name in frozen[family]}
            path = write(family, cases)
            print(f"wrote {path.name}, {path.stat().st_size / 1e3:.0f} kB")
    return int(different > 0 and not options.overwrite)


if __name__ == "__main__":
    sys.exit(main())
