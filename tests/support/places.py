"""Where things lie in the checkout, for tests that read them or start processes."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
SOURCE = ROOT / "bench"  # what an import of `peftmark` needs on the path
SUITES = ROOT / "suites"
DOCS = ROOT / "docs"
