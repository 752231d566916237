"""Mixtures: encoders made of encoders (listed in the encoders' name table, because a mixture is an encoder)."""
