"""Mixtures: encoders made of encoders (also in the encoders' name table, because a mixture is an encoder)."""

NAMES = {
    "mowe": "mowe:Mowe",
    "pam": "pam:Pam",
    "concat": "concat:Concat",
    "average": "average:Average",
    "base-only": "base_only:BaseOnly",
}
