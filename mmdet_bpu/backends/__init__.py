"""Who makes the ``.hbm``: our compiler for the simulator, or the vendor's for the board.

Nothing is imported here, so that the names of the backends cost no more than they are.
"""
