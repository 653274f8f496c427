"""1,000 engine pairs against 1,000 plain env.Command pairs, null build: CPU time.

The engines are made by a stand-in for the compiler: what is measured is the graph.

    python benchmarks/thousand.py [rounds] [pairs]
"""

import sys

from common import report, side_by_side, workplace
from trees import build, commands, engines


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with workplace() as folder:
        ours, plain = engines(folder, pairs), commands(folder, pairs)
        for _ in range(3):
            build(ours)
            build(plain)
        a, b = side_by_side(lambda: build(ours), lambda: build(plain), rounds)
        for field, bound in (("cpu", 0.6 if pairs >= 1000 else 1.1), ("wall", None), ("peak", None)):
            report(f"{pairs} engine pairs / plain pairs", a, b, field, bound)


if __name__ == "__main__":
    main()
