"""Bytes to numbers: reading (`io`), front ends (`features`), all frame arithmetic (`chunk`), measures (`acoustics`)."""
