"""The report of a run: one self-contained HTML page.

| module | does |
|---|---|
| ``writing`` | ``write_report``: sections in their order, as one file |
| ``summary`` | the first screen |
| ``costs`` | what each layer costs before and after |
| ``activity``, ``looking`` | what neurons give, which are kept, what a layer looks at |
| ``classes`` | confusion, images that changed, what classes share |
| ``budget`` | what is not known, and how many images would tell |
| ``figures``, ``drawing``, ``charts`` | charts as SVG in the page's own colours |
"""

from distillnet.pages.report.writing import report_page, write_report

__all__ = ["report_page", "write_report"]
