"""How audio tokens meet the decoder: as rows (`prepend`), as keys and values (`attend`), or by gated `cross` blocks."""

NAMES = {
    "prepend": "prepend:Prepend",
    "attend": "attend:Attend",
    "cross": "cross:Cross",
}
