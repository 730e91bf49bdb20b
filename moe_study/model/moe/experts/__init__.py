"""COMPUTES what the experts give for what was decided: dispatch and the implementations behind it."""
