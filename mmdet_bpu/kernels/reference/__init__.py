"""The readable kernel set: the contract of docs/numerics.md in torch."""
