"""What a file may ask of the machine that reads it.

Stated here so that a file of a few bytes cannot take all memory: sizes that it declares are summed
and compared before anything of that size is made.
"""
MEMORY_BUDGET = 4 << 30
"""Bytes of one program: its constants, what is prepared of them, its activations, and the operands
and results of its largest instruction as its kernel carries them."""

WORK_BUDGET, WORK_OF_A_BYTE = 1 << 29, 1 << 16
"""Multiplications, or elements that are looked at, of one run of a program: so many in any case,
and for each byte of stored constants as many as a large feature map has positions."""
