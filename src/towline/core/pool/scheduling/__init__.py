"""The parts of the scheduling pass (its steps stand in ``pool/placing.py``)."""
