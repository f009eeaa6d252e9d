"""What runs an integer program: the interpreter and the simulator of a ``.hbm``."""
