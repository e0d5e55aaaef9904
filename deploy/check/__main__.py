"""Checks of deploy/: images, compose, manifests, alerts, dashboards, and that all of them fit together.

`deploy/local/deployment` runs it, with the tools that it needs. Reports like cargo's test runner, so that both are
counted in the same way. A check is a function whose name says what must hold; it returns the sentences that say
where it does not.
"""

import sys
import traceback

from . import compose, custom, dockerfile, environment, guide, manifests, network, references, servers, watching

MODULES = (dockerfile, compose, environment, manifests, custom, references, network, servers, watching, guide)


def main():
    wanted = sys.argv[1:]
    passed = failed = 0
    for module in MODULES:
        for name, check in vars(module).items():
            if not getattr(check, "is_check", False) or check.__module__ != module.__name__:
                continue
            label = f"{module.__name__.split('.')[-1]}::{name}"
            if wanted and not any(word in label for word in wanted):
                continue
            try:
                faults = list(check())
            except Exception:  # a check that breaks down has failed, and the others still run
                faults = [traceback.format_exc()]
            for fault in faults:
                print(f"  {fault}")
            print(f"test deployment::{label} ... {'FAILED' if faults else 'ok'}")
            failed += bool(faults)
            passed += not faults
    print(f"test result: {'FAILED' if failed or not passed else 'ok'}. {passed} passed; {failed} failed")
    sys.exit(bool(failed) or not passed)


main()
