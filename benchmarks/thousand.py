"""1,000 engine pairs against 1,000 plain env.Command pairs, null build: CPU time.

The first model's engines are made by a stand-in for the compiler, and the others are written with receipts of
their own: what is measured is the graph. kinds: of hardware with names, an engine of each model for each.

    python benchmarks/thousand.py [rounds] [models] [kinds]
"""

import sys

from common import report, side_by_side, workplace
from trees import build, commands, engines, fill


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    models = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    kinds = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    pairs = models * max(kinds, 1)
    with workplace() as folder:
        ours, plain = engines(folder, models, kinds), commands(folder, models, max(kinds, 1))
        fill(ours, models, kinds)
        for _ in range(3):
            build(ours)
            build(plain)
        a, b = side_by_side(lambda: build(ours), lambda: build(plain), rounds)
        for field, bound in (("cpu", 0.5 if pairs >= 1000 else 1.1), ("wall", None), ("peak", None)):
            report(f"{pairs} engine pairs / plain pairs", a, b, field, bound)


if __name__ == "__main__":
    main()
