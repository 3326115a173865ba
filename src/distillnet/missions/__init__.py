"""Missions in the field: signed packages over one set of weights, and inputs of no class.

| part | does |
|---|---|
| ``unknown`` | a rule that tells images of none of the mission's classes, fitted and carried out |
| ``packages`` | missions as signed files, and a runtime that holds several over shared weights |
"""

__all__: list[str] = []
