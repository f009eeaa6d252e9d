"""Models whose latency the vendor publishes, built again from what papers and configs say of them.

None holds learned weights: operations and shapes are all that a cost model reads.
"""
