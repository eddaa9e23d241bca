"""The command line: which function a verb calls, and what its errors exit with.

Exit codes: 0 all is well; 1 the answer is no (stale modules, differing bits, a variant that breaks
a gate, a broken device); 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from generator.arguments import parser
from generator.errors import GroupwiseError
from generator.verbs import compiling, emitting, running, telling

VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "build": emitting.build,
    "check": emitting.check,
    "bundle": emitting.bundle,
    "compile": compiling.compile_,
    "prefill": compiling.prefill,
    "list": telling.list_,
    "explain": telling.explain,
    "schema": telling.schema,
    "verify": running.verify,
    "probe": running.probe,
    "bench": running.bench,
    "tune": running.tune,
}

LEFT = {  # of a verb that was interrupted
    "build": "what was written before stays",
    "bundle": "what was written before stays",
    "prefill": "what was compiled before stays",
    "bench": "what was measured before stays in --out",
    "tune": "what was timed before stays in --trials, and the next run goes on there",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__.split("\n")[0]).parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(format="%(name)s: %(message)s")
    if getattr(options, "verbose", False):
        logging.getLogger("groupwise").setLevel(logging.INFO)
    try:
        code = VERBS[options.verb](options)
    except GroupwiseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {LEFT.get(options.verb, 'nothing was written')}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe left; what it wanted, it has
        sys.stderr.close()
        return 0
    return code
