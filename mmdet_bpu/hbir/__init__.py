"""HBIR and the integer dialect: text, builder, plain program, interpreter, numerics."""
