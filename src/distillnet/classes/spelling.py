"""When two spellings of a class's name are the same: case, separators, accents, plurals."""

import re
import unicodedata

__all__ = ["key", "plurals"]


def key(text: str) -> str:
    """What two spellings of one name have in common.

    >>> key("Chain_Saw "), key("007")
    ('chain saw', '7')
    """
    # NFKC: macOS hands out folder names decomposed, and "é" must equal "é".
    # Stripped first: the hyphen of "-1" is no separator.
    folded = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", text).strip().casefold())
    # Folders of numbered classes are often padded: "007" is class 7.
    return str(int(folded)) if re.fullmatch(r"[0-9]{1,9}", folded) else folded


def plurals(folded: str) -> tuple[str, ...]:
    """The English plurals that the ``key`` of a singular may have; none of a code or number.

    >>> plurals("church"), plurals("butterfly"), plurals("wolf"), plurals("n02012849")
    (('churchs', 'churches'), ('butterflys', 'butterflies'), ('wolfs', 'wolves'), ())
    """
    if len(folded) < 3 or not folded[-1].isalpha():
        return ()
    regular = f"{folded}s"
    for end, plural in (
        ("man", "men"),
        ("fe", "ves"),
        ("f", "ves"),
        ("y", "ies"),
        *((hiss, f"{hiss}es") for hiss in ("s", "x", "z", "ch", "sh", "o")),
    ):
        if folded.endswith(end):
            return regular, folded.removesuffix(end) + plural
    return (regular,)
