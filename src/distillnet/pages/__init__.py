"""Pages to look at: a report of a run in one HTML file, and a studio to try missions in.

| module | does |
|---|---|
| ``html`` | templates, a policy that lets a page ask no host for anything |
| ``look/`` | style sheet and script that all pages share |
| ``pictures`` | tensors as PNG within a page |
| ``subject`` | a run and all that is at hand of it |
| ``layers`` | what each layer cost before and after |
| ``answers`` | what both networks say of images |
| ``report/`` | the report: its charts, its sections, ``write_report`` |
"""

__all__: list[str] = []
