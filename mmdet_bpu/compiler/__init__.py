"""From an integer program to a ``.hbm``: legality, schedule, memory, estimate, file, report.

Nothing is imported here, so that the names of the marches cost no more than they are.
"""
