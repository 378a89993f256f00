"""Own and total share of each function in the raw stacks that `py-spy record -f raw` writes.

Run: python -m tests.speed.stacks FILE [--top 40]
"""

import argparse
import re
from collections import Counter
from pathlib import Path

_LINE = re.compile(r":\d+\)$")


def shares(raw: str) -> tuple[Counter[str], Counter[str], int]:
    """Samples with a function at the top of the stack, samples with it anywhere on the stack, and all samples."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        functions = [_LINE.sub(")", frame) for frame in stack.split(";")]
        samples += int(count)
        own[functions[-1]] += int(count)
        total.update(dict.fromkeys(functions, int(count)))
    return own, total, samples


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--top", type=int, default=40)
    args = parser.parse_args()
    own, total, samples = shares(args.file.read_text())
    print(f"{samples} samples\n   own  total  function")
    for function, count in own.most_common(args.top):
        print(f"{count / samples:6.1%} {total[function] / samples:6.1%}  {function}")
    print("\nby total:")
    for function, count in total.most_common(args.top):
        print(f"{own[function] / samples:6.1%} {count / samples:6.1%}  {function}")
