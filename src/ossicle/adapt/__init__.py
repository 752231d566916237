"""Your own recordings become a model: read, split by recording, teach with replay, measure beside honest baselines.

FOLDER ──folder──► recordings ──split──► train | test
                                 train ──tags─────► a tagger of the labels, as a stream of the model
                                 train ──samples──► questions + the old model's own answers (replay) ──teach──► model
                                 test  ──────────► score beside majority, linear probe, blind, and what was forgotten
"""
