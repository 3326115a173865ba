"""Missions: one pass over all classes, any set of them afterwards, and what devices do with them.

| part | does |
|---|---|
| ``gathering``, ``retargeting`` | an atlas of all classes; networks made from it without images |
| ``unknown`` | a rule that tells images of none of the mission's classes, fitted and carried out |
| ``packages`` | missions as signed files, and a runtime that holds several over shared weights |
"""

__all__: list[str] = []
