"""The integer program as plain data: types, arithmetic, tables, the ``.hbm`` file."""
