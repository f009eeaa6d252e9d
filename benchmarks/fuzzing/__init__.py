"""Campaigns of hostile inputs: one file per kind of input, named as the kind."""
