"""Your own recordings become a model: read, split by recording, teach with replay, measure beside honest baselines.

FOLDER ──folder──► recordings ──split──► train | test
                                 train ──samples──► questions + the old model's own answers (replay) ──► training
                                 test  ──────────► score beside majority, linear probe, blind, and what was forgotten
"""
