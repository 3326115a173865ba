"""Copy the table of results from docs/results.md into README.md: ``make readme``."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PART = re.compile(r"(<!-- from [^\n]*-->\n)(.*?)(<!-- end -->)", re.S)


def with_results(readme: str, results: str) -> str:
    """README with what stands between the marks in the results."""
    found = _PART.search(results)
    if found is None or not _PART.search(readme):
        raise SystemExit("found no <!-- from ... --> and <!-- end --> in README.md and results.md")
    return _PART.sub(lambda mine: mine[1] + found[2] + mine[3], readme, count=1)


if __name__ == "__main__":
    readme, results = ROOT / "README.md", ROOT / "docs" / "results.md"
    text = with_results(readme.read_text(encoding="utf-8"), results.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")
