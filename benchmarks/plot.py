"""The plots of a `bench.json`, where they were not made in the run: latency against tokens of every
model, layer and routing, and a roofline.

    python -m benchmarks.plot DIR/bench.json --out FOLDER

Needs matplotlib and pydantic, no GPU; `bench` itself makes them where matplotlib is installed.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmarks.report import arguments, asked
from generator.errors import LaunchError
from generator.tune import plots
from generator.tune.rows import Report


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True)
    data, options = asked(parser)
    try:
        plots.require()
        for path in plots.write(TypeAdapter(Report).validate_python(data), options.out):
            print(path)
    except LaunchError as error:
        parser.error(str(error))
    except ValidationError as error:
        parser.error(f"{options.report} was written by another version: {error.errors()[0]['msg']}")


if __name__ == "__main__":
    main()
